"""What a run can wait for, as data and as a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from stepwire_core.model import Failure, Now, StepKey

LOST = "WorkerLostError"
LONGEST_QUOTE = 200
"""Characters of a failure's message, or of a match, that a sentence quotes."""


class CauseKind(IntEnum):
    """The kinds of causes, the most telling first; the numbers are the contract's."""

    ENDED = 1
    STORE_FAILING = 2
    STORE_SLOW = 3
    EXECUTOR_DRAINING = 4
    EXECUTOR_BUSY = 5
    LOADING = 6
    NO_WORKER = 7
    NO_TASK_WORKER = 8
    WORKERS_FULL = 9
    NO_SLOT = 10
    BODY_RETRY = 11
    BODY_RUNNING = 12
    STEP_RETRY = 13
    STEP_RUNNING = 14
    CHILD_RUN = 15
    EVENT = 16
    SLEEP = 17
    RUN_TIMEOUT = 18
    WORKER_FULL = 19
    WORKER_DRAINING = 20
    WORKER_LOST = 21
    WORKER_SILENT = 22
    WORKER_BLOCKED = 23
    NO_ROOM = 24


@dataclass(slots=True)
class Cause:
    """One thing that a run waits for; the contract says which fields a kind has. Times are Unix seconds."""

    kind: CauseKind
    step: StepKey | None = None
    step_count: int = 0
    target: str = ""
    worker: str = ""
    workers: int = 0
    slots: int = 0
    slots_taken: int = 0
    runs_ahead: int = 0
    attempt: int = 0
    max_attempts: int = 0
    run_id: str = ""
    since: float | None = None
    due_at: float | None = None
    failure: Failure | None = None
    detail: str = ""
    causes: list[Cause] = field(default_factory=list)


def sentence(cause: Cause, now: Now) -> str:
    """Say a cause in English, with durations and no times of day: who reads it may be in another time zone."""
    return _SENTENCES[cause.kind](cause, now)


def duration(seconds: float) -> str:
    """Write a duration for people: `0.4 s`, `18 s`, `2 m 05 s`, `3 h 12 m`, `5 d 2 h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _ended(cause: Cause, now: Now) -> str:
    why = f": {cause.detail}" if cause.detail else ""
    how = {"succeeded": "has succeeded", "failed": "has failed", "cancelled": "was cancelled"}[cause.target]
    return f"run {cause.run_id} {how}{_ago(cause, now)}{why}{_after(cause, ': ')}"


def _store_failing(cause: Cause, now: Now) -> str:
    return "the executor's store is failing: nothing moves until it is back; the executor's log says why"


def _store_slow(cause: Cause, now: Now) -> str:
    return f"the executor's store is slow: a write is not finished{_for(cause, now)}, and nothing moves before it is"


def _draining(cause: Cause, now: Now) -> str:
    what = f"{_steps(cause)} {_verb(cause, 'wait')}" if cause.step_count else "the body waits"
    return f"{what} for the executor, which is stopping and hands out nothing new until it has started again"


def _busy(cause: Cause, now: Now) -> str:
    return "the executor is overloaded: more is queued than it can take, and everything is decided late"


def _loading(cause: Cause, now: Now) -> str:
    return "the executor is about to take the run up again"


def _no_worker(cause: Cause, now: Now) -> str:
    if cause.workers:
        others = "a worker" if cause.workers == 1 else f"{cause.workers} workers"
        return (
            f"{_waiting(cause)} for a worker of version {cause.detail!r}, which began the run: one may come back soon; "
            f"if none does, {others} of another version will go on with it"
        )
    return f"{_waiting(cause)} for a worker: none serves function {cause.target}{_unserved(cause, now)}"


def _no_task_worker(cause: Cause, now: Now) -> str:
    return f"{_waiting(cause)} for a worker: none has task {cause.target!r}{_unserved(cause, now)}"


def _workers_full(cause: Cause, now: Now) -> str:
    full = f"{_all(cause)}full of live runs ({cause.slots_taken:,} of {cause.slots:,})"
    if cause.slots_taken < cause.slots:
        full = "it is handed out next"
    return f"the body waits for a place: {_serve(cause)}, {full}{_ahead(cause)}"


def _no_slot(cause: Cause, now: Now) -> str:
    if cause.failure is not None and cause.failure.type == LOST:
        return f"{_waiting(cause)} for a worker that runs nothing else, as its workers were lost: {_serve(cause)}"
    if cause.failure is not None:
        raised = f"{cause.failure.type}: {_quoted(cause.failure.message)}"
        return f"{_waiting(cause)} for a slot where the body's lead is: another worker's body raised {raised}"
    full = f"{_all(cause)}full ({cause.slots_taken:,} of {cause.slots:,} slots are taken)"
    if cause.slots_taken < cause.slots:
        full = "and a slot is free"
    return f"{_waiting(cause)} for a slot: {_serve(cause)}, {full}{_ahead(cause)}"


def _body_retry(cause: Cause, now: Now) -> str:
    return f"the body is tried again{_in(cause, now)}{_try(cause)}{_after(cause)}"


def _body_running(cause: Cause, now: Now) -> str:
    if cause.since is None:
        return f"the body waits for nothing more: worker {cause.worker} is about to report its end"
    who = "the body, or the lone step that it may run at once," if cause.detail else "the body"
    return f"{who} has been at work in worker {cause.worker}{_for(cause, now)}"


def _step_retry(cause: Cause, now: Now) -> str:
    if cause.step_count == 1:
        return f"the retry of {_steps(cause)} is due{_in(cause, now)}{_try(cause)}{_after(cause)}"
    return f"{_steps(cause)} wait for their retries, the next{_in(cause, now)}{_try(cause)}{_after(cause)}"


def _step_running(cause: Cause, now: Now) -> str:
    limit = "" if cause.due_at is None else f"; its timeout strikes{_in(cause, now)}"
    if cause.step_count == 1:
        return f"attempt {cause.attempt} of {_steps(cause)} has run in worker {cause.worker}{_for(cause, now)}{limit}"
    longest = "" if cause.since is None else f", the longest for {duration(now.wall - cause.since)}"
    return f"{_steps(cause)} run in worker {cause.worker}{longest}{limit}"


def _child(cause: Cause, now: Now) -> str:
    if cause.step_count == 1:
        return f"{_steps(cause)} waits for run {cause.run_id} of {cause.target}"
    return f"{_steps(cause)} wait for runs of {cause.target} that they invoked"


def _event(cause: Cause, now: Now) -> str:
    match = f" with {_quoted(cause.detail)}" if cause.detail else ""
    which = f"an event {cause.target!r}{match}" if cause.step_count == 1 else f"events {cause.target!r}"
    until = "" if cause.due_at is None else f", at most {duration(cause.due_at - now.wall)} more"
    return f"{_steps(cause)} {_verb(cause, 'wait')} for {which}{until}"


def _sleep(cause: Cause, now: Now) -> str:
    ends = "its end is due" if cause.step_count == 1 else "the next end is due"
    return f"{_steps(cause)} {_verb(cause, 'sleep')}; {ends}{_in(cause, now)}"


def _run_timeout(cause: Cause, now: Now) -> str:
    return f"the run's timeout ends it{_in(cause, now)}"


def _no_room(cause: Cause, now: Now) -> str:
    if not cause.detail:
        return f"{_steps(cause)} {_verb(cause, 'wait')} for the turn to start runs, which comes soon"
    what = "the runs that it starts" if cause.step_count == 1 else "the runs that they start"
    return f"{_steps(cause)} {_verb(cause, 'wait')} for room for {what}: {cause.detail}"


def _worker_full(cause: Cause, now: Now) -> str:
    full = f"worker {cause.worker} has {cause.slots_taken:,} of {cause.slots:,} slots taken"
    if cause.step is None:
        return full
    return f"{full}, the longest by step {cause.step} of run {cause.run_id}{_for(cause, now)}"


def _worker_draining(cause: Cause, now: Now) -> str:
    return f"worker {cause.worker} is draining: it finishes what it has and takes nothing new"


def _worker_lost(cause: Cause, now: Now) -> str:
    return f"the stream of worker {cause.worker} has been lost{_for(cause, now)}; its grace ends{_in(cause, now)}"


def _worker_silent(cause: Cause, now: Now) -> str:
    return f"worker {cause.worker} has sent no heartbeat{_for(cause, now)}"


def _worker_blocked(cause: Cause, now: Now) -> str:
    place = f" at {cause.detail}" if cause.detail else ""
    return f"the loop of worker {cause.worker} has been blocked{_for(cause, now)}{place}"


_SENTENCES: dict[CauseKind, Callable[[Cause, Now], str]] = {
    CauseKind.ENDED: _ended,
    CauseKind.STORE_FAILING: _store_failing,
    CauseKind.STORE_SLOW: _store_slow,
    CauseKind.EXECUTOR_DRAINING: _draining,
    CauseKind.EXECUTOR_BUSY: _busy,
    CauseKind.LOADING: _loading,
    CauseKind.NO_WORKER: _no_worker,
    CauseKind.NO_TASK_WORKER: _no_task_worker,
    CauseKind.WORKERS_FULL: _workers_full,
    CauseKind.NO_SLOT: _no_slot,
    CauseKind.BODY_RETRY: _body_retry,
    CauseKind.BODY_RUNNING: _body_running,
    CauseKind.STEP_RETRY: _step_retry,
    CauseKind.STEP_RUNNING: _step_running,
    CauseKind.CHILD_RUN: _child,
    CauseKind.EVENT: _event,
    CauseKind.SLEEP: _sleep,
    CauseKind.RUN_TIMEOUT: _run_timeout,
    CauseKind.WORKER_FULL: _worker_full,
    CauseKind.WORKER_DRAINING: _worker_draining,
    CauseKind.WORKER_LOST: _worker_lost,
    CauseKind.WORKER_SILENT: _worker_silent,
    CauseKind.WORKER_BLOCKED: _worker_blocked,
    CauseKind.NO_ROOM: _no_room,
}


# Parts of sentences.


def _steps(cause: Cause) -> str:
    if cause.step_count == 1:
        return f"step {cause.step}"
    return f"step {cause.step} and {cause.step_count - 1:,} more"


def _verb(cause: Cause, verb: str) -> str:
    return f"{verb}s" if cause.step_count == 1 else verb


def _waiting(cause: Cause) -> str:
    return f"{_steps(cause)} {_verb(cause, 'wait')}" if cause.step_count else "the body waits"


def _unserved(cause: Cause, now: Now) -> str:
    when = "none has since the executor started" if cause.detail else "the last one went away"
    return f"; {when}{_ago(cause, now)}"


def _serve(cause: Cause) -> str:
    version = f" of version {cause.detail}" if cause.detail else ""
    return f"1 worker{version} serves it" if cause.workers == 1 else f"{cause.workers} workers{version} serve it"


def _all(cause: Cause) -> str:
    return "" if cause.workers == 1 else "all "


def _ahead(cause: Cause) -> str:
    runs = "run has its" if cause.runs_ahead == 1 else "runs have their"
    return f"; {cause.runs_ahead:,} other {runs} turn before" if cause.runs_ahead else ""


def _in(cause: Cause, now: Now) -> str:
    left = (cause.due_at or 0.0) - now.wall
    return f" in {duration(left)}" if left > 0 else " now"


def _for(cause: Cause, now: Now) -> str:
    return "" if cause.since is None else f" for {duration(now.wall - cause.since)}"


def _ago(cause: Cause, now: Now) -> str:
    return "" if cause.since is None else f" {duration(now.wall - cause.since)} ago"


def _try(cause: Cause) -> str:
    return f" (attempt {cause.attempt} of {cause.max_attempts})"


def _after(cause: Cause, how: str = ", after ") -> str:
    return "" if cause.failure is None else f"{how}{cause.failure.type}: {_quoted(cause.failure.message)}"


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_QUOTE else line[: LONGEST_QUOTE - 1] + "…"
