"""Between the contract's Protobuf and the SDK's data. Knows no stream and no state of a run.

`x(message)` reads, `to_x(data)` makes a message, `put_x(message, data)` writes into one that stands in another, which
costs less than half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from stepwire.errors import Failure
from stepwire.payload import JSON, Payload
from stepwire.replay.model import (
    Closure,
    Entry,
    Event,
    Expected,
    Invoke,
    OutgoingEvent,
    Planned,
    Retry,
    RunInfo,
    SendEvents,
    Sleep,
    StepKey,
    StepKind,
    Target,
    Task,
    TimedOut,
    WaitForEvent,
)
from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2

DEEPEST_CAUSE = 16
LONGEST_SOURCE_BYTES = 256
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_TIME = -62_135_596_800.0
"""The year 1, in Unix seconds."""
END_OF_TIME = 253_402_300_800.0
"""The year 10000, which no datetime can hold."""
LAST_TIME = math.nextafter(END_OF_TIME, 0.0)
LONGEST_SECONDS = 315_576_000_000.0
"""10,000 years: the longest google.protobuf.Duration."""
_NANOS = 1_000_000_000
_POLICY = Retry()
_KINDS = {int(kind): kind for kind in StepKind}

# Times. Floats lose nothing on the way to nanoseconds and back.


def _split(value: float) -> tuple[int, int]:
    """Give whole seconds, rounded down, and the nanoseconds above them."""
    whole = math.floor(value)
    nanos = round((value - whole) * _NANOS)
    return (whole + 1, 0) if nanos == _NANOS else (whole, nanos)


def put_timestamp(message: Timestamp, unix_seconds: float) -> None:
    """Write Unix time in seconds; raises ValueError outside of the years 1 to 9999."""
    if not FIRST_TIME <= unix_seconds < END_OF_TIME:
        raise ValueError(f"the time {unix_seconds!r} (Unix seconds) lies outside of the years 1 to 9999")
    message.seconds, message.nanos = _split(unix_seconds)
    message.SetInParent()


def put_duration(message: Duration, seconds: float) -> None:
    """Write a duration in seconds, 0 or more; raises ValueError for others and over 10,000 years."""
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"the duration {seconds!r} s is not between 0 and 10,000 years")
    message.seconds, message.nanos = _split(seconds)
    message.SetInParent()


def to_timestamp(unix_seconds: float) -> Timestamp:
    """Make a timestamp of Unix time in seconds; raises ValueError outside of the years 1 to 9999."""
    message = Timestamp()
    put_timestamp(message, unix_seconds)
    return message


def to_duration(seconds: float) -> Duration:
    """Make a duration of seconds, 0 or more; raises ValueError for others and over 10,000 years."""
    message = Duration()
    put_duration(message, seconds)
    return message


def unix_time(message: Timestamp) -> float:
    """Read a timestamp as Unix time in seconds; what lies outside of the years 1 to 9999 counts as their begin or end.

    Nothing that the executor sends may end a worker, and no datetime can hold other times.
    """
    return min(max(message.seconds + message.nanos / _NANOS, FIRST_TIME), LAST_TIME)


def seconds(message: Duration) -> float:
    """Read a duration in seconds."""
    return message.seconds + message.nanos / _NANOS


def bounded_seconds(message: Duration, least: float, most: float) -> float:
    """Read a duration in seconds; what is out of range counts as the nearest that is not."""
    return min(max(seconds(message), least), most)


def moment(message: Timestamp) -> datetime:
    """Read a timestamp as an aware datetime in UTC, cut to microseconds; see `unix_time` for what is no time."""
    if not FIRST_TIME <= message.seconds < END_OF_TIME or not 0 <= message.nanos < _NANOS:
        return datetime.fromtimestamp(unix_time(message), UTC)
    return EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def to_moment(time: datetime) -> Timestamp:
    """Make a timestamp of a datetime, exactly; one without a time zone counts as local time."""
    delta = time.astimezone(UTC) - EPOCH
    return Timestamp(seconds=delta.days * 86_400 + delta.seconds, nanos=delta.microseconds * 1000)


# Values.


def payload(message: value_pb2.Payload) -> Payload:
    """Read a payload; one without an encoding is JSON, unless it is empty: that is None."""
    data = message.data
    encoding = message.encoding or (JSON if data else "")
    metadata = message.metadata
    return Payload(data, encoding, dict(metadata)) if metadata else Payload(data, encoding)


def put_payload(message: value_pb2.Payload, data: Payload) -> None:
    """Write a payload; the empty one is present too."""
    message.data = data.data
    message.encoding = data.encoding
    if data.metadata:
        message.metadata.update(data.metadata)
    message.SetInParent()


def to_payload(data: Payload) -> value_pb2.Payload:
    """Make a payload."""
    message = value_pb2.Payload()
    put_payload(message, data)
    return message


def failure(message: value_pb2.Failure, depth: int = DEEPEST_CAUSE) -> Failure:
    """Read a failure; causes below `depth` are cut off."""
    return Failure(
        message.type,
        message.message,
        message.stack,
        message.retryable,
        bounded_seconds(message.retry_after, 0.0, LONGEST_SECONDS) if message.HasField("retry_after") else None,
        failure(message.cause, depth - 1) if depth > 0 and message.HasField("cause") else None,
        payload(message.details) if message.HasField("details") else None,
    )


def put_failure(message: value_pb2.Failure, data: Failure, depth: int = DEEPEST_CAUSE) -> None:
    """Write a failure; causes below `depth` are cut off."""
    message.type = data.type
    message.message = data.message
    message.stack = data.stack
    message.retryable = data.retryable
    if data.retry_after is not None:
        put_duration(message.retry_after, data.retry_after)
    if data.cause is not None and depth > 0:
        put_failure(message.cause, data.cause, depth - 1)
    if data.details is not None:
        put_payload(message.details, data.details)
    message.SetInParent()


def to_failure(data: Failure) -> value_pb2.Failure:
    """Make a failure."""
    message = value_pb2.Failure()
    put_failure(message, data)
    return message


def key(message: value_pb2.StepKey) -> StepKey:
    """Read a step's key."""
    return StepKey(message.id, message.index)


def put_key(message: value_pb2.StepKey, data: StepKey) -> None:
    """Write a step's key."""
    message.id, message.index = data.id, data.index
    message.SetInParent()


def to_key(data: StepKey) -> value_pb2.StepKey:
    """Make a step's key."""
    return value_pb2.StepKey(id=data.id, index=data.index)


def put_attempt(message: value_pb2.Attempt, run_id: str, step_key: StepKey, fence: int) -> None:
    """Write an attempt."""
    message.run_id = run_id
    message.key.id, message.key.index = step_key.id, step_key.index
    message.fence = fence


def retry(message: value_pb2.RetryPolicy) -> Retry:
    """Read a retry policy, with the contract's defaults."""
    return Retry(
        message.retries,
        seconds(message.initial_interval) if message.HasField("initial_interval") else _POLICY.initial_interval,
        seconds(message.maximum_interval) if message.HasField("maximum_interval") else _POLICY.maximum_interval,
        message.multiplier or _POLICY.multiplier,
    )


def put_retry(message: value_pb2.RetryPolicy, data: Retry) -> None:
    """Write a retry policy."""
    message.retries = data.retries
    put_duration(message.initial_interval, data.initial_interval)
    put_duration(message.maximum_interval, data.maximum_interval)
    message.multiplier = data.multiplier


# Events and the journal.


def event(message: event_pb2.Event) -> Event:
    """Read a received event."""
    return Event(message.id, message.name, payload(message.data), unix_time(message.time))


def put_event(message: event_pb2.Event, data: OutgoingEvent) -> None:
    """Write an event to send."""
    message.id, message.name = data.id, data.name
    put_payload(message.data, data.data)
    if data.time is not None:
        put_timestamp(message.time, data.time)


def kind(number: int) -> StepKind:
    """Read a step's kind; raises ValueError for one that this SDK does not know."""
    found = _KINDS.get(number)
    if found is None:
        raise ValueError(f"step kind {number} is not known to this version of the SDK: update the stepwire package")
    return found


def entry(message: opcode_pb2.JournalEntry) -> Entry:
    """Read a journal entry; raises ValueError if its kind is not known or it has no outcome."""
    outcome: Payload | Failure | TimedOut
    match message.WhichOneof("outcome"):
        case "output":
            outcome = payload(message.output)
        case "failure":
            outcome = failure(message.failure)
        case "timed_out":
            outcome = TimedOut()
        case _:
            raise ValueError(f"journal entry {message.sequence} has no outcome that this version of the SDK knows")
    return Entry(
        message.sequence,
        StepKey(message.key.id, message.key.index),
        kind(message.kind),
        outcome,
        unix_time(message.recorded_at),
        message.attempts,
        message.source,
        message.target,
    )


def run_info(message: worker_pb2.Invoke, app: str) -> RunInfo:
    """Read what a body is told of its run."""
    events = [event(each) for each in message.events]
    return RunInfo(message.run_id, message.attempt, events, unix_time(message.created_at), app, message.function_id)


def expected(message: worker_pb2.PlannedStep) -> Expected:
    """Read an unfinished step; raises ValueError if its kind is not known."""
    return Expected(StepKey(message.key.id, message.key.index), kind(message.kind), message.source, message.target)


# Steps that a body has found.


def put_planned(message: opcode_pb2.StepPlanned, data: Planned, eager_fence: int = 0) -> None:
    """Write a step that a body has started; raises ValueError for a time out of range."""
    message.key.id, message.key.index = data.key.id, data.key.index
    if data.source:
        message.source = _cut(data.source)
    if data.retry is not None:
        put_retry(message.retry, data.retry)
    if data.attempt_timeout is not None:
        put_duration(message.attempt_timeout, data.attempt_timeout)
    if data.step_timeout is not None:
        put_duration(message.step_timeout, data.step_timeout)
    if eager_fence:
        message.eager_fence = eager_fence
    _put_target(message, data.target)


def to_planned(data: Planned, eager_fence: int = 0) -> opcode_pb2.StepPlanned:
    """Make the message of a step that a body has started; raises ValueError for a time out of range."""
    message = opcode_pb2.StepPlanned()
    put_planned(message, data, eager_fence)
    return message


def _cut(source: str) -> str:
    """Keep the end of a source that is too long: there the line stands."""
    encoded = source.encode(errors="replace")
    return encoded[-LONGEST_SOURCE_BYTES:].decode(errors="ignore")


def _put_target(message: opcode_pb2.StepPlanned, target: Target) -> None:
    match target:
        case Closure():
            message.closure.SetInParent()
        case Task():
            message.task.name = target.name
            put_payload(message.task.input, target.input)
        case Sleep():
            if target.until is not None:
                put_timestamp(message.sleep.until, target.until)
            else:
                put_duration(message.sleep.delay, target.delay or 0.0)
        case Invoke():
            message.invoke.app, message.invoke.function_id = target.app, target.function_id
            put_payload(message.invoke.input, target.input)
        case SendEvents():
            message.send_events.SetInParent()
            for each in target.events:
                put_event(message.send_events.events.add(), each)
        case WaitForEvent():
            message.wait_for_event.event_name = target.event_name
            for path, json_value in target.fields.items():
                message.wait_for_event.fields.add(path=path, json_value=json_value)
            if target.timeout is not None:
                put_duration(message.wait_for_event.timeout, target.timeout)


def put_function(
    message: worker_pb2.FunctionOptions,
    id: str,
    event_names: Iterable[str],
    policy: Retry | None,
    run_timeout: float | None,
) -> None:
    """Write a function's options; `run_timeout` is in seconds."""
    message.id = id
    for name in event_names:
        message.triggers.add(event_name=name)
    if policy is not None:
        put_retry(message.retry, policy)
    if run_timeout is not None:
        put_duration(message.run_timeout, run_timeout)
