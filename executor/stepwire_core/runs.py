"""Where runs begin and end: events create them, and outcomes, cancellations and timeouts finish them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from stepwire_core import authorization, ids, retries, trace
from stepwire_core.commands import (
    Answer,
    AttemptClosed,
    BodyRetried,
    CancelRun,
    EventConflict,
    FindWaits,
    FollowUp,
    Receipt,
    RunEnded,
)
from stepwire_core.inputs import ChildEnded, EventsSent, RunCancelled, RunFailed, RunFinished
from stepwire_core.model import (
    INVOKED_EVENT,
    Event,
    EventKey,
    Failure,
    Function,
    Now,
    Run,
    RunState,
    Step,
    StepKind,
    StepState,
)
from stepwire_core.state import Invocation, LoadedRun, State, pool_of
from stepwire_core.timer_queue import TimerKind
from stepwire_core.transitions import RunEvent, free_slot, move_run
from stepwire_core.turn import Turn


def on_events_sent(turn: Turn, sent: EventsSent) -> Iterator[int]:
    """Take a client's events: all or, when an id was used before for something else, none. In pieces, see `decide`."""
    conflict = conflicting(turn.state, sent.events, sent.known)
    if conflict is not None:
        turn.send(Answer(sent.reply, conflict))
        return
    receipts = []
    for event in sent.events:
        key = event.key
        before = turn.state.recent(key) or sent.known.get(key)
        taken = before or take_event(turn, event)
        receipts.append(Receipt(event.id, taken.run_ids, before is not None))
        yield 1 + len(taken.run_ids)
    turn.send(Answer(sent.reply, receipts))


def conflicting(state: State, events: Sequence[Event], known: Mapping[EventKey, Event]) -> EventConflict | None:
    """Find the first of these events whose id was used for another one, before or among themselves."""
    among: dict[EventKey, Event] = {}
    for index, event in enumerate(events):
        key = event.key
        before = state.recent(key) or known.get(key)
        if (before or among.setdefault(key, event)).digest != event.digest:
            return EventConflict(index, event.id, among=before is None)
    return None


def take_event(turn: Turn, event: Event) -> Event:
    """Record a new event and create a run for each function that it triggers."""
    state, now, decision = turn.state, turn.now, turn.decision
    state.position += 1
    functions = state.triggered(event)
    run_ids = tuple(ids.run_id(state.secret, now.wall, state.position, *function.key) for function in functions)
    event = replace(event, position=state.position, received_at=now.wall, run_ids=run_ids)
    decision.recent[event.key] = event
    decision.writes.events.append(event)
    turn.send(FindWaits(event))
    for function, run_id in zip(functions, run_ids, strict=True):
        create(turn, Run(run_id, *function.key, function.app_version, event, now.wall), function)
    return event


def create(turn: Turn, run: Run, function: Function) -> None:
    """Put a new run in."""
    state = turn.state
    if function.options.run_timeout is not None:
        run.deadline_at = turn.now.steady + function.options.run_timeout
        turn.after(function.options.run_timeout, TimerKind.RUN_TIMEOUT, run.id)
    loaded = state.runs[run.id] = LoadedRun(run)
    state.queued.add(run)
    turn.decision.writes.new_runs[run.id] = run
    turn.decision.changed_runs.add(run.id)
    want_lead(state, loaded)


def create_child(turn: Turn, parent: Run, step: Step, function: Function) -> None:
    """Create the run that an invoke step asks for, with an event of its own that triggers nothing else."""
    state, now = turn.state, turn.now
    state.position += 1
    run_id = ids.run_id(state.secret, now.wall, state.position, *function.key)
    context = trace.attempt_traceparent(parent, step.fence)
    event = Event(f"invoke-{run_id}", INVOKED_EVENT, step.input, now.wall, context, parent.event.tracestate)
    event = replace(event, position=state.position, received_at=now.wall, run_ids=(run_id,), apps=(function.app,))
    turn.decision.writes.events.append(event)
    child = Run(run_id, *function.key, function.app_version, event, now.wall)
    child.parent_run_id, child.parent_key, child.depth = parent.id, step.key, parent.depth + 1
    step.child_run_id = run_id
    create(turn, child, function)


def want_lead(state: State, loaded: LoadedRun) -> None:
    """Queue a run for an invocation if it has something to tell its body and no lead to tell it to."""
    run = loaded.run
    if loaded.lead is None and run.retry_at is None and loaded.has_news:
        if state.suspects_body(loaded):
            state.quarantine[run.id, None] = pool_of(run)
        else:
            state.leaderless.at(pool_of(run))[run.id] = None


def on_run_cancelled(turn: Turn, cancelled: RunCancelled) -> None:
    """Cancel a run. The answer says whether there was an unfinished one."""
    loaded = turn.state.runs.get(cancelled.run_id)
    if loaded is not None:
        loaded.run.cancel_reason = cancelled.reason
        reason = cancelled.reason or "no reason given"
        failure = Failure("RunCancelledError", f"run {loaded.run.id} was cancelled: {reason}", retryable=False)
        end(turn, loaded, RunEvent.CANCELLED, failure=failure)
    if cancelled.reply is not None:
        turn.send(Answer(cancelled.reply, loaded is not None))


def on_run_finished(turn: Turn, returned: RunFinished) -> None:
    """Finish a run whose body has returned."""
    loaded = turn.state.runs.get(returned.run_id)
    lead = loaded.lead if loaded else None
    ours = lead is not None and lead.fence == returned.invocation and lead.session_id == returned.session_id
    if loaded is None or not ours:
        authorization.invocation_is_foreign(turn, returned.session_id, returned.run_id, returned.invocation)
        return
    limit = turn.state.limits.max_output_bytes
    if returned.output_bytes > limit:
        message = f"run {loaded.run.id} returned {returned.output_bytes} bytes, over --max-output-bytes={limit}"
        failure = Failure("OutputTooLargeError", f"{message}: return less, or a reference to it", retryable=False)
        end(turn, loaded, RunEvent.FAILED, failure=failure)
    else:
        end(turn, loaded, RunEvent.SUCCEEDED, output=returned.output)


def fail_body(turn: Turn, failed: RunFailed) -> None:
    """Try a body again that has raised, or fail its run."""
    state = turn.state
    loaded = state.runs.get(failed.run_id)
    session = state.sessions.get(failed.session_id)
    invocation = session.invocations.get(failed.run_id) if session else None
    if loaded is None or session is None or invocation is None or invocation.fence != failed.invocation:
        authorization.invocation_is_foreign(turn, failed.session_id, failed.run_id, failed.invocation)
        return
    run = loaded.run
    delay = retries.delay(state, run, failed.failure)
    if delay is None:
        end(turn, loaded, RunEvent.FAILED, failure=failed.failure)
        return
    for other in (loaded.lead, *loaded.replicas.values()):
        if other is not None:
            forget(state, other)
    turn.observe(BodyRetried(run, run.attempt, session.instance_id, failed.failure, delay))
    run.attempt += 1
    run.failure = failed.failure
    run.retry_at = turn.now.steady + delay
    loaded.replayed_to, loaded.bound = -1, None
    turn.after(delay, TimerKind.BODY_RETRY, run.id, fence=run.attempt)
    turn.changed(run)


def forget(state: State, invocation: Invocation) -> None:
    """Drop what is known of an invocation, without a word to its worker."""
    session = state.sessions.get(invocation.session_id)
    if session is not None and session.invocations.get(invocation.run_id) is invocation:
        del session.invocations[invocation.run_id]
        if session.guest is invocation:
            session.guest = None
    free_slot(session, invocation)
    loaded = state.runs.get(invocation.run_id)
    if loaded is not None:
        if loaded.lead is invocation:
            loaded.lead = None
            state.idle_candidates[invocation.run_id] = None
        elif loaded.replicas.get(invocation.session_id) is invocation:
            del loaded.replicas[invocation.session_id]


def fail(turn: Turn, loaded: LoadedRun, failure: Failure) -> None:
    """End a run with a failure of the system's own finding."""
    end(turn, loaded, RunEvent.FAILED, failure=failure, by_body=False)


def end(
    turn: Turn,
    loaded: LoadedRun,
    event: RunEvent,
    *,
    output: bytes | None = None,
    failure: Failure | None = None,
    by_body: bool = True,
) -> None:
    """End a run: give up its unfinished steps, stop what runs of it, and tell its parent.

    `by_body` says whether the lead knows of a failure already.
    """
    run = loaded.run
    move_run(run, event)
    run.ended_at, run.wake_at, run.retry_at = turn.now.wall, None, None
    run.output, run.failure = output, failure
    turn.changed(run)
    reason = run.cancel_reason or f"the run has {run.state.name.lower()}"
    told = {invocation.session_id for invocation in loaded.replicas.values()}
    if loaded.lead is not None and run.state is not RunState.SUCCEEDED:
        told.add(loaded.lead.session_id)
    for step in run.open.values():
        if step.state is StepState.RUNNING:
            told.add(step.session)
        detach_step(turn, loaded, step, reason)
    for session_id in sorted(told):
        turn.cancel(CancelRun(session_id, run.id, reason, None if by_body else failure))
    for invocation in (loaded.lead, *list(loaded.replicas.values())):
        if invocation is not None:
            forget(turn.state, invocation)
    if run.parent_key is not None:
        ended = ChildEnded(run.parent_run_id, run.parent_key, run.state, output, failure, run.id)
        turn.send(FollowUp(ended))
    turn.observe(RunEnded(run))
    unload(turn, loaded)


def detach_step(turn: Turn, loaded: LoadedRun, step: Step, reason: str) -> None:
    """Let go of whatever an unfinished step holds outside of its run. Its own state stays as it is."""
    run = loaded.run
    if step.state is StepState.RUNNING:
        session = turn.state.sessions.get(step.session)
        if session is not None:
            session.attempts.pop(step.fence, None)
        turn.observe(closed(run, step, turn.now, "cancelled"))
    elif step.kind is StepKind.INVOKE and step.child_run_id:
        turn.send(FollowUp(RunCancelled(step.child_run_id, f"its parent gave it up: {reason}")))
    elif step.wait is not None:
        loaded.known_waits().drop(step)
        turn.decision.writes.end_wait(run.id, step.key)
    elif step.kind in (StepKind.INVOKE, StepKind.SEND_EVENTS):
        turn.state.held.drop(run.id, step.key)


def closed(
    run: Run, step: Step, now: Now, outcome: str, failure: Failure | None = None, retry_in: float | None = None
) -> AttemptClosed:
    """Describe the end of a step's newest attempt for observers."""
    started = step.started_at if step.started_at is not None else step.planned_at
    queued = max(0.0, started - step.planned_at)
    ended = max(started, now.wall)
    return AttemptClosed(
        run, step, step.attempt, step.fence, step.worker, started, ended, queued, now.mono, outcome, failure, retry_in
    )


def unload(turn: Turn, loaded: LoadedRun) -> None:
    """Take a run out of memory."""
    state = turn.state
    run = loaded.run
    if run.state.ended:
        state.faults.pop(run.id, None)
    state.queued.drop(run.id)
    state.held.drop_run(run.id)
    state.undelivered.pop(run.id, None)
    state.idle_candidates.pop(run.id, None)
    state.quarantine.pop((run.id, None), None)
    state.idle.pop(run.id, None)
    leaderless = state.leaderless.get(pool_of(run))
    if leaderless is not None:
        leaderless.pop(run.id, None)
    del state.runs[run.id]  # now that nothing refers to it: what raises before this has it taken out once more
    state.forget_timers(len(run.open) + 1)
    turn.decision.unloaded.append(run)
