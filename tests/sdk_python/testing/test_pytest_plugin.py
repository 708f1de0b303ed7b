"""The fixtures, used as users use them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import stepwire
from stepwire.sync_client import SyncClient
from stepwire.testing import ExecutorProcess
from stepwire.testing.pytest_plugin import StartWorker

app = stepwire.App("greetings")
greeting = "hello"


def greet(name: str) -> str:
    return f"{greeting} {name}"


@app.function("greet", trigger=stepwire.on_event("greet"))
async def greet_flow(ctx: stepwire.Context, step: stepwire.Step) -> str:
    return await step.run("greet", greet, ctx.event.data)


MODULE = """
import os, stepwire
app = stepwire.App("modules")

@app.function("who", trigger=stepwire.on_event("who"))
async def who(ctx, step):
    return await step.map("who", lambda n: os.getpid(), range(8))
"""


def test_an_app_is_served_by_a_thread_of_the_test(
    stepwire_worker: StartWorker, stepwire_client: SyncClient, monkeypatch: pytest.MonkeyPatch
):
    stepwire_worker(app)
    monkeypatch.setattr(sys.modules[__name__], "greeting", "welcome")
    (run_id,) = stepwire_client.send("greet", "Ada").run_ids
    assert stepwire_client.result(run_id, timeout=30) == "welcome Ada"


async def test_the_fixtures_work_in_async_tests(stepwire_worker: StartWorker, stepwire_executor: ExecutorProcess):
    stepwire_worker(app)
    async with stepwire.Client(stepwire_executor.address) as client:
        (run_id,) = (await client.send("greet", "Ada")).run_ids
        assert await client.result(run_id, timeout=30) == "hello Ada"


def test_a_target_is_served_by_processes(stepwire_worker: StartWorker, stepwire_client: SyncClient, tmp_path: Path):
    (tmp_path / "served_here.py").write_text(MODULE)
    worker = stepwire_worker("served_here:app", processes=2, path=tmp_path, slots=4)
    assert len(stepwire_client.workers()) == 2
    (run_id,) = stepwire_client.send("who").run_ids
    assert len(set(stepwire_client.result(run_id, timeout=30))) == 2
    assert worker is not None


def test_the_executor_can_be_killed_in_the_middle_of_a_test(
    stepwire_executor: ExecutorProcess, stepwire_worker: StartWorker, stepwire_client: SyncClient
):
    (run_id,) = (stepwire_worker(app), stepwire_client.send("greet", "Ada"))[1].run_ids
    stepwire_executor.restart()
    assert stepwire_client.result(run_id, timeout=30) == "hello Ada"


def test_a_step_that_still_runs_does_not_hold_up_the_end_of_a_test(
    stepwire_worker: StartWorker, stepwire_client: SyncClient
):
    slow = stepwire.App("slow")

    @slow.function("slow", trigger="slow")
    async def flow(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.run("slow", lambda: stepwire.current_attempt().wait_cancelled(60))

    worker = stepwire_worker(slow, drain_seconds=0.1)
    stepwire_client.send("slow")
    started = time.monotonic()
    worker.stop()
    assert time.monotonic() - started < 20


def test_a_refused_worker_says_why(stepwire_worker: StartWorker):
    other = stepwire.App("greetings")

    @other.function("greet", trigger="greet", retries=77)
    async def flow(ctx: stepwire.Context, step: stepwire.Step) -> None: ...

    stepwire_worker(app)
    with pytest.raises(stepwire.ExecutorError, match="function greetings/greet has other options"):
        stepwire_worker(other)


def test_an_app_object_can_not_be_served_by_processes(stepwire_worker: StartWorker):
    with pytest.raises(ValueError, match='give "module:app" to start processes'):
        stepwire_worker(app, processes=2)


def test_loading_the_plugin_costs_next_to_nothing():
    code = """
import sys, time
import pytest
started = time.perf_counter()
import stepwire.testing.pytest_plugin
took = time.perf_counter() - started
print(took, *sorted({name.partition(".")[0] for name in sys.modules} & {"pydantic", "grpc", "google", "asyncio"}))
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert [run[1:] for run in runs] == [[], [], []]
    assert min(float(run[0]) for run in runs) < 0.02
