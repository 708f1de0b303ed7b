"""Rows: how the model lies in tables. The names and the order of columns, and both ways between objects and tuples.

Knows nothing of any database. A tuple holds only int, float, str, bytes and None.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from stepwire_core.commands import Wait
from stepwire_core.model import (
    Blob,
    Event,
    FailedAttempt,
    Failure,
    Function,
    FunctionOptions,
    Retry,
    Run,
    RunState,
    Step,
    StepKey,
    StepKind,
    StepState,
    WaitSpec,
)

Row = Sequence[Any]

EVENT = (
    "position",
    "id",
    "name",
    "time",
    "received_at",
    "traceparent",
    "tracestate",
    "digest",
    "run_ids",
    "apps",
    "data",
)
EVENT_KEY = ("position",)
FUNCTION = ("app", "function_id", "app_version", "registered_at", "event_names", "retry", "run_timeout", "served_at")
FUNCTION_KEY = ("app", "function_id")
FAILED_ATTEMPT = ("run_id", "step_number", "number", "fence", "worker", "started_at", "ended_at", "failure")
STEP_OF_ATTEMPT = ("run_id", "step_number")
WAIT_KEY = ("run_id", "step_id", "step_index")
RUN_OF_WAIT = ("run_id",)
MARK = ("name", "position")
MARK_KEY = ("name",)
TOLD = "told"
"""Name of the mark up to which all waits were told of events."""
WAIT = (*WAIT_KEY, "since", "event_name", "paths", "match", "app")

RUN_KEY = ("id",)
RUN_FIXED = (
    "app",
    "function_id",
    "event_position",
    "created_at",
    "parent_run_id",
    "parent_step_id",
    "parent_step_index",
    "depth",
)
RUN_CHANGING = (
    "state",
    "wake_at",
    "app_version",
    "started_at",
    "ended_at",
    "deadline_at",
    "attempt",
    "retry_at",
    "lost_invocations",
    "cancel_reason",
    "failure",
    "output",
)
RUN = RUN_CHANGING + RUN_FIXED + RUN_KEY

STEP_KEY = ("run_id", "number")
STEP_FIXED = (
    "kind",
    "step_id",
    "step_index",
    "target",
    "retry",
    "attempt_timeout",
    "step_timeout",
    "source",
    "found_after",
    "planned_at",
    "input",
)
STEP_CHANGING = (
    "state",
    "sequence",
    "attempt",
    "fence",
    "worker",
    "started_at",
    "ended_at",
    "due_at",
    "timed_out",
    "child_run_id",
    "event_position",
    "failure",
    "output",
)
STEP = STEP_CHANGING + STEP_FIXED + STEP_KEY


def dump_failure(failure: Failure | None) -> str | None:
    """Write a failure and its causes as a JSON array, outermost first; however many there are, it stays flat."""
    if failure is None:
        return None
    chain = []
    at: Failure | None = failure
    while at is not None:
        details = None if at.details is None else b64encode(at.details).decode()
        chain.append([at.type, at.message, at.stack, at.retryable, at.retry_after, details])
        at = at.cause
    return json.dumps(chain)


def load_failure(text: str | None) -> Failure | None:
    """Read what `dump_failure` wrote."""
    failure = None
    for type_, message, stack, retryable, retry_after, details in reversed(json.loads(text) if text else []):
        decoded = None if details is None else b64decode(details)
        failure = Failure(type_, message, stack, retryable, retry_after, failure, decoded)
    return failure


def dump_retry(retry: Retry | None) -> str | None:
    """Write a retry policy as a JSON array."""
    if retry is None:
        return None
    return json.dumps([retry.retries, retry.initial_interval, retry.maximum_interval, retry.multiplier])


def load_retry(text: str | None) -> Retry | None:
    """Read what `dump_retry` wrote."""
    return Retry(*json.loads(text)) if text else None


def dump_apps(apps: Sequence[str]) -> str:
    """Write the apps that an event reaches as a JSON array; "" stands for all."""
    return json.dumps(apps) if apps else ""


def to_apps(text: str) -> tuple[str, ...]:
    """Read what `dump_apps` wrote."""
    return tuple(json.loads(text)) if text else ()


def from_event(event: Event) -> Row:
    """Give an event's row."""
    ids = json.dumps(event.run_ids) if event.run_ids else ""
    texts = event.traceparent, event.tracestate, event.digest, ids, dump_apps(event.apps)
    return event.position, event.id, event.name, event.time, event.received_at, *texts, event.data


def to_event(row: Row) -> Event:
    """Give the event of a row; what was not read of it is empty."""
    position, id_, name, time, received_at, traceparent, tracestate, digest, ids, apps, data = row
    run_ids = tuple(json.loads(ids)) if ids else ()
    reached = to_apps(apps)
    return Event(id_, name, data or b"", time, traceparent, tracestate, digest, received_at, position, run_ids, reached)


def from_function(function: Function) -> Row:
    """Give a function's row."""
    options = function.options
    how = json.dumps(options.event_names), dump_retry(options.retry), options.run_timeout, function.served_at
    return function.app, options.id, function.app_version, function.registered_at, *how


def to_function(row: Row) -> Function:
    """Give the function of a row."""
    app, id_, version, registered_at, event_names, retry, run_timeout, served_at = row
    options = FunctionOptions(id_, tuple(json.loads(event_names)), load_retry(retry), run_timeout)
    return Function(app, options, version, registered_at, served_at)


def from_failed_attempt(attempt: FailedAttempt) -> Row:
    """Give a failed attempt's row."""
    times = attempt.started_at, attempt.ended_at
    numbers = attempt.step_number, attempt.number, attempt.fence
    return attempt.run_id, *numbers, attempt.worker, *times, dump_failure(attempt.failure)


def to_failed_attempt(row: Row) -> FailedAttempt:
    """Give the failed attempt of a row."""
    failure = load_failure(row[7])
    assert failure is not None, "the column is NOT NULL"
    run_id, step_number, number, fence, worker, started_at, ended_at = row[:7]
    return FailedAttempt(run_id, step_number, number, fence, worker, started_at, ended_at, failure)


def from_wait(wait: Wait) -> Row:
    """Give a wait's row."""
    return wait.run_id, *wait.key, wait.since, wait.event_name, wait.paths, wait.match, wait.app


def to_wait(row: Row) -> Wait:
    """Give the wait of a row."""
    run_id, step_id, step_index, since, event_name, paths, match, app = row
    return Wait(event_name, paths, match, run_id, StepKey(step_id, step_index), since, app)


def run_changes(run: Run) -> Row:
    """Give what may have changed of a run, and then its key."""
    return (
        int(run.state),
        run.wake_at,
        run.app_version,
        run.started_at,
        run.ended_at,
        run.deadline_at,
        run.attempt,
        run.retry_at,
        run.lost_invocations,
        run.cancel_reason,
        dump_failure(run.failure),
        run.output,
        run.id,
    )


def from_run(run: Run) -> Row:
    """Give a run's whole row; of its event only the position."""
    *changing, id_ = run_changes(run)
    parent = run.parent_key or (None, None)
    fixed = run.app, run.function_id, run.event.position, run.created_at, run.parent_run_id, *parent, run.depth
    return *changing, *fixed, id_


def to_run(row: Row, event: Event) -> Run:
    """Give the run of a row, without its steps."""
    state, wake_at, version, started_at, ended_at, deadline_at, attempt, retry_at, lost, reason, failure, output = row[
        :12
    ]
    app, function_id, _, created_at, parent_run_id, parent_step_id, parent_step_index, depth, id_ = row[12:]
    parent_key = None if parent_step_id is None else StepKey(parent_step_id, parent_step_index)
    return Run(
        id_,
        app,
        function_id,
        version,
        event,
        created_at,
        RunState(state),
        started_at,
        ended_at,
        deadline_at,
        output,
        load_failure(failure),
        attempt,
        retry_at,
        lost,
        parent_run_id,
        parent_key,
        depth,
        reason,
        wake_at,
    )


def step_changes(run_id: str, step: Step) -> Row:
    """Give what may have changed of a step, and then its key."""
    return (
        int(step.state),
        step.sequence,
        step.attempt,
        step.fence,
        step.worker,
        step.started_at,
        step.ended_at,
        step.due_at,
        int(step.timed_out),
        step.child_run_id,
        step.event_position,
        dump_failure(step.failure),
        step.output,
        run_id,
        step.number,
    )


def from_step(run_id: str, step: Step) -> Row:
    """Give a step's whole row."""
    return (
        *step_changes(run_id, step)[:-2],
        int(step.kind),
        *step.key,
        step.target,
        dump_retry(step.retry),
        step.attempt_timeout,
        step.step_timeout,
        step.source,
        step.found_after,
        step.planned_at,
        input_of(step),
        run_id,
        step.number,
    )


def input_of(step: Step) -> Blob:
    """Give what is stored as a step's input: for a wait what it compares, a line each."""
    return step.input if step.wait is None else "\n".join(step.wait).encode()


def to_step(row: Row) -> Step:
    """Give the step of a row."""
    state, sequence, attempt, fence, worker, started_at, ended_at, due_at, timed_out, child = row[:10]
    event_position, failure, output = row[10:13]
    kind, id_, index, target, retry, attempt_timeout, step_timeout, source, found_after, planned_at, input_ = row[13:24]
    is_wait = kind == StepKind.WAIT_FOR_EVENT
    wait = WaitSpec(*input_.decode().split("\n")) if is_wait and input_ else None
    return Step(
        StepKey(id_, index),
        row[25],
        StepKind(kind),
        target,
        b"" if is_wait else input_,
        load_retry(retry),
        attempt_timeout,
        step_timeout,
        source,
        found_after,
        StepState(state),
        attempt,
        fence,
        "",
        worker,
        planned_at,
        started_at,
        ended_at,
        due_at,
        sequence,
        output,
        load_failure(failure),
        bool(timed_out),
        child,
        event_position,
        wait,
    )
