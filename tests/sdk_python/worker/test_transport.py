"""How a worker's stream begins, is lost and comes back."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

import stepwire
from stepwire.errors import ExecutorError
from stepwire_proto.v1 import worker_pb2
from tests.sdk_python.worker.scripted import ScriptedExecutor, attempt, serving

app = stepwire.App("app")
go_on = threading.Event()
begun: list[str] = []


@app.task("waits")
def waits(name: str) -> str:
    begun.append(name)
    go_on.wait(20)
    return name


@app.task("blocks")
async def blocks(name: str) -> None:
    begun.append(name)
    go_on.wait(20)


@pytest.fixture
def executor() -> Iterator[ScriptedExecutor]:
    go_on.clear()
    begun.clear()
    with ScriptedExecutor() as executor:
        yield executor
    go_on.set()


def tasks(name: str, *inputs: str, first_fence: int = 1) -> worker_pb2.RunSteps:
    """Start a task with each input; its key is the input."""
    steps = worker_pb2.RunSteps()
    for number, value in enumerate(inputs):
        start = steps.attempts.add(number=1, attempt=attempt(value, first_fence + number))
        start.task.name = name
        start.task.input.data = f'"{value}"'.encode()
    return steps


async def until_begun(count: int) -> None:
    async with asyncio.timeout(10):
        while len(begun) < count:  # noqa: ASYNC110 - threads announce themselves to nobody
            await asyncio.sleep(0.01)


async def test_a_silent_executor_is_left_after_two_intervals_and_its_session_resumed(
    executor: ScriptedExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        stream.mute = True
        await stream.hello(heartbeat_interval=Duration(nanos=500_000_000))
        begun = time.monotonic()
        again = await executor.stream()
        assert time.monotonic() - begun > 0.9
        assert (await again.hello()).resume_session == "s-1"
    assert "nothing has come for 1." in caplog.text


async def test_an_executor_that_only_answers_heartbeats_is_alive(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello(heartbeat_interval=Duration(nanos=300_000_000))
        for _ in range(12):
            await stream.next("heartbeat")
        stream.send(run_steps=tasks("unknown", "x"))
        await stream.next("step_failed")


async def test_a_stream_says_hello_once(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello(heartbeat_interval=Duration(nanos=50_000_000))
        for _ in range(5):
            await stream.next("heartbeat")
        assert [message for _, message in stream.kept if message.HasField("hello")] == []


async def test_running_attempts_are_named_in_the_next_hello_and_reported_on_the_next_stream(
    executor: ScriptedExecutor,
) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.send(run_steps=tasks("waits", "a", "b"))
        await until_begun(2)
        stream.reset()
        again = await executor.stream()
        assert list((await again.hello()).attempts_in_hand) == [attempt("a", 1), attempt("b", 2)]
        go_on.set()
        runs = [await again.next("step_run"), await again.next("step_run")]
        assert {run.attempt.fence for run in runs} == {1, 2}


async def test_attempts_that_a_blocked_loop_has_not_seen_are_not_in_hand_and_never_begin(
    executor: ScriptedExecutor,
) -> None:
    worker = stepwire.Worker(app, executor.address, drain_seconds=0.2)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(worker.run(),))
    thread.start()
    stream = await executor.stream()
    await stream.hello()
    stream.send(run_steps=tasks("blocks", "first"))
    await until_begun(1)
    stream.send(run_steps=tasks("blocks", "second", first_fence=2))
    await asyncio.sleep(0.2)
    stream.reset()
    again = await executor.stream()
    assert list((await again.hello()).attempts_in_hand) == [attempt("first", 1)]
    go_on.set()
    await again.next("step_run")
    again.send(run_steps=tasks("blocks", "third", first_fence=3))
    await again.next("step_run")
    assert begun == ["first", "third"]
    loop.call_soon_threadsafe(worker.drain)
    again.record(attempt("first", 1), attempt("third", 3))
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    loop.close()


async def test_a_drain_while_the_stream_is_lost_still_brings_the_results(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, drain_seconds=20) as (worker, task):
        stream = await executor.stream()
        await stream.hello()
        stream.send(run_steps=tasks("waits", "a"))
        await until_begun(1)
        stream.reset()
        again = await executor.stream()
        worker.drain()
        await again.hello()
        await again.next("draining")
        go_on.set()
        run = await again.next("step_run")
        assert not task.done()
        again.record(run.attempt)
        await asyncio.wait_for(asyncio.shield(task), 5)


async def test_a_drain_ends_although_the_executor_does_not_end_the_stream(
    executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwire.worker.transport.GOODBYE_SECONDS", 0.3)
    async with serving(app, executor) as (worker, task):
        stream = await executor.stream()
        await stream.hello(heartbeat_interval=Duration(nanos=200_000_000))
        stream.holds_on = stream.mute = True
        await stream.next("heartbeat")
        worker.drain()
        await asyncio.wait_for(asyncio.shield(task), 5)


async def test_after_a_go_away_the_worker_waits_as_long_as_it_was_told_to(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.send(go_away=worker_pb2.GoAway(reason="restart", reconnect_delay=Duration(nanos=500_000_000)))
        stream.reset()
        left = time.monotonic()
        await executor.stream()
        assert time.monotonic() - left > 0.45


async def test_delays_grow_while_nobody_answers_and_the_worker_can_be_stopped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stepwire.worker")
    worker = stepwire.Worker(app, "127.0.0.1:1")
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(10):
        while caplog.text.count("reconnecting") < 4:  # noqa: ASYNC110 - the log announces itself to nobody
            await asyncio.sleep(0.02)
    worker.drain()
    await asyncio.wait_for(task, 5)
    assert "the stream to 127.0.0.1:1 is lost: UNAVAILABLE" in caplog.text


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED"])
async def test_a_refusal_is_an_error_with_its_code(executor: ScriptedExecutor, code: str) -> None:
    async with serving(app, executor) as (_, task):
        stream = await executor.stream()
        await stream.next("hello")
        stream.end(grpc.StatusCode[code], "not you")
        with pytest.raises(ExecutorError, match="refuses this worker: not you") as caught:
            await asyncio.wait_for(asyncio.shield(task), 5)
        assert caught.value.code == code


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED", "UNKNOWN"])
async def test_other_ends_are_followed_by_another_stream(executor: ScriptedExecutor, code: str) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.end(grpc.StatusCode[code], "for now")
        await (await executor.stream()).hello()


async def test_garbage_from_the_executor_costs_the_stream_and_not_the_worker(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.send(fragment=worker_pb2.Fragment(id=1, data=b"\xff\xff", last=True))
        await (await executor.stream()).hello()


async def test_a_stream_that_is_cut_right_after_each_welcome_backs_off_and_says_what_it_looks_like(
    executor: ScriptedExecutor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceilings: list[float] = []

    def draw(least: float, most: float) -> float:
        ceilings.append(most)
        return 0.01

    monkeypatch.setattr("stepwire.worker.link.random.uniform", draw)
    async with serving(app, executor):
        for _ in range(6):
            stream = await executor.stream()
            await stream.hello()
            stream.reset()
        await (await executor.stream()).hello()
    assert ceilings[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    told = [record.getMessage() for record in caplog.records if "right after their Welcome" in record.getMessage()]
    assert [text.split()[0] for text in told] == ["3", "6"]
    assert "a proxy that limits the bodies" in told[0]


async def test_a_stream_that_has_lived_begins_the_backoff_anew(
    executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceilings: list[float] = []
    monkeypatch.setattr("stepwire.worker.link.random.uniform", lambda least, most: ceilings.append(most) or 0.01)
    monkeypatch.setattr("stepwire.worker.link.GOOD_SECONDS", 0.0)
    async with serving(app, executor):
        for _ in range(3):
            stream = await executor.stream()
            await stream.hello()
            stream.reset()
        await executor.stream()
    assert ceilings == [0.1, 0.1, 0.1]


async def test_no_delay_is_longer_than_a_sixth_of_the_grace(
    executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceilings: list[float] = []
    monkeypatch.setattr("stepwire.worker.link.random.uniform", lambda least, most: ceilings.append(most) or 0.01)
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello(session_grace=Duration(seconds=3))
        stream.reset()
        for _ in range(5):
            stream = await executor.stream()
            await stream.next("hello")
            stream.end(grpc.StatusCode.UNAVAILABLE, "not yet")
        await executor.stream()
    assert ceilings == [0.1, 0.2, 0.4, 0.5, 0.5, 0.5]
