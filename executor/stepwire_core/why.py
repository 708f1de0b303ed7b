"""Why a run does not move: what it waits for, in each of its states. Looks only, and costs O(unfinished steps)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from stepwire_core import placement, retries, starts
from stepwire_core.causes import Cause, CauseKind
from stepwire_core.model import Failure, Now, Run, RunState, Step, StepKind, StepState, WaitSpec
from stepwire_core.state import Invocation, LoadedRun, Session, SessionState, State, pool_of
from stepwire_core.turns import PoolKey

MOST_NAMED = 5
"""How many workers, or invoked runs, are named one by one under one cause."""


def explain(state: State, run: Run, now: Now) -> list[Cause]:
    """Say what a run waits for, the most telling first; never nothing.

    `run` is the one in memory or, if it is in none, the stored one with its unfinished steps in `open`. The causes of
    invoked runs are left for the caller to fill in, who can load them.
    """
    if run.state.ended:
        return [ended(run)]
    loaded = state.runs.get(run.id)
    causes = explain_hot(state, loaded, now) if loaded is not None else explain_asleep(state, run, now)
    causes.sort(key=lambda cause: cause.kind)
    if run.deadline_at is not None:
        causes.append(Cause(CauseKind.RUN_TIMEOUT, due_at=by_day(run.deadline_at, now)))
    return causes


def ended(run: Run) -> Cause:
    """Say how a run has ended."""
    return Cause(
        CauseKind.ENDED,
        target=run.state.name.lower(),
        run_id=run.id,
        since=run.ended_at,
        failure=brief(run.failure) if run.state is RunState.FAILED else None,
        detail=(run.cancel_reason or "no reason given") if run.state is RunState.CANCELLED else "",
    )


def explain_asleep(state: State, run: Run, now: Now) -> list[Cause]:
    """Say what a run waits for that is only in the store."""
    due = run.wake_at is not None and run.wake_at <= now.wall
    if due or any(step.state <= StepState.RUNNING for step in run.open.values()):
        return [Cause(CauseKind.LOADING)]
    causes = body_retry(state, run, now) + explain_steps(state, run, run.open.values(), now)
    return causes or [Cause(CauseKind.LOADING)]


def explain_hot(state: State, loaded: LoadedRun, now: Now) -> list[Cause]:
    """Say what a run in memory waits for."""
    run = loaded.run
    causes = explain_steps(state, run, run.open.values(), now)
    if run.retry_at is not None:
        causes += body_retry(state, run, now)
    elif loaded.lead is None:
        if loaded.replayed_to < len(run.journal) or not run.open:
            causes.append(lacks_lead(state, loaded, now))
    elif loaded.lead.parked and loaded.lead.sent < len(run.journal):
        causes.append(kept_out(state, loaded.lead, now))
    elif not loaded.lead.parked or not run.open:
        causes.append(body_running(state, loaded.lead, now))
    return causes


# The body.


def body_retry(state: State, run: Run, now: Now) -> list[Cause]:
    """Give the wait for the body's next try, if there is one."""
    if run.retry_at is None:
        return []
    function = state.functions.get(run.function_key)
    policy = (function.options.retry if function else None) or retries.DEFAULT
    return [
        Cause(
            CauseKind.BODY_RETRY,
            attempt=run.attempt,
            max_attempts=policy.retries + 1,
            due_at=by_day(run.retry_at, now),
            failure=brief(run.failure),
        )
    ]


def body_running(state: State, lead: Invocation, now: Now) -> Cause:
    """Say where the body is at work; one that has said that it waits for no step is about to end."""
    session = state.sessions[lead.session_id]
    since = None if lead.parked else lead.busy_since
    return Cause(
        CauseKind.BODY_RUNNING,
        worker=session.instance_id,
        since=since,
        detail="it may run a lone step" if lead.eager_fence else "",
        causes=ailments(state, session, now),
    )


def lacks_lead(state: State, loaded: LoadedRun, now: Now) -> Cause:
    """Say why a run that has something to tell its body has no lead."""
    run = loaded.run
    if state.draining:
        return Cause(CauseKind.EXECUTOR_DRAINING)
    serving = placement.sessions_for(state, *run.function_key)
    candidates = placement.of_version(state, serving, run.function_key, run.app_version, now)
    if not candidates:
        return unserved(state, pool_of(run), serving, now)
    fit = placement.unblocked(candidates)
    if (run.id, None) in state.quarantine:
        return alone_first(state, run, fit, chosen_version(serving, candidates), now)
    waiting = state.leaderless.get(pool_of(run)) or ()
    return Cause(
        CauseKind.WORKERS_FULL,
        target=f"{run.app}/{run.function_id}",
        workers=len(fit),
        slots=sum(session.max_invocations for session in fit),
        slots_taken=sum(len(session.invocations) for session in fit),
        runs_ahead=next((place for place, each in enumerate(waiting) if each == run.id), 0),
        detail=chosen_version(serving, candidates),
        causes=left_out(state, candidates, fit, now),
    )


def kept_out(state: State, lead: Invocation, now: Now) -> Cause:
    """Say that a parked body waits until its worker, which does something that must be alone, takes others again."""
    session = state.sessions[lead.session_id]
    return Cause(
        CauseKind.WORKERS_FULL,
        workers=1,
        slots=session.max_invocations,
        slots_taken=session.max_invocations,
        causes=[full(state, session, now)],
    )


def alone_first(state: State, run: Run, sessions: Sequence[Session], version: str, now: Now) -> Cause:
    """Say that a body waits for a worker that does nothing else."""
    return Cause(
        CauseKind.NO_SLOT,
        target=f"{run.app}/{run.function_id}",
        workers=len(sessions),
        slots=sum(session.slots for session in sessions),
        slots_taken=sum(session.slots - max(0, session.free) for session in sessions),
        failure=brief(run.failure),
        detail=version,
        causes=[full(state, session, now) for session in sessions[:MOST_NAMED]],
    )


# Steps.


def explain_steps(state: State, run: Run, steps: Iterable[Step], now: Now) -> list[Cause]:
    """Say what unfinished steps wait for: one cause for all that wait for the same."""
    groups: dict[tuple[object, ...], list[Step]] = {}
    for step in steps:
        groups.setdefault(common(step), []).append(step)
    causes: list[Cause] = []
    for group in groups.values():
        causes += explain_group(state, run, group, now)
    return causes


def common(step: Step) -> tuple[object, ...]:
    """Give what steps have in common that wait for the same thing."""
    match step.state, step.kind:
        case StepState.READY, StepKind.TASK:
            return step.state, step.target
        case StepState.RUNNING, _:
            return step.state, step.session
        case StepState.RETRYING, _:
            return step.state, step.failure.type if step.failure else ""
        case StepState.WAITING, _:
            return step.state, step.kind, step.target, step.kind is StepKind.INVOKE and not step.child_run_id
    return (step.state,)


def explain_group(state: State, run: Run, steps: Sequence[Step], now: Now) -> list[Cause]:
    """Say what steps wait for that have it in common."""
    match steps[0].state, steps[0].kind:
        case StepState.READY, _:
            return explain_ready(state, run, steps, now)
        case StepState.RUNNING, _:
            return [explain_running(state, steps, now)]
        case StepState.RETRYING, _:
            return [explain_retrying(state, run, steps, now)]
        case _, StepKind.SEND_EVENTS:
            return [explain_held(state, run, steps, now)]
        case _, StepKind.INVOKE if not steps[0].child_run_id:
            return [explain_held(state, run, steps, now)]
        case _, StepKind.INVOKE:
            return explain_invoking(steps, now)
        case _, StepKind.WAIT_FOR_EVENT:
            return [explain_waiting(steps, now)]
    first = due_first(steps)
    return [about(CauseKind.SLEEP, first, steps, since=by_day(first.planned_at, now), due_at=first.due_at)]


def explain_ready(state: State, run: Run, steps: Sequence[Step], now: Now) -> list[Cause]:
    """Say why steps are not handed out. Closures whose body is to be tried again wait for that alone."""
    first, pool = steps[0], state.pool(state.runs[run.id], steps[0])
    if run.retry_at is not None and not pool.task:
        return []
    if state.draining:
        return [about(CauseKind.EXECUTOR_DRAINING, first, steps)]
    sessions = placement.sessions_of(state, pool, now)
    serving = sessions if pool.task else placement.sessions_for(state, pool.app, pool.name)
    if not sessions:
        cause = unserved(state, pool, serving, now)
        return [replace(cause, step=first.key, step_count=len(steps))]
    alone = [step for step in steps if (run.id, step.key) in state.quarantine]
    others = [step for step in steps if (run.id, step.key) not in state.quarantine]
    causes = [no_slot(state, run, pool, group, sessions, serving, now) for group in (alone, others) if group]
    if pool.bound:
        causes[-1].failure = brief(state.runs[run.id].bound)
    if alone:
        causes[0].failure = brief(alone[0].failure)
    return causes


def no_slot(
    state: State,
    run: Run,
    pool: PoolKey,
    steps: Sequence[Step],
    sessions: Sequence[Session],
    serving: Sequence[Session],
    now: Now,
) -> Cause:
    """Say what fills the workers that could run steps; `serving` are those of other versions too."""
    able, sessions = sessions, placement.unblocked(sessions)
    home = [session for session in sessions if session.id == pool.home]
    if home and any(session.free > 0 for session in sessions):
        able = sessions = home  # short steps, which are for their lead's worker for the moment
    queues = [state.ready.get(each) for each in (pool, pool._replace(home="", bound=False))]
    return about(
        CauseKind.NO_SLOT,
        steps[0],
        steps,
        target=name_of(pool),
        workers=len(sessions),
        slots=sum(session.slots for session in sessions),
        slots_taken=sum(session.slots - max(0, session.free) for session in sessions),
        runs_ahead=min((queue.ahead(run.id) for queue in queues if queue), default=0),
        since=by_day(steps[0].planned_at, now),
        detail=chosen_version(serving, sessions),
        causes=[full(state, session, now) for session in sessions[:MOST_NAMED]] + left_out(state, able, sessions, now),
    )


def explain_running(state: State, steps: Sequence[Step], now: Now) -> Cause:
    """Say where steps run, and what keeps their worker."""
    oldest = min(steps, key=lambda step: step.started_at or 0.0)
    session = state.sessions.get(oldest.session)
    ends = [step_end(oldest, now)]
    if oldest.attempt_timeout is not None and oldest.started_at is not None:
        ends.append(oldest.started_at + oldest.attempt_timeout)
    return about(
        CauseKind.STEP_RUNNING,
        oldest,
        steps,
        worker=oldest.worker,
        attempt=oldest.attempt,
        since=oldest.started_at,
        due_at=min((end for end in ends if end is not None), default=None),
        causes=ailments(state, session, now) if session else [],
    )


def explain_retrying(state: State, run: Run, steps: Sequence[Step], now: Now) -> Cause:
    """Say when steps are tried again, and after what."""
    first = due_first(steps)
    function = state.functions.get(run.function_key)
    policy = first.retry or (function.options.retry if function else None) or retries.DEFAULT
    return about(
        CauseKind.STEP_RETRY,
        first,
        steps,
        attempt=first.attempt + 1,
        max_attempts=policy.retries + 1,
        due_at=by_day(first.due_at, now),
        failure=brief(first.failure),
    )


def explain_invoking(steps: Sequence[Step], now: Now) -> list[Cause]:
    """Name the first runs that steps have invoked, and count the others."""
    named = [
        about(
            CauseKind.CHILD_RUN,
            step,
            [step],
            target=step.target,
            run_id=step.child_run_id,
            since=by_day(step.planned_at, now),
            due_at=step_end(step, now),
        )
        for step in steps[:MOST_NAMED]
    ]
    others = steps[MOST_NAMED:]
    if others:
        first = others[0]
        named.append(
            about(CauseKind.CHILD_RUN, first, others, target=first.target, since=by_day(first.planned_at, now))
        )
    return named


def explain_held(state: State, run: Run, steps: Sequence[Step], now: Now) -> Cause:
    """Say that steps wait for room for the runs that they start, and which functions nobody serves that keep it."""
    first = steps[0]
    held = state.held.get(run.id, first.key)
    return about(
        CauseKind.NO_ROOM,
        first,
        steps,
        target=first.target,
        since=by_day(first.planned_at, now),
        detail=starts.lacking_room(state, held) if held is not None else "",
        causes=[
            unserved(state, pool, [], now)
            for pool in islice(unserved_pools(state, held.apps if held is not None else (), now), MOST_NAMED)
        ],
    )


def unserved_pools(state: State, apps: Collection[str], now: Now) -> Iterator[PoolKey]:
    """Give the functions of some apps of which runs wait for their first body, and that no worker serves."""
    for app in sorted(apps):
        yield from (pool for pool in state.leaderless.peek(app) if not placement.sessions_of(state, pool, now))


def explain_waiting(steps: Sequence[Step], now: Now) -> Cause:
    """Say for which event steps wait, and until when."""
    first = due_first(steps)
    paths, values = first.wait or WaitSpec()
    match = dict(zip(json.loads(paths), json.loads(values), strict=True))
    return about(
        CauseKind.EVENT,
        first,
        steps,
        target=first.target,
        since=by_day(first.planned_at, now),
        due_at=by_day(first.due_at, now),
        detail=json.dumps(match, ensure_ascii=False) if match and len(steps) == 1 else "",
    )


# Workers.


def unserved(state: State, pool: PoolKey, others: Sequence[Session], now: Now) -> Cause:
    """Say that no worker can run what a pool holds, since when, and who might come back.

    `others` are of another app version than the run: they go on with it if none of its own comes back.
    """
    if pool.task:
        tasks = state.tasks_last_served.get(pool.app)
        since = tasks.get(pool.name) if tasks is not None else None
    else:
        since = state.last_served.get((pool.app, pool.name))
    away = [
        session
        for session in state.sessions_in.get(pool.app, {}).values()
        if pool.name in (session.tasks if pool.task else session.functions)
    ]
    return Cause(
        CauseKind.NO_TASK_WORKER if pool.task else CauseKind.NO_WORKER,
        target=name_of(pool),
        workers=len(others),
        since=state.began.wall if since is None else since,
        detail=pool.version if others else "since the executor started" if since is None else "",
        causes=[cause for session in away[:MOST_NAMED] for cause in ailments(state, session, now)],
    )


def left_out(state: State, able: Sequence[Session], chosen: Sequence[Session], now: Now) -> list[Cause]:
    """Say what is wrong with workers that could take something, but for the moment are given nothing."""
    others = [session for session in able if session not in chosen]
    return [cause for session in others[:MOST_NAMED] for cause in ailments(state, session, now)]


def full(state: State, session: Session, now: Now) -> Cause:
    """Say what takes the slots of a worker."""
    fence = next(iter(session.attempts), 0)
    run_id, key = session.attempts.get(fence, ("", None))
    at = state.step(run_id, key) if key is not None else None
    return Cause(
        CauseKind.WORKER_FULL,
        step=key,
        worker=session.instance_id,
        slots=session.slots,
        slots_taken=session.slots - max(0, session.free),
        run_id=run_id,
        since=at[1].started_at if at else None,
        causes=ailments(state, session, now),
    )


def ailments(state: State, session: Session, now: Now) -> list[Cause]:
    """Say what is wrong with a worker; nothing if all is well."""
    worker = session.instance_id
    quiet = now.mono - session.last_seen
    if session.state is SessionState.LOST:
        due_at = now.wall + state.limits.session_grace - quiet
        lost = [Cause(CauseKind.WORKER_LOST, worker=worker, since=now.wall - quiet, due_at=due_at)]
        return [*lost, Cause(CauseKind.WORKER_DRAINING, worker=worker)] if session.draining else lost
    causes = []
    if session.state is SessionState.DRAINING:
        causes.append(Cause(CauseKind.WORKER_DRAINING, worker=worker))
    if quiet > state.limits.heartbeat_interval:
        causes.append(Cause(CauseKind.WORKER_SILENT, worker=worker, since=now.wall - quiet))
    if session.lag:
        since = now.wall - quiet - session.loop_lag
        place = place_in(session.blocking_stack)
        causes.append(Cause(CauseKind.WORKER_BLOCKED, worker=worker, since=since, detail=place))
    return causes


def place_in(stack: str) -> str:
    """Give the innermost place of a stack as Python writes it, in a line; of another the last line."""
    lines = [line.strip() for line in stack.splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ")]
    return (places or lines or [""])[-1]


# Small things.


def about(kind: CauseKind, first: Step, steps: Sequence[Step], **fields: object) -> Cause:
    """Make a cause for steps, of which one is named."""
    return Cause(kind, step=first.key, step_count=len(steps), **fields)  # type: ignore[arg-type]


def due_first(steps: Sequence[Step]) -> Step:
    """Give the step that is due first."""
    return min(steps, key=lambda step: step.due_at or 0.0)


def step_end(step: Step, now: Now) -> float | None:
    """Give the time at which a step's own timeout ends it, if it has one."""
    return None if step.step_timeout is None else by_day(step.planned_at + step.step_timeout, now)


def by_day(steady: float | None, now: Now) -> float | None:
    """Give the time of day of what was noted in steady time, as all but the end of a sleep is; see `Now`."""
    return None if steady is None else steady + now.moved


def name_of(pool: PoolKey) -> str:
    """Write what a pool wants of a worker."""
    return pool.name if pool.task else f"{pool.app}/{pool.name}"


def chosen_version(serving: Sequence[Session], chosen: Sequence[Session]) -> str:
    """Give the app version of those that were chosen, if there are others."""
    return chosen[0].app_version if len(chosen) < len(serving) else ""


def brief(failure: Failure | None) -> Failure | None:
    """Give a failure without its stack, causes and details."""
    return Failure(failure.type, failure.message, retryable=failure.retryable) if failure else None
