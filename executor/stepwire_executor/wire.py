"""Between the contract's Protobuf and the core's data. Checks the form of what comes in; knows no state."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stepwire_core import inputs as i
from stepwire_core import trace
from stepwire_core.model import Blob, Event, Failure, FunctionOptions, Limits, Retry, Step, StepKey, StepKind, WaitSpec
from stepwire_executor import matching, times
from stepwire_executor.form import FormError
from stepwire_executor.jsontext import JsonError, check_json
from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2

RESERVED = "stepwire/"
LONGEST_ID = 256
LONGEST_SOURCE = 256
EVENT_BYTES_A_PIECE, BYTES_AN_EVENT = 1 << 16, 1 << 10
"""Bytes of events that are read before others have a turn: their JSON takes long. What one counts beside its data."""
NULL = value_pb2.Payload(data=b"null", encoding="json").SerializeToString()
DEEPEST_CAUSE = 16
LONGEST_TYPE, LONGEST_TEXT = 1_024, 64 * 1024
"""Bytes of a failure's type; of its message, and of its stack."""
MOST_FAILURE_BYTES = 256 * 1024
"""Of a failure and its causes; the last one may go beyond it by its own."""
MOST_TRIGGERS = 100
CUT = "[…]".encode()
LONGEST_TRACESTATE = 512
"""Characters that everybody takes, https://www.w3.org/TR/trace-context/#tracestate-limits."""
DERIVED_ID = re.compile(r"[0-9A-Z]{26}-[0-9a-f]{16}-[0-9]+")
"""Of an event that a step sends without an id of its own: its run, a hash of its step, its number."""


# Small values.


def key(message: value_pb2.StepKey) -> StepKey:
    """Read a step's key."""
    return StepKey(message.id, message.index)


def attempt(message: value_pb2.Attempt) -> i.AttemptRef:
    """Read an attempt."""
    return i.AttemptRef(message.run_id, StepKey(message.key.id, message.key.index), message.fence)


def to_attempt(ref: i.AttemptRef) -> value_pb2.Attempt:
    """Write an attempt."""
    return value_pb2.Attempt(run_id=ref.run_id, key=to_key(ref.key), fence=ref.fence)


def to_key(step_key: StepKey) -> value_pb2.StepKey:
    """Write a step's key."""
    return value_pb2.StepKey(id=step_key.id, index=step_key.index)


def retry(message: value_pb2.RetryPolicy, limits: Limits, field: str) -> Retry:
    """Read a retry policy; raises FormError."""
    if message.retries > limits.max_retries:
        raise FormError(
            f"{field}.retries", f"{message.retries}, over the limit of {limits.max_retries} (--max-retries)"
        )
    if not (message.multiplier == 0 or 1 <= message.multiplier < math.inf):
        raise FormError(f"{field}.multiplier", f"{message.multiplier}, but it must be 1 or more, or 0 for the default")
    first, most = 1.0, 300.0
    if message.HasField("initial_interval"):
        first = times.seconds(message.initial_interval, f"{field}.initial_interval", limits.max_sleep)
    if message.HasField("maximum_interval"):
        most = times.seconds(message.maximum_interval, f"{field}.maximum_interval", limits.max_sleep)
    return Retry(message.retries, first, most, message.multiplier or 2.0)


def payload_bytes(message: value_pb2.Payload) -> int:
    """Give the bytes of a value that count against limits: its data, and what is said of it."""
    size = len(message.data)
    if message.metadata or len(message.encoding) > LONGEST_ID:
        size = message.ByteSize()
    return size


def failure(message: value_pb2.Failure, limits: Limits) -> Failure:
    """Read a failure. What is too much is cut off, so that it is known at least by what is outermost.

    An invalid or too long delay is cut to what is valid.
    """
    chain: list[tuple[value_pb2.Failure, str, str, str, Blob | None]] = []
    at: value_pb2.Failure | None = message
    room = MOST_FAILURE_BYTES
    while at is not None and len(chain) <= DEEPEST_CAUSE and room > 0:
        texts = (
            cut(at.type or "Error", LONGEST_TYPE),
            cut(at.message, min(LONGEST_TEXT, room)),
            cut(at.stack, min(LONGEST_TEXT, room), keep_end=True),
        )
        details = at.details.SerializeToString() if at.HasField("details") else None
        if details is not None and len(details) > room:
            details = None
        chain.append((at, *texts, details))
        room -= sum(len(text.encode()) for text in texts) + len(details or b"")
        at = at.cause if at.HasField("cause") else None
    read: Failure | None = None
    for at, type_, text, stack, details in reversed(chain):
        after = times.bounded(at.retry_after, limits.max_sleep) if at.HasField("retry_after") else None
        read = Failure(type_, text, stack, at.retryable, after, read, details)
    assert read is not None
    return read


def cut(text: str, most: int, *, keep_end: bool = False) -> str:
    """Cut a text to so many bytes of UTF-8, with a sign where it was cut."""
    data = text.encode()
    if len(data) <= most:
        return text
    room = max(0, most - len(CUT))
    return ((CUT + data[-room:] if room else CUT) if keep_end else data[:room] + CUT).decode(errors="ignore")


def to_failure(data: Failure) -> value_pb2.Failure:
    """Write a failure."""
    message = value_pb2.Failure(type=data.type, message=data.message, stack=data.stack, retryable=data.retryable)
    if data.retry_after is not None:
        message.retry_after.CopyFrom(times.duration(data.retry_after))
    if data.cause is not None:
        message.cause.CopyFrom(to_failure(data.cause))
    if data.details is not None:
        message.details.ParseFromString(data.details)
    return message


# Events.


def event(message: event_pb2.Event, limits: Limits, field: str, now: float, made_id: str) -> Event:
    """Read a client's or a step's event; one without an id gets `made_id`. Raises FormError."""
    name_size, id_size = len(message.name.encode()), len(message.id.encode())
    if not 0 < name_size <= LONGEST_ID:
        raise FormError(f"{field}.name", f"{name_size} bytes, but an event's name has 1 to {LONGEST_ID}")
    if message.name.startswith(RESERVED):
        raise FormError(f"{field}.name", f"{message.name!r}, but names that start with {RESERVED!r} are reserved")
    if id_size > LONGEST_ID:
        raise FormError(f"{field}.id", f"{id_size} bytes, but an event's id has at most {LONGEST_ID}")
    if DERIVED_ID.fullmatch(message.id):
        advice = "ids of this form are given to events of steps; use one of your own"
        raise FormError(f"{field}.id", f"{message.id!r}, but {advice}")
    size = payload_bytes(message.data)
    if size > limits.max_event_bytes:
        limit = limits.max_event_bytes
        raise FormError(
            f"{field}.data", f"{size} bytes, over the limit of {limit} (--max-event-bytes): send a reference"
        )
    if message.data.encoding in ("", "json") and message.HasField("data"):
        try:
            check_json(message.data.data)
        except JsonError as error:
            raise FormError(f"{field}.data", str(error)) from None
    data = message.data.SerializeToString() if message.HasField("data") else NULL
    time = times.unix_time(message.time, f"{field}.time") if message.HasField("time") else now
    digest = hashlib.blake2b(message.name.encode() + b"\0" + data, digest_size=16).hexdigest()
    traceparent = message.traceparent if trace.parse(message.traceparent) is not None else ""
    tracestate = message.tracestate if traceparent and len(message.tracestate.encode()) <= LONGEST_TRACESTATE else ""
    return Event(message.id or made_id, message.name, data, time, traceparent, tracestate, digest)


def to_event(data: Event) -> event_pb2.Event:
    """Write an event."""
    message = event_pb2.Event()
    put_event(message, data)
    return message


def put_event(message: event_pb2.Event, data: Event) -> None:
    """Write an event into a message."""
    message.id, message.name = data.id, data.name
    times.put(message.time, data.time)
    message.data.ParseFromString(data.data)
    message.traceparent, message.tracestate = data.traceparent, data.tracestate


# Functions.


def function(message: worker_pb2.FunctionOptions, limits: Limits, field: str) -> FunctionOptions:
    """Read a function's options; raises FormError."""
    size = len(message.id.encode())
    if not 0 < size <= LONGEST_ID or "/" in message.id:
        raise FormError(f"{field}.id", f"{message.id[:40]!r}: a function's id has 1 to {LONGEST_ID} bytes and no '/'")
    names = []
    if len(message.triggers) > MOST_TRIGGERS:
        raise FormError(f"{field}.triggers", f"{len(message.triggers)}, but a function has at most {MOST_TRIGGERS}")
    for number, trigger in enumerate(message.triggers):
        if trigger.WhichOneof("kind") is None or not 0 < len(trigger.event_name.encode()) <= LONGEST_ID:
            raise FormError(f"{field}.triggers[{number}]", f"no event name, or one over {LONGEST_ID} bytes")
        names.append(trigger.event_name)
    policy = retry(message.retry, limits, f"{field}.retry") if message.HasField("retry") else None
    timeout = None
    if message.HasField("run_timeout"):
        timeout = times.seconds(message.run_timeout, f"{field}.run_timeout", limits.max_sleep)
    return FunctionOptions(message.id, tuple(sorted(set(names))), policy, timeout)


def to_function(options: FunctionOptions) -> worker_pb2.FunctionOptions:
    """Write a function's options."""
    message = worker_pb2.FunctionOptions(id=options.id)
    for name in options.event_names:
        message.triggers.add(event_name=name)
    if options.retry is not None:
        message.retry.CopyFrom(to_retry(options.retry))
    if options.run_timeout is not None:
        message.run_timeout.CopyFrom(times.duration(options.run_timeout))
    return message


def to_retry(policy: Retry) -> value_pb2.RetryPolicy:
    """Write a retry policy."""
    return value_pb2.RetryPolicy(
        retries=policy.retries,
        initial_interval=times.duration(policy.initial_interval),
        maximum_interval=times.duration(policy.maximum_interval),
        multiplier=policy.multiplier,
    )


# Steps.

_KINDS = {
    "closure": StepKind.CLOSURE,
    "task": StepKind.TASK,
    "sleep": StepKind.SLEEP,
    "invoke": StepKind.INVOKE,
    "send_events": StepKind.SEND_EVENTS,
    "wait_for_event": StepKind.WAIT_FOR_EVENT,
}


Sent = Sequence[Event] | FormError
"""The events of a step that sends some, or what is wrong with them."""


def planned(
    message: opcode_pb2.StepPlanned, run_id: str, limits: Limits, now: float, sent: Sent | None = None
) -> i.StepPlanned:
    """Read a step that a lead has found. What is wrong with it becomes its `fault`, with which it fails.

    `sent`: what it sends, if that was read before.
    """
    which = message.WhichOneof("target")
    if which == "closure":  # the many; nothing to check but the options
        fields: dict[str, Any] = {}
        kind = StepKind.CLOSURE
    else:
        kind = _KINDS.get(which or "", StepKind.CLOSURE)
    step_key = StepKey(message.key.id, message.key.index)
    try:
        if which is None:
            raise FormError("target", "it is not set, or of a kind that this executor does not know")
        if sent is not None:
            fields = _sending(sent)
        elif which != "closure":
            fields = _TARGETS[which](message, run_id, step_key, limits, now)
        if message.HasField("retry"):
            fields["retry"] = retry(message.retry, limits, "retry")
        if message.HasField("attempt_timeout"):
            fields["attempt_timeout"] = times.seconds(message.attempt_timeout, "attempt_timeout", limits.max_sleep)
        if message.HasField("step_timeout"):
            fields["step_timeout"] = times.seconds(message.step_timeout, "step_timeout", limits.max_sleep)
    except FormError as error:
        fault = Failure("InvalidStepError", f"step {step_key}: {error}", retryable=False)
        return i.StepPlanned(step_key, kind, source=message.source[:LONGEST_SOURCE], fault=fault)
    return i.StepPlanned(
        step_key, kind, source=message.source[:LONGEST_SOURCE], eager_fence=message.eager_fence, **fields
    )


def _task(message: opcode_pb2.StepPlanned, *_: Any) -> dict[str, Any]:
    size = len(message.task.name.encode())
    if not 0 < size <= LONGEST_ID:
        raise FormError("task.name", f"{size} bytes, but a task's name has 1 to {LONGEST_ID}")
    return {"target": message.task.name, "input": _input(message.task)}


def _sleep(message: opcode_pb2.StepPlanned, _run: str, _key: StepKey, limits: Limits, now: float) -> dict[str, Any]:
    match message.sleep.WhichOneof("end"):
        case "until":
            until = times.unix_time(message.sleep.until, "sleep.until")
            if until - now > limits.max_sleep:
                raise FormError(
                    "sleep.until", f"{until - now:g} s ahead, over the limit of {limits.max_sleep:g} s (--max-sleep)"
                )
            return {"due_at": until}
        case "delay":
            return {"delay": times.seconds(message.sleep.delay, "sleep.delay", limits.max_sleep)}
    raise FormError("sleep.end", "it is not set")


def _invoke(message: opcode_pb2.StepPlanned, *_: Any) -> dict[str, Any]:
    target = message.invoke
    for field, text, least in (("app", target.app, 0), ("function_id", target.function_id, 1)):
        size = len(text.encode())
        if not least <= size <= LONGEST_ID:
            raise FormError(f"invoke.{field}", f"{size} bytes, but {least} to {LONGEST_ID} are allowed")
    return {"target": f"{target.app}/{target.function_id}", "input": _input(target)}


def sent_events(message: opcode_pb2.StepPlanned, run_id: str, limits: Limits, now: float) -> Iterator[Event]:
    """Read the events that a step sends, one after the other. Raises FormError."""
    step_key, messages = key(message.key), message.send_events.events
    if not 0 < len(messages) <= limits.max_events_per_call:
        limit = limits.max_events_per_call
        raise FormError(
            "send_events.events", f"{len(messages)} events, but 1 to {limit} are allowed (--max-events-per-call)"
        )
    digest = hashlib.blake2b(f"{step_key.index}\0{step_key.id}".encode(), digest_size=8).hexdigest()
    for number, each in enumerate(messages):
        yield event(each, limits, f"send_events.events[{number}]", now, f"{run_id}-{digest}-{number}")


def _send(message: opcode_pb2.StepPlanned, run_id: str, _key: StepKey, limits: Limits, now: float) -> dict[str, Any]:
    return _sending(list(sent_events(message, run_id, limits, now)))


def _sending(sent: Sent) -> dict[str, Any]:
    if isinstance(sent, FormError):
        raise sent
    return {"events": sent, "output": json_payload([each.id for each in sent])}


def _wait(message: opcode_pb2.StepPlanned, _run: str, _key: StepKey, limits: Limits, _now: float) -> dict[str, Any]:
    target = message.wait_for_event
    size = len(target.event_name.encode())
    if not 0 < size <= LONGEST_ID:
        raise FormError("wait_for_event.event_name", f"{size} bytes, but an event's name has 1 to {LONGEST_ID}")
    delay = limits.max_sleep
    if target.HasField("timeout"):
        delay = times.seconds(target.timeout, "wait_for_event.timeout", limits.max_sleep)
    try:
        wait = WaitSpec(*matching.canonical_match([(each.path, each.json_value) for each in target.fields]))
    except ValueError as error:
        raise FormError("wait_for_event.fields", str(error)) from None
    return {"target": target.event_name, "wait": wait, "delay": delay}


def _input(target: Any) -> Blob:
    return target.input.SerializeToString() if target.HasField("input") else NULL


_TARGETS = {"task": _task, "sleep": _sleep, "invoke": _invoke, "send_events": _send, "wait_for_event": _wait}


def json_payload(value: Any) -> Blob:
    """Write a JSON value as a payload."""
    return value_pb2.Payload(data=json.dumps(value).encode(), encoding="json").SerializeToString()


# The journal.


def put_entry(message: opcode_pb2.JournalEntry, step: Step) -> None:
    """Write a recorded step as a journal entry."""
    message.sequence, message.attempts, message.source = step.sequence, step.attempt, step.source
    if step.target:
        message.target = step.target
    message.key.id, message.key.index = step.key
    message.kind = int(step.kind)  # type: ignore[assignment]  # the numbers are the same
    times.put(message.recorded_at, step.ended_at or 0.0)
    if step.failure is not None:
        message.failure.CopyFrom(to_failure(step.failure))
    elif step.timed_out:
        message.timed_out.SetInParent()
    elif step.output:
        message.output.ParseFromString(step.output)
    else:
        message.output.SetInParent()


def planned_steps(steps: Iterable[Step]) -> list[worker_pb2.PlannedStep]:
    """Write unfinished steps for an Invoke."""
    return [
        worker_pb2.PlannedStep(
            key=to_key(step.key),
            kind=int(step.kind),  # type: ignore[arg-type]
            source=step.source,
            target=step.target,
        )
        for step in steps
    ]


def to_limits(limits: Limits) -> worker_pb2.Limits:
    """Write the limits that a worker must know."""
    return worker_pb2.Limits(
        max_frame_bytes=limits.max_frame_bytes,
        max_output_bytes=limits.max_output_bytes,
        max_event_bytes=limits.max_event_bytes,
        max_steps=limits.max_steps,
        max_step_id_bytes=limits.max_step_id_bytes,
        max_events_per_call=limits.max_events_per_call,
        max_sleep=times.duration(limits.max_sleep),
    )


def attempts(messages: Sequence[value_pb2.Attempt]) -> list[i.AttemptRef]:
    """Read several attempts."""
    return [attempt(message) for message in messages]
