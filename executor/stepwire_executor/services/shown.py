"""Runs and steps as the contract shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from stepwire_core import trace
from stepwire_core.model import FailedAttempt, Failure, Run, Step, StepKind, StepState
from stepwire_core.state import State
from stepwire_executor import times, wire
from stepwire_proto.v1 import run_pb2, value_pb2

MOST_ATTEMPTS_BYTES = 512 * 1024
"""Of the failures of a step's attempts: of more the older ones are shown in brief."""
BRIEF_BYTES = 256
STATE = attrgetter("state")


def state_of(step: Step, run: Run) -> StepState:
    """Give a step's state; what was unfinished when its run ended is cancelled."""
    return StepState.CANCELLED if run.state.ended and not step.state.ended else step.state


def count(run: Run) -> Mapping[StepState, int]:
    """Count the steps of a run in memory; of a hundred thousand in some milliseconds."""
    return counts_of(run, Counter(map(STATE, run.steps.values())))


def counts_of(run: Run, stored: Mapping[StepState, int]) -> Mapping[StepState, int]:
    """Correct the counts of a stored run: what was unfinished when it ended is cancelled."""
    if not run.state.ended:
        return stored
    counts: Counter[StepState] = Counter()
    for state, number in stored.items():
        counts[state if state.ended else StepState.CANCELLED] += number
    return counts


def show_run(run: Run, counts: Mapping[StepState, int], lead_worker: str = "", *, whole: bool = True) -> run_pb2.Run:
    """Write a run; not `whole` leaves out its output and its event's data, and says so."""
    message = run_pb2.Run(
        id=run.id,
        app=run.app,
        function_id=run.function_id,
        state=int(run.state),  # type: ignore[arg-type]  # the numbers are the same
        created_at=times.timestamp(run.created_at),
        attempt=run.attempt,
        lost_invocations=run.lost_invocations,
        parent_run_id=run.parent_run_id,
        traceparent=trace.run_traceparent(run),
        cancel_reason=run.cancel_reason,
        lead_worker=lead_worker,
    )
    event = run.event if whole or not run.event.data else replace(run.event, data=b"")
    wire.put_event(message.event, event)
    if not whole:
        leave_payloads_out(message)
    if run.started_at is not None:
        times.put(message.started_at, run.started_at)
    if run.ended_at is not None:
        times.put(message.ended_at, run.ended_at)
    if run.parent_key is not None:
        message.parent_step.CopyFrom(wire.to_key(run.parent_key))
    if whole and run.output is not None:
        message.output.ParseFromString(run.output)
    if run.failure is not None:
        message.failure.CopyFrom(wire.to_failure(run.failure))
    for state, number in sorted(counts.items()):
        message.step_counts.add(state=int(state), count=number)
    return message


def without_payloads(message: run_pb2.Run) -> run_pb2.Run:
    """Copy a run without its output and its event's data."""
    copy = run_pb2.Run()
    copy.CopyFrom(message)
    leave_payloads_out(copy)
    return copy


def leave_payloads_out(message: run_pb2.Run) -> None:
    """Leave out what may be large of a run, for an answer in which it has no room."""
    message.ClearField("output")
    message.event.ClearField("data")
    message.payloads_omitted = True


def lead_worker(state: State, run_id: str) -> str:
    """Give the instance id of the worker that holds a run's lead; "" if none does."""
    loaded = state.runs.get(run_id)
    session = state.sessions.get(loaded.lead.session_id) if loaded and loaded.lead else None
    return session.instance_id if session else ""


def show_step(
    step: Step, run: Run, failed: Sequence[FailedAttempt] = (), *, moved: float = 0.0, with_output: bool = False
) -> run_pb2.Step:
    """Write a step. `moved` is by how much the clock was set, see `Now`: timeouts and backoffs do not go by it."""
    message = run_pb2.Step(
        key=wire.to_key(step.key),
        kind=int(step.kind),  # type: ignore[arg-type]
        state=int(state_of(step, run)),  # type: ignore[arg-type]
        number=step.number,
        sequence=step.sequence,
        attempt=step.attempt,
        worker=step.worker,
        planned_at=times.timestamp(step.planned_at),
        target=step.target if step.kind is not StepKind.CLOSURE else "",
        child_run_id=step.child_run_id,
    )
    if step.started_at is not None:
        times.put(message.started_at, step.started_at)
    if step.ended_at is not None:
        times.put(message.ended_at, step.ended_at)
    if step.due_at is not None and not step.state.ended:
        by_clock = step.kind is StepKind.SLEEP
        times.put(message.due_at, step.due_at if by_clock else step.due_at + moved)
    if step.failure is not None:
        message.failure.CopyFrom(wire.to_failure(step.failure))
    if with_output and step.output:
        message.output.ParseFromString(step.output)
    for attempt, failure in zip(failed, failures_of(failed), strict=True):
        message.failed_attempts.add(
            number=attempt.number,
            worker=attempt.worker,
            started_at=times.timestamp(attempt.started_at),
            ended_at=times.timestamp(attempt.ended_at),
            failure=failure,
        )
    return message


def failures_of(failed: Sequence[FailedAttempt]) -> Sequence[value_pb2.Failure]:
    """Write the failures of a step's attempts, the newest whole; once they are too much, the older ones in brief."""
    failures, room = [], MOST_ATTEMPTS_BYTES
    for attempt in reversed(failed):
        failure = wire.to_failure(attempt.failure) if room > 0 else in_brief(attempt.failure)
        room -= failure.ByteSize()
        failures.append(failure)
    return failures[::-1]


def in_brief(failure: Failure) -> value_pb2.Failure:
    """Write of a failure what it is, without its stack and causes."""
    return value_pb2.Failure(
        type=failure.type, message=wire.cut(failure.message, BRIEF_BYTES), retryable=failure.retryable
    )
