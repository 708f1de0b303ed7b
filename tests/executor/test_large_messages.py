"""Large messages are read in pieces, between which others have turns; of several calls one goes on in each turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwire_core import inputs as i
from stepwire_core.model import Limits, StepKey, StepKind
from stepwire_executor import incoming, wire
from stepwire_executor.access import EVERYBODY, Caller
from stepwire_executor.incoming import BYTES_AN_EVENT, EVENT_BYTES_A_PIECE, is_large, many_steps_found, read_hello
from stepwire_executor.services import events as events_service
from stepwire_executor.services.events import EventService
from stepwire_executor.store.memory import MemoryStore
from stepwire_executor.stream import Stream
from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2
from tests.executor.test_engine import running

DATA = b"[" + b"[]," * 3_000 + b"0]"
KEY = value_pb2.StepKey(id="send")


def sending(count: int, last: bytes = DATA) -> opcode_pb2.StepPlanned:
    step = opcode_pb2.StepPlanned(key=KEY)
    for number in range(count):
        data = value_pb2.Payload(data=DATA if number + 1 < count else last, encoding="json")
        step.send_events.events.add(name="n", data=data)
    return step


def report(*steps: opcode_pb2.StepPlanned) -> opcode_pb2.StepsFound:
    return opcode_pb2.StepsFound(run_id="run", invocation=7, sequence=3, steps=steps, quiescent=True)


def test_the_events_of_one_step_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    checked, pieces = 0, [0]
    check = wire.check_json

    def noting(data: bytes) -> Any:
        pieces[-1] += len(data)
        return check(data)

    monkeypatch.setattr(wire, "check_json", noting)
    message = report(opcode_pb2.StepPlanned(key=value_pb2.StepKey(id="c"), closure={}), sending(100))
    assert is_large(message, message.ByteSize())
    found = []
    for each in many_steps_found("session", message, Limits(), 0.0):
        checked += each is None
        found += [each] if each is not None else []
        pieces.append(0)
    assert checked >= 100 * len(DATA) // (EVENT_BYTES_A_PIECE + BYTES_AN_EVENT) - 1
    assert max(pieces) <= EVENT_BYTES_A_PIECE + len(DATA)
    assert [(each.sequence, each.quiescent) for each in found] == [(3, True)]
    monkeypatch.undo()
    assert found[0] == incoming.steps_found("session", message, Limits(), 0.0), "it is as if read in one piece"


def test_a_large_step_with_a_bad_event_fails_alone() -> None:
    message = report(sending(20, b"[1,"), opcode_pb2.StepPlanned(key=value_pb2.StepKey(id="c"), closure={}))
    (found,) = [each for each in many_steps_found("session", message, Limits(), 0.0) if each is not None]
    assert [(step.key, step.kind) for step in found.steps] == [
        (StepKey("send", 0), StepKind.SEND_EVENTS),
        (StepKey("c", 0), StepKind.CLOSURE),
    ]
    bad, good = found.steps
    assert good.fault is None
    assert bad.fault is not None
    assert "send_events.events[19].data: invalid JSON" in bad.fault.message


def test_a_message_without_events_is_read_at_once_up_to_four_times_the_size() -> None:
    closures = [opcode_pb2.StepPlanned(key=value_pb2.StepKey(id="c" * 200, index=n), closure={}) for n in range(500)]
    message = report(*closures)
    assert EVENT_BYTES_A_PIECE < message.ByteSize() < 4 * EVENT_BYTES_A_PIECE
    assert not is_large(message, message.ByteSize())
    assert is_large(report(*closures, sending(1)), message.ByteSize())


async def test_of_what_may_have_begun_before_a_hello_only_closures_are_read() -> None:
    closure = report(opcode_pb2.StepPlanned(key=KEY, closure={}, eager_fence=9))
    hello = worker_pb2.Hello(instance_id="i", app="shop", slots=1, max_invocations=1)
    hello.eager_plans.extend([report(sending(500)), closure])
    read = read_hello(hello, Limits(), Stream(0.0), "1.s", 0.0)
    assert [[step.kind for step in plan.steps] for plan in read.eager_plans] == [[StepKind.CLOSURE]]


@pytest.mark.parametrize("callers", [1, 4])
async def test_of_many_calls_one_piece_is_read_in_a_turn_of_the_loop(
    callers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, over = [0], False
    read = events_service.wire.event

    def noting(message: event_pb2.Event, *rest: Any) -> Any:
        turns[-1] += len(message.data.data)
        return read(message, *rest)

    async def count() -> None:
        while not over:
            turns.append(0)
            await asyncio.sleep(0)

    monkeypatch.setattr(events_service.wire, "event", noting)
    request = event_pb2.SendEventsRequest(events=sending(100).send_events.events)
    async with running(MemoryStore()) as (engine, _):
        service = EventService(engine, Limits())
        counting = asyncio.create_task(count())
        calls = [service._read(request, Caller(f"token-{n % callers}", None, EVERYBODY.roles)) for n in range(8)]
        found = await asyncio.gather(*calls)
        over = True
        await counting
    assert [len(events) for events in found] == [100] * 8
    first, *later = sorted(turns, reverse=True)
    assert first <= 8 * (EVENT_BYTES_A_PIECE + len(DATA)), "each has begun at once"
    assert max(later) <= EVENT_BYTES_A_PIECE + len(DATA)


def test_none_of_a_large_report_is_taken_twice() -> None:
    message = report(sending(200), sending(1))
    found = [each for each in many_steps_found("session", message, Limits(), 0.0) if isinstance(each, i.StepsFound)]
    assert [len(step.events) for each in found for step in each.steps] == [200, 1]
