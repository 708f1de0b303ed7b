"""Where steps change: planned, recorded, failed, retried, cancelled. `NEXT` is the table of what can follow what."""

from __future__ import annotations

from dataclasses import replace

from stepwire_executor.core import divergence, eager, rights, runs, suspects, trace
from stepwire_executor.core.commands import AttemptIssued, CancelAttempt, Decision, Recorded, Refused, Wait
from stepwire_executor.core.inputs import (
    AttemptRef,
    ChildEnded,
    NewStep,
    StepFailed,
    StepsCancelled,
    StepsFound,
    StepSucceeded,
)
from stepwire_executor.core.model import FailedAttempt, Failure, Now, RunState, Step, StepKind, StepState, size
from stepwire_executor.core.state import HotRun, Invocation, Session, State
from stepwire_executor.core.waits import MOST_PATHS, criterion

READY, RUNNING, WAITING, RETRYING = StepState.READY, StepState.RUNNING, StepState.WAITING, StepState.RETRYING
SUCCEEDED, FAILED, CANCELLED = StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED

NEXT = {
    READY: {RUNNING, FAILED, CANCELLED},
    RUNNING: {READY, RETRYING, SUCCEEDED, FAILED, CANCELLED},
    WAITING: {SUCCEEDED, FAILED, CANCELLED},
    RETRYING: {READY, RUNNING, FAILED, CANCELLED},
    SUCCEEDED: set[StepState](),
    FAILED: set[StepState](),
    CANCELLED: set[StepState](),
}
"""RETRYING to RUNNING: a worker comes back with an attempt that an earlier life of the executor had issued. What was
CANCELLED can be planned anew, see `revive`."""


def move(state: State, hot: HotRun, step: Step, to: StepState, decision: Decision) -> None:
    """Change a step's state and have its row written."""
    assert to in NEXT[step.state], f"{step.key}: {step.state.name} to {to.name}"
    hot.busy += (to <= RUNNING) - (step.state <= RUNNING)
    step.state = to
    written(state, hot, step, decision)


def written(state: State, hot: HotRun, step: Step, decision: Decision) -> None:
    """Have a step's row written."""
    row = (hot.run.id, step.number)
    if row not in decision.writes.new_steps:
        decision.writes.steps[row] = step
    decision.changed_runs.add(hot.run.id)
    state.settling[hot.run.id] = None


def found(state: State, report: StepsFound, now: Now, decision: Decision) -> None:
    """Plan what a lead has found, and note that it has run dry."""
    hot = state.runs.get(report.run_id)
    lead = hot.lead if hot else None
    ours = lead is not None and lead.fence == report.invocation and lead.session_id == report.session_id
    if hot is None or lead is None or not ours:
        rights.invocation_is_foreign(state, report.session_id, report.run_id, report.invocation, decision)
        return
    if report.sequence > lead.sent:
        what = f"invocation {lead.fence} of run {hot.run.id} has run dry after entry {report.sequence}, but was given"
        rights.end(state.sessions[lead.session_id], rights.UNASKED, f"{what} only {lead.sent}", decision)
        return
    for new in report.steps:
        plan(state, hot, lead, new, report, now, decision)
        if hot.run.state.ended:
            return
    hot.begun = None
    if report.quiescent:
        settle_lead(state, hot, lead, report.sequence)
    decision.changed_runs.add(hot.run.id)


def settle_lead(state: State, hot: HotRun, lead: Invocation, sequence: int) -> None:
    """Note up to where a lead has run dry; a slot that was kept for an eager step is free again."""
    lead.reported = max(lead.reported, sequence)
    hot.settled = max(hot.settled, sequence)
    session = state.sessions[lead.session_id]
    if lead.eager_fence and lead.parked:
        session.reserved -= 1
        lead.eager_fence = 0
    if session.guest is lead and lead.parked:
        session.guest = None
        suspects.enqueue_closures(state, hot)
    state.settling[hot.run.id] = None


def plan(
    state: State, hot: HotRun, lead: Invocation, new: NewStep, report: StepsFound, now: Now, decision: Decision
) -> None:
    """Plan one step, unless it is known already."""
    run, limits = hot.run, state.limits
    target = f"{run.app}{new.target}" if new.kind is StepKind.INVOKE and new.target.startswith("/") else new.target
    known = run.steps.get(new.key)
    if known is not None:
        if known.kind is not new.kind or known.target != target:
            failure = divergence.found_another(run.id, known, new, target)
            runs.fail(state, hot, failure, now, decision)
        elif known.state is CANCELLED:
            revive(state, hot, known, report, now, decision)
            begin(state, hot, lead, known, new, report, now, decision)
        else:
            eager.decline(state, lead, new, decision)
        return
    id_bytes = len(new.key.id.encode())
    if not 0 < id_bytes <= limits.max_step_id_bytes:
        message = f"run {run.id} found a step with an id of {id_bytes} bytes at {new.source or 'an unknown place'}"
        advice = f"ids have 1 to {limits.max_step_id_bytes} (--max-step-id-bytes)"
        failure = Failure("InvalidStepError", f"{message}; {advice}", retryable=False)
        runs.fail(state, hot, failure, now, decision)
        return
    if len(run.steps) >= limits.max_steps:
        message = f"run {run.id} found step {len(run.steps) + 1}, over --max-steps={limits.max_steps}"
        advice = "split the work over several runs with step.invoke, or raise the limit"
        runs.fail(state, hot, Failure("TooManyStepsError", f"{message}: {advice}", retryable=False), now, decision)
        return
    step = Step(
        new.key,
        len(run.steps) + 1,
        new.kind,
        target,
        new.input,
        new.retry,
        new.attempt_timeout,
        new.step_timeout,
        new.source,
        report.sequence,
        planned_at=now.steady,
    )
    run.steps[step.key] = run.open[step.key] = step
    decision.writes.new_steps[run.id, step.number] = step
    begin(state, hot, lead, step, new, report, now, decision)


def revive(state: State, hot: HotRun, step: Step, report: StepsFound, now: Now, decision: Decision) -> None:
    """Plan a cancelled step again: a body that is tried again may want what it gave up the time before."""
    step.state, step.planned_at, step.started_at, step.ended_at = READY, now.steady, None, None
    step.found_after, step.failure, step.attempt = report.sequence, None, 0
    hot.run.open[step.key] = step
    written(state, hot, step, decision)


def begin(
    state: State,
    hot: HotRun,
    lead: Invocation,
    step: Step,
    new: NewStep,
    report: StepsFound,
    now: Now,
    decision: Decision,
) -> None:
    """Set a planned step going."""
    if step.kind in (StepKind.CLOSURE, StepKind.TASK):
        hot.busy += 1
    else:
        step.state = WAITING
        step.fence = state.next_fence()
    if step.step_timeout is not None:
        state.after(now, step.step_timeout, "step", hot.run.id, step.key)
    if new.fault is not None:
        record(state, hot, step, now, decision, failure=new.fault)
        return
    begun = eager.claim(state, hot, lead, step, new, report) if new.eager_fence or hot.begun is not None else None
    if begun is not None:
        issue(state, hot, step, begun.session, begun.fence, now, decision)
        if eager.is_lost(state, begun):
            fail_attempt(state, hot, step, suspects.loss(begun.session, step), "lost", now, decision)
        return
    match step.kind:
        case StepKind.CLOSURE | StepKind.TASK:
            step.fence = state.next_fence()  # a lead may have begun it in an earlier life of the executor
            suspects.enqueue(state, hot, step)
        case StepKind.SLEEP:
            sleep(state, hot, step, new, now, decision)
        case StepKind.WAIT_FOR_EVENT:
            wait(state, hot, step, new, now, decision)
        case StepKind.INVOKE:
            invoke(state, hot, step, now, decision)
        case StepKind.SEND_EVENTS:
            send(state, hot, step, new, report, now, decision)


def sleep(state: State, hot: HotRun, step: Step, new: NewStep, now: Now, decision: Decision) -> None:
    """Wait for a time of day."""
    step.due_at = new.due_at if new.due_at is not None else now.wall + (new.delay or 0.0)
    if step.due_at <= now.wall:
        record(state, hot, step, now, decision, output=b"")
    else:
        state.at_wall(step.due_at, "sleep", hot.run.id, step.key)
        state.settling[hot.run.id] = None


def wait(state: State, hot: HotRun, step: Step, new: NewStep, now: Now, decision: Decision) -> None:
    """Wait for an event; one may have come already since the run began. See `matches`."""
    if not hot.known_waits().has_room(step):
        message = (
            f"step {step.key} waits for {step.target!r}, but the run's waits for it compare {MOST_PATHS} different "
            f"sets of fields already, and no more are allowed: have more of them compare the same fields"
        )
        failure = Failure("TooManyWaitFieldsError", message, retryable=False)
        record(state, hot, step, now, decision, failure=failure)
        return
    delay = new.delay if new.delay is not None else state.limits.max_sleep
    step.due_at = now.steady + delay
    state.after(now, delay, "wait", hot.run.id, step.key)
    paths, match = criterion(step)
    row = Wait(step.target, paths, match, hot.run.id, step.key, hot.run.event.position, hot.run.app)
    decision.writes.begin_wait(row)
    seek_event(state, hot, step)


def seek_event(state: State, hot: HotRun, step: Step) -> None:
    """Have events looked up that a wait may have missed."""
    hot.known_waits().seek(step)
    state.seeking[hot.run.id, step.target] = None


def invoke(state: State, hot: HotRun, step: Step, now: Now, decision: Decision) -> None:
    """Start a run of another function."""
    app, _, function_id = step.target.partition("/")
    function = state.functions.get((app, function_id))
    limit = state.limits.max_invoke_depth
    if function is None:
        message = f"step {step.key} invokes {step.target}, which no worker has registered: start one that serves it"
        failure = Failure("FunctionNotFoundError", message, retryable=False)
        record(state, hot, step, now, decision, failure=failure)
    elif hot.run.depth >= limit:
        message = f"step {step.key} invokes {step.target} {limit + 1} runs deep, over --max-invoke-depth={limit}"
        failure = Failure("InvokeDepthError", f"{message}: functions invoke each other in a circle?", retryable=False)
        record(state, hot, step, now, decision, failure=failure)
    else:
        runs.create_child(state, hot.run, step, function, now, decision)
        state.settling[hot.run.id] = None


def send(state: State, hot: HotRun, step: Step, new: NewStep, report: StepsFound, now: Now, decision: Decision) -> None:
    """Send events, once: they are written together with the step's result."""
    conflict = runs.conflicting(state, new.events, report.known)
    if conflict is not None:
        message = f"step {step.key} sends nothing: {conflict.reason}: give each event its own id"
        record(state, hot, step, now, decision, failure=Failure("EventConflictError", message, retryable=False))
        return
    context = trace.attempt_traceparent(hot.run, step.fence)
    for event in new.events:
        if state.recent(event.key) is None and event.key not in report.known:
            runs.take_event(state, replace(event, traceparent=event.traceparent or context), now, decision)
    record(state, hot, step, now, decision, output=new.output)


def issue(state: State, hot: HotRun, step: Step, session: Session, fence: int, now: Now, decision: Decision) -> None:
    """Note that an attempt runs in a worker. Not written: a restart forgets it, and its fence tells it apart."""
    assert RUNNING in NEXT[step.state]
    hot.busy += step.state is RETRYING
    step.state = RUNNING
    step.fence = fence
    step.attempt += 1
    step.session, step.worker = session.id, session.instance_id
    step.started_at, step.due_at = now.wall, None
    session.attempts[fence] = (hot.run.id, step.key)
    decision.changed_runs.add(hot.run.id)
    decision.observations.append(
        AttemptIssued(
            hot.run.id, step.key, step.attempt, fence, step.worker, session.id, step.attempt_timeout, now.mono
        )
    )
    if step.attempt_timeout is not None:
        state.after(now, step.attempt_timeout, "attempt", hot.run.id, step.key, fence)


def release(state: State, step: Step) -> int:
    """End the newest attempt's hold on its slot, and make its fence stale; returns the fence that it had."""
    session = state.sessions.get(step.session)
    if session is not None:
        session.attempts.pop(step.fence, None)
    fence, step.fence, step.session = step.fence, state.next_fence(), ""
    return fence


def accept(state: State, report: StepSucceeded | StepFailed, decision: Decision) -> tuple[HotRun, Step] | None:
    """Find the step whose running attempt a report is of; answer a report that comes too late."""
    at = state.step(report.run_id, report.key)
    if at is not None:
        step = at[1]
        if step.state is RUNNING and step.fence == report.fence and step.session == report.session_id:
            return at
    attempt = AttemptRef(report.run_id, report.key, report.fence)
    if rights.attempt_is_foreign(state, report.session_id, attempt, decision):
        return None
    if at is not None:
        step = at[1]
        current = 0 if step.state.ended else step.fence
        reason = "the step has ended" if step.state.ended else f"stale attempt {report.fence}, current {step.fence}"
    else:
        current, reason = 0, "its run has ended, or the step is unknown"
    decision.commands.append(Refused(report.session_id, attempt, current, reason))
    return None


def succeeded(state: State, report: StepSucceeded, now: Now, decision: Decision) -> None:
    """Record an attempt's output."""
    at = accept(state, report, decision)
    if at is None:
        return
    hot, step = at
    step.started_at = max(now.wall - report.elapsed, step.started_at or 0.0)
    limit = state.limits.max_output_bytes
    if report.output_bytes > limit:
        message = f"step {step.key} returned {report.output_bytes} bytes, over --max-output-bytes={limit}"
        advice = "return less, or a reference to it"
        failure = Failure("OutputTooLargeError", f"{message}: {advice}", retryable=False)
        fail_attempt(state, hot, step, failure, "failed", now, decision)
    else:
        decision.observations.append(runs.closed(hot.run, step, now, "succeeded"))
        state.sessions[step.session].attempts.pop(step.fence, None)
        if step.kind is StepKind.CLOSURE and report.elapsed > 0:  # a worker may not say it
            state.took(hot.run.function_key, report.elapsed)
        record(state, hot, step, now, decision, output=report.output)
    attempt = AttemptRef(report.run_id, report.key, report.fence)
    decision.commands.append(Recorded(report.session_id, attempt))


def failed(state: State, report: StepFailed, now: Now, decision: Decision) -> None:
    """Take an attempt's failure."""
    at = accept(state, report, decision)
    if at is not None:
        hot, step = at
        step.started_at = max(now.wall - report.elapsed, step.started_at or 0.0)
        retried = fail_attempt(state, hot, step, report.failure, "failed", now, decision)
        attempt = AttemptRef(report.run_id, report.key, report.fence)
        decision.commands.append(Recorded(report.session_id, attempt, failed=not retried))


def fail_attempt(
    state: State, hot: HotRun, step: Step, failure: Failure, outcome: str, now: Now, decision: Decision
) -> bool:
    """End a running attempt with a failure, and plan the next one if the policy has one left: says whether it has."""
    run = hot.run
    delay = runs.retry_delay(state, run, failure, step)
    decision.observations.append(runs.closed(run, step, now, outcome, failure, delay))
    started = step.started_at or now.wall
    worker = step.worker
    fence = release(state, step)
    row = FailedAttempt(run.id, step.number, step.attempt, fence, worker, started, now.wall, failure)
    decision.writes.failed_attempts.append(row)
    if delay is None:
        step.fence = fence  # of the attempt that brought this result: its span is what later steps link to
        record(state, hot, step, now, decision, failure=failure)
        return False
    step.failure = failure
    step.due_at = now.steady + delay
    move(state, hot, step, RETRYING, decision)
    state.after(now, delay, "retry", run.id, step.key, step.fence)
    return True


def give_back(state: State, hot: HotRun, step: Step, now: Now, decision: Decision) -> None:
    """Take back a running attempt that was not the step's fault; it is not counted."""
    decision.observations.append(runs.closed(hot.run, step, now, "returned"))
    release(state, step)
    step.attempt -= 1
    step.started_at = None
    move(state, hot, step, READY, decision)
    suspects.enqueue(state, hot, step, first=True)


def record(
    state: State,
    hot: HotRun,
    step: Step,
    now: Now,
    decision: Decision,
    *,
    output: bytes | None = None,
    failure: Failure | None = None,
    timed_out: bool = False,
) -> None:
    """Write a step's result into its run's journal, for good."""
    run = hot.run
    step.output, step.failure, step.timed_out = output, failure, timed_out
    step.ended_at = now.wall
    step.sequence = len(run.journal) + 1
    if step.kind not in (StepKind.CLOSURE, StepKind.TASK):
        decision.observations.append(runs.closed(run, step, now, "failed" if failure else "succeeded", failure))
        if step.kind is StepKind.WAIT_FOR_EVENT:
            hot.known_waits().drop(step)
            decision.writes.end_wait(run.id, step.key)
    elif step.state is not RUNNING:
        step.fence = 0  # no attempt brought this result: there is no span of it
    move(state, hot, step, FAILED if failure else SUCCEEDED, decision)
    run.journal.append(step)
    hot.recorded_in = decision.number
    decision.recorded.append((run.id, step))
    run.journal_bytes += size(step)
    state.close(run, step)
    state.undelivered[run.id] = None
    if run.lost_invocations:
        run.lost_invocations = 0
        runs.changed(run, decision)
        suspects.enqueue_closures(state, hot)
    limit = state.limits.max_journal_bytes
    if run.journal_bytes > limit:
        message = f"the results of run {run.id} have {run.journal_bytes} bytes, over --max-journal-bytes={limit}"
        advice = "return references instead of values, or split the work with step.invoke"
        runs.fail(state, hot, Failure("JournalTooLargeError", f"{message}: {advice}", retryable=False), now, decision)


def time_out(state: State, hot: HotRun, step: Step, now: Now, decision: Decision) -> None:
    """Fail a step that has taken too long, whatever it was doing."""
    message = f"step {step.key} of run {hot.run.id} took longer than its timeout of {step.step_timeout:g} s"
    failure = Failure("StepTimeoutError", message, retryable=False)
    if step.state is RUNNING:
        stop_attempt(hot, step, "step timeout", decision, (failure, False))
        fail_attempt(state, hot, step, failure, "timed_out", now, decision)
    else:
        runs.abandon(state, hot, step, now, decision, "step timeout")
        record(state, hot, step, now, decision, failure=failure)


def stop_attempt(
    hot: HotRun, step: Step, reason: str, decision: Decision, failed: tuple[Failure, bool] | None = None
) -> None:
    """Tell the worker of a running attempt to stop it; that it has `failed` by that, and whether it is tried again."""
    attempt = AttemptRef(hot.run.id, step.key, step.fence)
    decision.cancel(CancelAttempt(step.session, attempt, reason, *(failed or ())))


def cancelled(state: State, report: StepsCancelled, now: Now, decision: Decision) -> None:
    """Give up the steps that a body no longer wants. A replica's word counts like the lead's: the body is the same."""
    hot = state.runs.get(report.run_id)
    session = state.sessions.get(report.session_id)
    invocation = session.invocations.get(report.run_id) if session else None
    if hot is None or invocation is None or invocation.fence != report.invocation:
        foreign = rights.invocation_is_foreign(state, report.session_id, report.run_id, report.invocation, decision)
        if hot is not None and not foreign:
            take_back(state, hot, report, now, decision)
        return
    for key in report.keys:
        step = hot.run.open.get(key)
        if step is not None:
            if step.state is RUNNING:
                stop_attempt(hot, step, "the function's body cancelled it", decision)
            runs.abandon(state, hot, step, now, decision, "the function's body cancelled it")
            if step.state is RUNNING:
                release(state, step)
            step.ended_at = now.wall
            move(state, hot, step, CANCELLED, decision)
            state.close(hot.run, step)
    runs.want_lead(state, hot)


def take_back(state: State, hot: HotRun, report: StepsCancelled, now: Now, decision: Decision) -> None:
    """Take back what will not run in a body that the run no longer has, because another of its bodies has failed."""
    for key in report.keys:
        step = hot.run.open.get(key)
        if step is not None and step.state is RUNNING and step.session == report.session_id:
            stop_attempt(hot, step, "its body has ended", decision)
            give_back(state, hot, step, now, decision)


def child_ended(state: State, ended: ChildEnded, now: Now, decision: Decision) -> None:
    """End an invoke step with the result of its run."""
    at = state.step(ended.run_id, ended.key)
    if at is None or at[1].state is not WAITING:
        return
    if ended.child_state is RunState.SUCCEEDED:
        record(state, *at, now, decision, output=ended.output or b"")
    else:
        failure = ended.failure or Failure("RunFailedError", "the invoked run failed")
        record(state, *at, now, decision, failure=replace(failure, retryable=False))
