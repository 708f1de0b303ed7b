"""Data to Protobuf and back."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from stepwire import wire
from stepwire.errors import Failure
from stepwire.payload import Payload
from stepwire.replay.model import (
    Closure,
    Entry,
    Event,
    Expected,
    Invoke,
    OutgoingEvent,
    Planned,
    Retry,
    SendEvents,
    Sleep,
    StepKey,
    StepKind,
    Task,
    TimedOut,
    WaitForEvent,
)
from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2

KEY = StepKey("charge\0☃", 3)
JSON = Payload(b'{"a":1}', "json")
SEALED = Payload(b"\xff", "sealed", {"key": "1"})


@given(st.floats(min_value=-62_135_596_800, max_value=253_402_300_799))
def test_a_time_comes_back_to_the_nanosecond(seconds: float) -> None:
    message = wire.to_timestamp(seconds)
    assert 0 <= message.nanos < 1_000_000_000
    assert abs(wire.unix_time(message) - seconds) <= 0.51e-9 + math.ulp(seconds)


@given(st.floats(min_value=1e9, max_value=1e11))
def test_a_time_of_our_days_comes_back_exactly(seconds: float) -> None:
    assert wire.unix_time(wire.to_timestamp(seconds)) == seconds


@given(st.floats(min_value=0, max_value=3.2e7))
def test_a_duration_comes_back_to_the_nanosecond(seconds: float) -> None:
    assert abs(wire.seconds(wire.to_duration(seconds)) - seconds) <= 0.51e-9 + math.ulp(seconds)


def test_nanoseconds_are_rounded_up_into_the_next_second() -> None:
    assert wire.to_duration(1.9999999999) == Duration(seconds=2)
    assert wire.to_timestamp(-0.25) == Timestamp(seconds=-1, nanos=750_000_000)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e18])
def test_what_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="outside of the years"):
        wire.to_timestamp(seconds)
    with pytest.raises(ValueError, match="is not between"):
        wire.to_duration(seconds)


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="is not between"):
        wire.to_duration(-0.1)


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))])))
def test_a_datetime_comes_back_exactly(time: datetime) -> None:
    utc = time - (time.utcoffset() or timedelta(0))
    if datetime(1, 1, 2) <= utc.replace(tzinfo=None) <= datetime(9999, 12, 30):
        assert wire.moment(wire.to_moment(time)) == time


@pytest.mark.parametrize(
    "payload", [JSON, SEALED, Payload(b"", "binary"), Payload(b"", ""), Payload(b"null", "json"), Payload(b"", "json")]
)
def test_a_payload_comes_back(payload: Payload) -> None:
    message = value_pb2.Payload.FromString(wire.to_payload(payload).SerializeToString())
    assert wire.payload(message) == payload


def test_a_payload_without_an_encoding_is_json() -> None:
    assert wire.payload(value_pb2.Payload(data=b"1")) == Payload(b"1", "json")


def test_a_failure_comes_back() -> None:
    failure = Failure("A", "a", "stack", False, 1.5, Failure("B", "b", cause=Failure("C", "")), SEALED)
    assert wire.failure(wire.to_failure(failure)) == failure
    assert wire.failure(wire.to_failure(Failure("A", "", retry_after=0.0))) == Failure("A", "", retry_after=0.0)


def chain(levels: int) -> Failure:
    failure = Failure(str(levels), "")
    for level in range(levels - 1, -1, -1):
        failure = Failure(str(level), "", cause=failure)
    return failure


def depth(failure: Failure | None) -> int:
    levels = -1
    while failure is not None:
        levels, failure = levels + 1, failure.cause
    return levels


def test_causes_are_cut_at_16_in_both_directions() -> None:
    assert depth(wire.failure(wire.to_failure(chain(40)))) == 16
    message = value_pb2.Failure()
    inner = message
    for _ in range(40):
        inner = inner.cause
        inner.type = "X"
    assert depth(wire.failure(message)) == 16


def test_a_retry_policy_comes_back_and_has_the_contract_s_defaults() -> None:
    message = value_pb2.RetryPolicy()
    wire.put_retry(message, Retry(3, 0.0, 12.5, 1.5))
    assert wire.retry(message) == Retry(3, 0.0, 12.5, 1.5)
    assert wire.retry(value_pb2.RetryPolicy(retries=7)) == Retry(7)


def read_target(message: opcode_pb2.StepPlanned) -> Any:
    """Read a target, as the executor would."""
    match message.WhichOneof("target"):
        case "closure":
            return "closure"
        case "task":
            return Task(message.task.name, wire.payload(message.task.input))
        case "sleep":
            sleep = message.sleep
            if sleep.WhichOneof("end") == "until":
                return Sleep(until=wire.unix_time(sleep.until))
            return Sleep(delay=wire.seconds(sleep.delay))
        case "invoke":
            return Invoke(message.invoke.app, message.invoke.function_id, wire.payload(message.invoke.input))
        case "send_events":
            return SendEvents(
                [
                    OutgoingEvent(
                        each.name,
                        wire.payload(each.data),
                        each.id,
                        wire.unix_time(each.time) if each.HasField("time") else None,
                    )
                    for each in message.send_events.events
                ]
            )
        case "wait_for_event":
            wait = message.wait_for_event
            fields = {each.path: each.json_value for each in wait.fields}
            return WaitForEvent(
                wait.event_name, fields, wire.seconds(wait.timeout) if wait.HasField("timeout") else None
            )
    raise AssertionError("no target")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (StepKind.TASK, Task("resize", JSON)),
        (StepKind.SLEEP, Sleep(delay=0.0)),
        (StepKind.SLEEP, Sleep(delay=1.25)),
        (StepKind.SLEEP, Sleep(until=0.0)),
        (StepKind.SLEEP, Sleep(until=1_900_000_000.5)),
        (StepKind.INVOKE, Invoke("", "f", SEALED)),
        (StepKind.INVOKE, Invoke("app", "f", JSON)),
        (StepKind.SEND_EVENTS, SendEvents([OutgoingEvent("a", JSON), OutgoingEvent("b", SEALED, "id", 0.5)])),
        (StepKind.WAIT_FOR_EVENT, WaitForEvent("a", {"user.id": "1", "x": '"y"'}, None)),
        (StepKind.WAIT_FOR_EVENT, WaitForEvent("a", {}, 0.0)),
    ],
)
def test_a_target_arrives_as_it_is(kind: StepKind, target: Any) -> None:
    message = opcode_pb2.StepPlanned.FromString(wire.to_planned(Planned(KEY, kind, target)).SerializeToString())
    assert read_target(message) == target
    assert wire.key(message.key) == KEY


def test_a_planned_closure_arrives_with_its_options() -> None:
    planned = Planned(KEY, StepKind.CLOSURE, Closure(lambda: 1), Retry(0), 1.5, 60.0, "flow.py:42")
    message = wire.to_planned(planned, eager_fence=9)
    assert read_target(opcode_pb2.StepPlanned.FromString(message.SerializeToString())) == "closure"
    assert wire.retry(message.retry) == Retry(0)
    assert (wire.seconds(message.attempt_timeout), wire.seconds(message.step_timeout)) == (1.5, 60.0)
    assert (message.source, message.eager_fence) == ("flow.py:42", 9)
    bare = wire.to_planned(Planned(KEY, StepKind.CLOSURE, Closure(lambda: 1)))
    assert not any(bare.HasField(name) for name in ("retry", "attempt_timeout", "step_timeout"))


def test_a_source_that_is_too_long_keeps_its_end() -> None:
    message = wire.to_planned(Planned(KEY, StepKind.CLOSURE, Closure(lambda: 1), source="☃" * 200 + "flow.py:42"))
    assert len(message.source.encode()) <= 256
    assert message.source.endswith("☃flow.py:42")


@pytest.mark.parametrize(
    ("outcome", "read"),
    [
        ({"output": wire.to_payload(JSON)}, JSON),
        ({"output": value_pb2.Payload()}, Payload(b"", "")),
        ({"failure": wire.to_failure(Failure("A", "b"))}, Failure("A", "b")),
        ({"timed_out": opcode_pb2.TimedOut()}, TimedOut()),
    ],
)
def test_a_journal_entry_is_read(outcome: dict[str, Any], read: Any) -> None:
    message = opcode_pb2.JournalEntry(
        sequence=7,
        key=wire.to_key(KEY),
        kind=opcode_pb2.STEP_KIND_TASK,
        source="flow.py:1",
        recorded_at=wire.to_timestamp(1_900_000_000.125),
        attempts=2,
        **outcome,
    )
    assert wire.entry(message) == Entry(7, KEY, StepKind.TASK, read, 1_900_000_000.125, 2, "flow.py:1")


def test_what_a_newer_executor_may_say_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="journal entry 3 has no outcome"):
        wire.entry(opcode_pb2.JournalEntry(sequence=3, kind=opcode_pb2.STEP_KIND_TASK))
    with pytest.raises(ValueError, match=r"step kind 99 is not known .* update the stepwire package"):
        wire.kind(99)


def test_an_expected_step_and_an_event_are_read() -> None:
    step = worker_pb2.PlannedStep(key=wire.to_key(KEY), kind=opcode_pb2.STEP_KIND_SLEEP, source="a:1")
    assert wire.expected(step) == Expected(KEY, StepKind.SLEEP, "a:1")
    event = event_pb2.Event(id="e", name="n", data=wire.to_payload(JSON), time=wire.to_timestamp(1.5))
    assert wire.event(event) == Event("e", "n", JSON, 1.5)


def test_a_function_s_options_and_an_attempt_are_written() -> None:
    options = worker_pb2.FunctionOptions()
    wire.put_function(options, "f", ["a", "b"], Retry(1), 2.5)
    assert [each.event_name for each in options.triggers] == ["a", "b"]
    assert (options.id, wire.retry(options.retry), wire.seconds(options.run_timeout)) == ("f", Retry(1), 2.5)
    attempt = value_pb2.Attempt()
    wire.put_attempt(attempt, "run", KEY, 12)
    assert (attempt.run_id, wire.key(attempt.key), attempt.fence) == ("run", KEY, 12)
