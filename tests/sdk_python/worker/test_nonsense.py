"""Values of an executor that make no sense: none of them ends a worker, or keeps it from what else it has to do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

import stepwire
from stepwire import wire
from stepwire.channel import LONGEST_WISH_SECONDS, executor_error
from stepwire.worker.link import LONGEST_AWAY_SECONDS, LONGEST_DELAY_SECONDS, Handlers, Link
from stepwire.worker.outbox import Outbox
from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2
from tests.sdk_python.worker.scripted import ScriptedExecutor, entry, serving

INT64, INT32 = 2**63 - 1, 2**31 - 1
DURATIONS = [
    Duration(seconds=INT64, nanos=INT32),
    Duration(seconds=-INT64, nanos=-INT32),
    Duration(seconds=10**12),
    Duration(seconds=-1),
    Duration(nanos=INT32),
    Duration(nanos=-INT32),
    Duration(nanos=1),
    Duration(),
]
TIMES = [
    Timestamp(seconds=INT64, nanos=INT32),
    Timestamp(seconds=-INT64, nanos=-INT32),
    Timestamp(seconds=253_402_300_799, nanos=999_999_999),
    Timestamp(seconds=253_402_300_800),
    Timestamp(seconds=-62_135_596_800),
    Timestamp(seconds=-62_135_596_801),
    Timestamp(nanos=-INT32),
]
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)

app = stepwire.App("app")


@app.function("times")
async def times(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
    begun = ctx.now()
    await step.run("a", lambda: 1)
    await asyncio.sleep(0)
    return [str(begun), str(ctx.now()), str(ctx.event.time)]


@app.function("fails")
async def fails(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("a", lambda: 1)


@pytest.fixture
def executor() -> Iterator[ScriptedExecutor]:
    with ScriptedExecutor() as executor:
        yield executor


def shown(message: Duration | Timestamp) -> str:
    return f"{message.seconds} s {message.nanos} ns"


def said(**message: Any) -> bytes:
    return worker_pb2.ExecutorFrame(messages=[worker_pb2.ExecutorMessage(**message)]).SerializeToString()


def link(intervals: list[float]) -> Link:
    def nothing(*_: object) -> None:
        pass

    handlers = Handlers(worker_pb2.Hello, lambda: (0, 0), nothing, nothing, nothing, nothing, nothing)
    return Link(Outbox(), handlers, nothing, intervals.append)


@pytest.mark.parametrize("delay", DURATIONS, ids=shown)
def test_the_delay_of_a_go_away_is_bounded(delay: Duration) -> None:
    its_link = link([])
    stream = its_link.begin("somewhere")
    its_link.receive(stream, said(welcome=worker_pb2.Welcome(session_id="s")))
    its_link.receive(stream, said(go_away=worker_pb2.GoAway(reconnect_delay=delay)))
    wanted = min(max(wire.seconds(delay), 0), LONGEST_AWAY_SECONDS)
    assert wanted <= its_link.delay() <= wanted + LONGEST_DELAY_SECONDS
    assert its_link.delay() <= LONGEST_DELAY_SECONDS  # it holds once


class Refusal(grpc.RpcError):
    """A call that ended since the executor is full."""

    def __init__(self, delay: Duration) -> None:
        status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="full")
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        self._status = status

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "full"

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        return [("grpc-status-details-bin", self._status.SerializeToString())]


@pytest.mark.parametrize("delay", DURATIONS, ids=shown)
def test_the_delay_before_another_call_is_bounded(delay: Duration) -> None:
    _, wanted = executor_error(Refusal(delay), "somewhere")
    assert wanted == min(max(wire.seconds(delay), 0.0), LONGEST_WISH_SECONDS)


@pytest.mark.parametrize("interval", DURATIONS, ids=shown)
def test_the_interval_of_heartbeats_is_bounded(interval: Duration) -> None:
    intervals: list[float] = []
    its_link = link(intervals)
    its_link.receive(its_link.begin("somewhere"), said(welcome=worker_pb2.Welcome(heartbeat_interval=interval)))
    assert intervals == [3.0 if wire.seconds(interval) <= 0 else min(max(wire.seconds(interval), 0.01), 60.0)]


@pytest.mark.parametrize("grace", DURATIONS, ids=shown)
def test_no_grace_takes_the_backoff_away(grace: Duration) -> None:
    its_link = link([])
    its_link.receive(its_link.begin("somewhere"), said(welcome=worker_pb2.Welcome(session_grace=grace)))
    delays = [its_link.delay() for _ in range(200)]
    assert all(0 <= delay <= LONGEST_DELAY_SECONDS for delay in delays)
    assert max(delays) > 0.01


async def test_a_worker_that_is_told_to_go_away_for_ever_lives_and_can_be_drained(executor: ScriptedExecutor) -> None:
    async with serving(app, executor) as (worker, task):
        stream = await executor.stream()
        await stream.hello()
        stream.send(go_away=worker_pb2.GoAway(reconnect_delay=DURATIONS[0]))
        stream.reset()
        await asyncio.sleep(0.5)
        assert not task.done()
        worker.drain()
        await asyncio.wait_for(asyncio.shield(task), 5)


async def test_a_negative_delay_is_none_and_a_stream_without_sense_carries_work(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello(heartbeat_interval=DURATIONS[1], session_grace=DURATIONS[1])
        await stream.next("heartbeat")
        stream.send(go_away=worker_pb2.GoAway(reconnect_delay=DURATIONS[1]))
        stream.reset()
        left = time.monotonic()
        again = await executor.stream()
        assert time.monotonic() - left < 6
        await again.hello(heartbeat_interval=DURATIONS[0], session_grace=DURATIONS[6])
        await again.next("heartbeat")
        again.invoke("times", planned=[])
        assert len((await again.next("steps_found")).steps) == 1


@pytest.mark.parametrize("time", TIMES, ids=shown)
async def test_a_body_sees_the_nearest_time_that_there_is(executor: ScriptedExecutor, time: Timestamp) -> None:
    event = event_pb2.Event(id="e", name="go", data=value_pb2.Payload(data=b"null", encoding="json"), time=time)
    recorded = entry("a", 1)
    recorded.recorded_at.CopyFrom(time)
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("times", events=[event], created_at=time, journal=[recorded], journal_length=1)
        output = (await stream.next("run_finished")).output.data.decode()
    seen = [datetime.fromisoformat(each) for each in json.loads(output)]
    assert all(FIRST <= each <= LAST for each in seen)
    assert seen[2] == wire.moment(time).replace(microsecond=seen[2].microsecond)


@pytest.mark.parametrize("delay", DURATIONS, ids=shown)
async def test_a_failure_with_any_delay_can_be_told_on(executor: ScriptedExecutor, delay: Duration) -> None:
    failed = opcode_pb2.JournalEntry(sequence=1, kind=opcode_pb2.STEP_KIND_CLOSURE, attempts=1)
    failed.key.id = "a"
    failed.failure.CopyFrom(value_pb2.Failure(type="E", message="m", retry_after=delay))
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("fails", journal=[failed], journal_length=1)
        assert (await stream.next("run_failed")).failure.type
