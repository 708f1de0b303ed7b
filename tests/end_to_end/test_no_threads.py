"""A worker that can start no thread fails what needs one, which is tried again, and goes on with the rest."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepwire
from stepwire.testing import ExecutorProcess, WorkerProcess

CODE = """
import os, resource, threading, time
from pathlib import Path
import stepwire

app = stepwire.App("threads")
POLICY = stepwire.Retry(retries=60, initial_interval=0.3, maximum_interval=0.5)

async def starve() -> str:
    threading.stack_size(1 << 30)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), -1))
    return "starved"

async def feed() -> str:
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    threading.stack_size(0)
    return "fed"

async def quick() -> int:
    return 1

def work(n: int) -> int:
    time.sleep(0.05)
    return n

@app.task("work")
def task(n: int) -> int:
    time.sleep(0.05)
    return n

@app.function("starve", trigger="starve")
async def starves(ctx: stepwire.Context, step: stepwire.Step) -> str:
    return await step.run("starve", starve)

@app.function("feed", trigger="feed")
async def feeds(ctx: stepwire.Context, step: stepwire.Step) -> str:
    return await step.run("feed", feed)

@app.function("quick", trigger="quick")
async def quicks(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return await step.run("quick", quick)

@app.function("fan", trigger="fan", retries=POLICY)
async def fan(ctx: stepwire.Context, step: stepwire.Step) -> list:
    both = [step.map("work", work, range(6)), step.map("quick", quick_of, range(6))]
    return await step.parallel(*both, step.call("work", 7, id="task"))

async def quick_of(n: int) -> int:
    return n

@app.function("sync", trigger="sync", retries=POLICY)
def sync(ctx: stepwire.Context, step: stepwire.SyncStep) -> list:
    return step.parallel(lambda: step.run("a", work, 1), lambda: step.run("b", work, 2))
"""


@pytest.fixture
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as executor:
        yield executor


def test_steps_tasks_and_bodies_that_get_no_thread_are_tried_again_and_the_rest_goes_on(
    executor: ExecutorProcess, tmp_path: Path
) -> None:
    (tmp_path / "threads.py").write_text(CODE)
    with (
        stepwire.SyncClient(executor.address) as client,
        WorkerProcess("threads:app", executor, path=tmp_path, options={"drain_seconds": 5}) as worker,
    ):

        def begun(name: str) -> str:
            return client.send(name).run_ids[0]

        assert client.result(begun("starve"), 30) == "starved"
        runs = {name: begun(name) for name in ("fan", "sync")}

        def refused() -> bool:
            fan = client.steps(runs["fan"], outputs=True)
            failed = [step for step in fan if any("no thread" in str(each.failure) for each in step.failed_attempts)]
            body = client.get(runs["sync"])
            return len(failed) == 7 and body.attempt > 1

        worker.wait_until(refused, "what needs a thread to be refused", 60)
        assert client.result(begun("quick"), 30) == 1, "what needs no thread goes on"
        quick = [step for step in client.steps(runs["fan"]) if step.key.id == "quick"]
        assert [step.state for step in quick] == [stepwire.StepState.SUCCEEDED] * 6
        assert client.result(begun("feed"), 30) == "fed"
        assert client.result(runs["fan"], 60) == [[*range(6)], [*range(6)], 7]
        assert client.result(runs["sync"], 60) == [1, 2]
        worker.signal(signal.SIGTERM)
        assert worker.wait(30) == 0
