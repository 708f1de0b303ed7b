"""Messages of workers as inputs of the core. Raises FormError for what is not as the contract says."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from stepwire_core import inputs as i
from stepwire_core.model import Event, Limits, StepKey
from stepwire_executor import times, wire
from stepwire_executor.form import FormError
from stepwire_executor.stream import Stream
from stepwire_executor.wire import BYTES_AN_EVENT, EVENT_BYTES_A_PIECE
from stepwire_proto.v1 import opcode_pb2, worker_pb2

MOST_SLOTS = 10_000
MOST_LABELS = 64
MOST_FUNCTIONS = MOST_TASKS = 1_000
LONGEST_STACK = 16 * 1024
"""Bytes of what a blocked worker says of where it stands."""
STEPS_A_PIECE, BYTES_A_PIECE = 1_000, 1 << 18
"""Steps, and their bytes, that are read and planned before others have a turn: some ten milliseconds."""
LONGEST_NAME = 128
"""Of an app, a worker, a version, a label's key: in bytes."""


def read_hello(hello: worker_pb2.Hello, limits: Limits, stream: Stream, session_id: str, now: float) -> i.Hello:
    """Read a Hello; `session_id` is for a new session, `now` the time of day (Unix seconds). Raises FormError."""
    for field, value in (("instance_id", hello.instance_id), ("app", hello.app)):
        size = len(value.encode())
        if not 0 < size <= LONGEST_NAME:
            raise FormError(field, f"{size} bytes, but it must have 1 to {LONGEST_NAME}")
    if "/" in hello.app:
        raise FormError("app", f"{hello.app!r}, but '/' separates the app from a function's id: choose another")
    for field, value in (
        ("sdk_name", hello.sdk_name),
        ("sdk_version", hello.sdk_version),
        ("app_version", hello.app_version),
        ("resume_session", hello.resume_session),
    ):
        if len(value.encode()) > LONGEST_NAME:
            raise FormError(field, f"{len(value.encode())} bytes, but it may have {LONGEST_NAME}")
    if not 1 <= hello.slots <= MOST_SLOTS:
        raise FormError("slots", f"{hello.slots}, but a worker has 1 to {MOST_SLOTS}")
    if hello.max_invocations < 1:
        raise FormError("max_invocations", "0, but a worker holds at least 1, also without functions")
    for field, named, most in (("functions", hello.functions, MOST_FUNCTIONS), ("tasks", hello.tasks, MOST_TASKS)):
        if len(named) > most:
            raise FormError(field, f"{len(named)}, but a worker has at most {most}: spread them over several apps")
    for field, count in (
        ("attempts_in_hand", len(hello.attempts_in_hand)),
        ("eager_plans", len(hello.eager_plans)),
    ):
        if count > MOST_SLOTS:
            raise FormError(field, f"{count}, but a worker has at most {MOST_SLOTS} slots")
    functions = [wire.function(each, limits, f"functions[{at}]") for at, each in enumerate(hello.functions)]
    check_once("functions", "id", [each.id for each in functions])
    for at, task in enumerate(hello.tasks):
        if not 0 < len(task.encode()) <= wire.LONGEST_ID:
            raise FormError(f"tasks[{at}]", f"a task's name has 1 to {wire.LONGEST_ID} bytes")
    check_once("tasks", "name", hello.tasks)
    check_labels(hello.labels)
    return i.Hello(
        session_id,
        hello.instance_id,
        hello.app,
        hello.app_version,
        functions,
        tuple(hello.tasks),
        hello.slots,
        hello.max_invocations,
        worker_pb2.CAPABILITY_EAGER in hello.capabilities,
        hello.resume_session,
        wire.attempts(hello.attempts_in_hand),
        dict(hello.labels),
        hello.sdk_name,
        hello.sdk_version,
        stream,
        stream.caller.name,
        hello.draining,
        [steps_found("", plan, limits, now) for plan in hello.eager_plans if is_eager(plan)],
    )


def is_eager(plan: opcode_pb2.StepsFound) -> bool:
    """Whether it can be the plan of a lone step that has begun: it is one closure. No other kind begins unasked."""
    return len(plan.steps) == 1 and plan.steps[0].HasField("closure")


def check_once(field: str, what: str, values: Sequence[str]) -> None:
    """Raise FormError if a value is there twice."""
    seen: set[str] = set()
    for at, value in enumerate(values):
        if value in seen:
            raise FormError(f"{field}[{at}]", f"the {what} {value!r} is there twice, but each may be named once")
        seen.add(value)


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise FormError if there are too many labels, or one is too long."""
    if len(labels) > MOST_LABELS:
        raise FormError("labels", f"{len(labels)} labels, but a worker has at most {MOST_LABELS}")
    for key, value in labels.items():
        if not 0 < len(key.encode()) <= LONGEST_NAME:
            raise FormError("labels", f"the key {key[:40]!r} has {len(key.encode())} bytes, but 1 to {LONGEST_NAME}")
        if len(value.encode()) > wire.LONGEST_ID:
            size = len(value.encode())
            raise FormError("labels", f"the value of {key!r} has {size} bytes, but at most {wire.LONGEST_ID}")


def steps_found(session_id: str, message: Any, limits: Limits, now: float) -> i.StepsFound:
    """Read a StepsFound."""
    steps = [wire.planned(step, message.run_id, limits, now) for step in message.steps]
    return i.StepsFound(session_id, message.run_id, message.invocation, message.sequence, steps, message.quiescent)


def is_large(message: opcode_pb2.StepsFound, size: int) -> bool:
    """Whether a StepsFound out of `size` bytes is to be read in pieces."""
    if len(message.steps) > STEPS_A_PIECE:
        return True
    if size <= EVENT_BYTES_A_PIECE or (size := message.ByteSize()) <= EVENT_BYTES_A_PIECE:
        return False
    return size > BYTES_A_PIECE or any(step.HasField("send_events") for step in message.steps)


def many_steps_found(session_id: str, message: Any, limits: Limits, now: float) -> Iterator[i.StepsFound | None]:
    """Read a StepsFound in pieces, each an input of its own; only with the last has its body run dry.

    None comes where others may have a turn though a piece is not complete. Of more steps than a run may have one is
    read, with which the run fails.
    """
    count = min(len(message.steps), limits.max_steps + 1)
    steps: list[i.StepPlanned] = []
    size = 0
    for number in range(count):
        step = message.steps[number]
        step_size, sent = step.ByteSize(), None
        if step_size > EVENT_BYTES_A_PIECE and step.HasField("send_events"):
            sent = yield from events_in_pieces(step, message.run_id, limits, now)
        steps.append(wire.planned(step, message.run_id, limits, now, sent))
        size += step_size
        is_last = number + 1 == count
        if is_last or len(steps) >= STEPS_A_PIECE or size >= BYTES_A_PIECE:
            quiescent = message.quiescent and is_last
            yield i.StepsFound(session_id, message.run_id, message.invocation, message.sequence, steps, quiescent)
            steps, size = [], 0


def events_in_pieces(step: Any, run_id: str, limits: Limits, now: float) -> Generator[None, None, wire.Sent]:
    """Read the events of a step; stops between pieces of them. Returns them, or what is wrong with one."""
    events: list[Event] = []
    size = 0
    try:
        for event in wire.sent_events(step, run_id, limits, now):
            events.append(event)
            size += len(event.data) + BYTES_AN_EVENT
            if size > EVENT_BYTES_A_PIECE:
                size = 0
                yield
    except FormError as error:
        return error
    return events


def step_run(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read a StepRun."""
    attempt = message.attempt
    return i.StepRun(
        session_id,
        attempt.run_id,
        StepKey(attempt.key.id, attempt.key.index),
        attempt.fence,
        message.output.SerializeToString(),
        wire.payload_bytes(message.output),
        times.bounded(message.elapsed),
    )


def step_failed(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read a StepFailed."""
    attempt = wire.attempt(message.attempt)
    failure = wire.failure(message.failure, limits)
    return i.StepFailed(session_id, attempt.run_id, attempt.key, attempt.fence, failure, times.bounded(message.elapsed))


def step_cancelled(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read a StepCancelled."""
    keys = [wire.key(each) for each in message.keys]
    return i.StepCancelled(session_id, message.run_id, message.invocation, keys)


def many_steps_cancelled(session_id: str, message: Any, limits: Limits, now: float) -> Iterator[i.StepCancelled]:
    """Read a StepCancelled in pieces, each an input of its own; of no more steps than a run may have."""
    for at in range(0, min(len(message.keys), limits.max_steps), STEPS_A_PIECE):
        keys = [wire.key(each) for each in message.keys[at : at + STEPS_A_PIECE]]
        yield i.StepCancelled(session_id, message.run_id, message.invocation, keys)


def run_finished(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read a RunFinished."""
    output = message.output.SerializeToString()
    size = wire.payload_bytes(message.output)
    return i.RunFinished(session_id, message.run_id, message.invocation, output, size)


def run_failed(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read a RunFailed."""
    failure = wire.failure(message.failure, limits)
    not_found = wire.key(message.not_found) if message.HasField("not_found") else None
    return i.RunFailed(session_id, message.run_id, message.invocation, failure, not_found)


def heartbeat(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read a Heartbeat."""
    lag = times.seconds(message.loop_lag, "loop_lag") if message.HasField("loop_lag") else 0.0
    return i.Heartbeat(session_id, lag, wire.cut(message.blocking_stack, LONGEST_STACK, keep_end=True))


def evicted(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read an Evicted."""
    return i.Evicted(session_id, message.run_id, message.invocation)


def need_journal(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read a NeedJournal."""
    returned = returned_attempts(message)
    return i.Evicted(session_id, message.run_id, message.invocation, returned)


def draining(session_id: str, message: Any, limits: Limits, now: float) -> i.Input:
    """Read a Draining."""
    return i.Draining(session_id, returned_attempts(message), message.done)


def returned_attempts(message: Any) -> list[i.AttemptRef]:
    """Read the attempts that a worker gives back. Raises FormError."""
    count = len(message.returned_attempts)
    if count > MOST_SLOTS:
        raise FormError("returned_attempts", f"{count}, but a worker has at most {MOST_SLOTS} slots")
    return wire.attempts(message.returned_attempts)


READ: dict[str, Callable[[str, Any, Limits, float], i.Input]] = {
    "step_run": step_run,
    "steps_found": steps_found,
    "step_failed": step_failed,
    "step_cancelled": step_cancelled,
    "run_finished": run_finished,
    "run_failed": run_failed,
    "heartbeat": heartbeat,
    "evicted": evicted,
    "need_journal": need_journal,
    "draining": draining,
}
"""Each is given the session, the message, the limits and the time of day (Unix seconds)."""
