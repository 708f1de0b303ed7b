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
from stepwire_proto.v1.value_pb2 import Attempt
from tests.sdk_python.worker.scripted import ScriptedExecutor, Stream, attempt

CODE = """
import asyncio, re, time, stepwire
app = stepwire.App("app", version="{version}")

@app.function("blocks", trigger="go")
async def blocks(ctx: stepwire.Context, step: stepwire.Step) -> None:
    time.sleep(600)

@app.function("lone")
async def lone(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("blocks", blocks_the_loop)

@app.task("blocks the loop")
async def blocks_the_loop() -> None:
    time.sleep(600)

@app.task("keeps the interpreter")
async def keeps_the_interpreter() -> None:
    re.match("(a|aa)+$", "a" * 90 + "b")

@app.task("ignores its end")
async def ignores_its_end() -> None:
    while True:
        try:
            await asyncio.to_thread(time.sleep, 600)
        except asyncio.CancelledError:
            continue

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


async def begun(executor: ScriptedExecutor, task: str) -> Stream:
    """Give the worker's stream, when an attempt at a task is in its hand."""
    stream = await executor.stream(30)
    await stream.hello()
    steps = worker_pb2.RunSteps()
    steps.attempts.add(number=1, attempt=attempt("s", 1)).task.name = task
    stream.send(run_steps=steps)
    if task == "keeps the interpreter":
        await asyncio.sleep(2)  # nothing comes any more
        return stream
    while (await stream.next("heartbeat", 30)).attempts_in_hand == 0:
        pass
    return stream


@pytest.mark.parametrize(("drain_seconds", "signals"), [("0.2", 1), ("600", 2)])
async def test_a_step_that_never_ends_is_given_back_at_the_deadline_or_the_second_signal(
    tmp_path: Path, executor: ScriptedExecutor, drain_seconds: str, signals: int
) -> None:
    (tmp_path / "flows.py").write_text(CODE.format(version="1"))
    with process(tmp_path, executor, "--drain-seconds", drain_seconds) as worker:
        stream = await begun(executor, "never ends")
        worker.send_signal(signal.SIGTERM)
        assert list((await stream.next("draining")).returned_attempts) == []
        if signals == 2:
            worker.send_signal(signal.SIGINT)
        assert list((await stream.next("draining")).returned_attempts) == [attempt("s", 1)]
        assert await ended(worker) == 0


async def drains(worker: subprocess.Popen[bytes], stream: Stream, *signals: int) -> list[Attempt]:
    """Send signals, each when the worker has reacted to the one before; gives what is given back."""
    worker.send_signal(signals[0])
    assert list((await stream.next("draining")).returned_attempts) == []
    for number in signals[1:]:
        worker.send_signal(number)
    return list((await stream.next("draining", 30)).returned_attempts)


@pytest.mark.parametrize("task", ["blocks the loop", "ignores its end"])
@pytest.mark.parametrize(("drain_seconds", "signals"), [("0.2", [signal.SIGTERM]), ("600", [signal.SIGINT] * 2)])
async def test_a_step_that_blocks_the_loop_or_ignores_its_end_does_not_keep_the_process(
    tmp_path: Path, executor: ScriptedExecutor, task: str, drain_seconds: str, signals: list[int]
) -> None:
    (tmp_path / "flows.py").write_text(CODE.format(version="1"))
    with process(tmp_path, executor, "--drain-seconds", drain_seconds) as worker:
        stream = await begun(executor, task)
        assert await drains(worker, stream, *signals) == [attempt("s", 1)]
        assert await ended(worker) == 0


async def test_the_plan_of_a_lone_step_that_blocks_the_loop_is_told_before_the_drain(
    tmp_path: Path, executor: ScriptedExecutor
) -> None:
    (tmp_path / "flows.py").write_text(CODE.format(version="1"))
    with process(tmp_path, executor, "--drain-seconds", "0.2") as worker:
        stream = await executor.stream(30)
        await stream.hello()
        stream.invoke("lone", eager_fence=50)
        while (await stream.next("heartbeat", 30)).attempts_in_hand == 0:
            pass
        worker.send_signal(signal.SIGTERM)
        assert list((await stream.next("draining", 30)).returned_attempts) == []
        (found,) = [message.steps_found for _, message in stream.kept if message.HasField("steps_found")]
        assert found.steps[0].eager_fence == 50
        last = await stream.next("draining", 30)
        assert (list(last.returned_attempts), last.done) == ([attempt("blocks", 50)], True)
        assert await ended(worker) == 0


async def test_a_second_signal_ends_a_step_that_keeps_the_interpreter_to_itself(
    tmp_path: Path, executor: ScriptedExecutor
) -> None:
    (tmp_path / "flows.py").write_text(CODE.format(version="1"))
    with process(tmp_path, executor, "--drain-seconds", "600") as worker:
        await begun(executor, "keeps the interpreter")
        worker.send_signal(signal.SIGTERM)
        await asyncio.sleep(2)
        worker.send_signal(signal.SIGTERM)
        assert await ended(worker) == 0


async def test_a_body_that_blocks_the_loop_does_not_keep_the_process(
    tmp_path: Path, executor: ScriptedExecutor
) -> None:
    (tmp_path / "flows.py").write_text(CODE.format(version="1"))
    with process(tmp_path, executor, "--drain-seconds", "0.2") as worker:
        stream = await executor.stream(30)
        await stream.hello()
        stream.invoke("blocks")
        while not (await stream.next("heartbeat")).HasField("loop_lag"):
            pass
        assert await drains(worker, stream, signal.SIGTERM) == []
        assert await ended(worker) == 0
        assert await asyncio.to_thread(stream.ended.wait, 10)
        assert stream.clean


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
