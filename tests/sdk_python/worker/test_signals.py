"""A worker process: how it takes signals, and how it starts anew when its code changes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stepwire_proto.v1 import worker_pb2
from tests.sdk_python.worker.scripted import ScriptedExecutor, attempt

CODE = """
import time, stepwire
app = stepwire.App("app", version="{version}")

@app.task("never ends")
def never_ends() -> None:
    while True:
        time.sleep(1)
"""


@pytest.fixture
def executor() -> Iterator[ScriptedExecutor]:
    with ScriptedExecutor() as executor:
        yield executor


@contextmanager
def process(folder: Path, executor: ScriptedExecutor, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker process in a folder; it is killed in the end if it still runs."""
    command = [sys.executable, "-m", "stepwire.worker", "flows:app", "--executor", executor.address, *flags]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as worker:
        try:
            yield worker
        finally:
            if worker.poll() is None:
                worker.kill()


async def ended(worker: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(worker.wait, 20)


@pytest.mark.parametrize(("drain_seconds", "signals"), [("0.2", 1), ("600", 2)])
async def test_a_step_that_never_ends_is_given_back_at_the_deadline_or_the_second_signal(
    tmp_path: Path, executor: ScriptedExecutor, drain_seconds: str, signals: int
) -> None:
    (tmp_path / "flows.py").write_text(CODE.format(version="1"))
    with process(tmp_path, executor, "--drain-seconds", drain_seconds) as worker:
        stream = await executor.stream(30)
        await stream.hello()
        steps = worker_pb2.RunSteps()
        steps.attempts.add(number=1, attempt=attempt("s", 1)).task.name = "never ends"
        stream.send(run_steps=steps)
        while (await stream.next("heartbeat")).attempts_in_hand == 0:
            pass
        worker.send_signal(signal.SIGTERM)
        assert list((await stream.next("draining")).returned_attempts) == []
        if signals == 2:
            worker.send_signal(signal.SIGINT)
        assert list((await stream.next("draining")).returned_attempts) == [attempt("s", 1)]
        assert await ended(worker) == 0


async def test_changed_code_is_served_after_a_drain(tmp_path: Path, executor: ScriptedExecutor) -> None:
    (tmp_path / "flows.py").write_text(CODE.format(version="1"))
    with process(tmp_path, executor, "--reload") as worker:
        first = await executor.stream(30)
        assert (await first.hello()).app_version == "1"
        await asyncio.sleep(1)  # the watch begins beside the worker, and says nothing when it has
        (tmp_path / "flows.py").write_text(CODE.format(version="2"))
        await first.next("draining", 30)
        second = await executor.stream(30)
        assert (await second.hello()).app_version == "2"
        await second.next("heartbeat")
        worker.send_signal(signal.SIGTERM)
        await second.next("draining", 30)
        assert await ended(worker) == 0
