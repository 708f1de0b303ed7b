"""Where steps are planned: what a lead has found becomes steps, each of which is set going by its kind."""

from __future__ import annotations

from stepwire_core import authorization, divergence, eager, quarantine, runs, starts, steps, transitions
from stepwire_core.commands import Wait
from stepwire_core.inputs import StepPlanned, StepsFound
from stepwire_core.model import Failure, Step, StepKind, StepState
from stepwire_core.state import Invocation, LoadedRun, State
from stepwire_core.timer_queue import TimerKind
from stepwire_core.turn import Turn
from stepwire_core.waits import MOST_PATHS, criterion


def on_steps_found(turn: Turn, report: StepsFound) -> None:
    """Plan what a lead has found, and note that it has run dry."""
    state = turn.state
    loaded = state.runs.get(report.run_id)
    lead = loaded.lead if loaded else None
    ours = lead is not None and lead.fence == report.invocation and lead.session_id == report.session_id
    if loaded is None or lead is None or not ours:
        authorization.invocation_is_foreign(turn, report.session_id, report.run_id, report.invocation)
        return
    if report.sequence > lead.sent:
        what = (
            f"invocation {lead.fence} of run {loaded.run.id} has run dry after entry {report.sequence}, but was given"
        )
        authorization.end_stream(
            turn, state.sessions[lead.session_id], authorization.UNASKED, f"{what} only {lead.sent}"
        )
        return
    for new in report.steps:
        plan(turn, loaded, lead, new, report)
        if loaded.run.state.ended:
            return
    loaded.begun = None
    if report.quiescent:
        note_run_dry(state, loaded, lead, report.sequence)
    turn.decision.changed_runs.add(loaded.run.id)


def note_run_dry(state: State, loaded: LoadedRun, lead: Invocation, sequence: int) -> None:
    """Note up to where a lead has run dry; a slot that was kept for an eager step is free again."""
    lead.reported = max(lead.reported, sequence)
    loaded.replayed_to = max(loaded.replayed_to, sequence)
    session = state.sessions[lead.session_id]
    if lead.eager_fence and lead.parked:
        transitions.free_slot(session, lead)
    if session.guest is lead and lead.parked:
        session.guest = None
        quarantine.enqueue_closures(state, loaded)
    state.idle_candidates[loaded.run.id] = None


def plan(turn: Turn, loaded: LoadedRun, lead: Invocation, new: StepPlanned, report: StepsFound) -> None:
    """Plan one step, unless it is known already."""
    run, limits = loaded.run, turn.state.limits
    target = f"{run.app}{new.target}" if new.kind is StepKind.INVOKE and new.target.startswith("/") else new.target
    known = run.steps.get(new.key)
    if known is not None:
        if known.kind is not new.kind or known.target != target:
            failure = divergence.found_another(run.id, known, new, target)
            runs.fail(turn, loaded, failure)
        elif known.state is StepState.CANCELLED:
            revive(turn, loaded, known, report)
            begin(turn, loaded, lead, known, new, report)
        else:
            eager.decline(turn, lead, new)
        return
    id_bytes = len(new.key.id.encode())
    if not 0 < id_bytes <= limits.max_step_id_bytes:
        message = f"run {run.id} found a step with an id of {id_bytes} bytes at {new.source or 'an unknown place'}"
        advice = f"ids have 1 to {limits.max_step_id_bytes} (--max-step-id-bytes)"
        failure = Failure("InvalidStepError", f"{message}; {advice}", retryable=False)
        runs.fail(turn, loaded, failure)
        return
    if len(run.steps) >= limits.max_steps:
        message = f"run {run.id} found step {len(run.steps) + 1}, over --max-steps={limits.max_steps}"
        advice = "split the work over several runs with step.invoke, or raise the limit"
        runs.fail(turn, loaded, Failure("TooManyStepsError", f"{message}: {advice}", retryable=False))
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
        planned_at=turn.now.steady,
        wait=new.wait,
    )
    run.steps[step.key] = run.open[step.key] = step
    turn.decision.writes.new_steps[run.id, step.number] = step
    begin(turn, loaded, lead, step, new, report)


def revive(turn: Turn, loaded: LoadedRun, step: Step, report: StepsFound) -> None:
    """Plan a cancelled step again: a body that is tried again may want what it gave up the time before."""
    step.planned_at, step.started_at, step.ended_at = turn.now.steady, None, None
    step.found_after, step.failure, step.attempt = report.sequence, None, 0
    step.child_run_id = ""
    loaded.run.open[step.key] = step
    steps.written(turn, loaded, step)


def begin(turn: Turn, loaded: LoadedRun, lead: Invocation, step: Step, new: StepPlanned, report: StepsFound) -> None:
    """Set a planned step going."""
    state = turn.state
    transitions.plan_step(loaded, step)
    if step.state is StepState.WAITING:
        step.fence = turn.fence()
    if step.step_timeout is not None:
        turn.after(step.step_timeout, TimerKind.STEP_TIMEOUT, loaded.run.id, step.key)
    if new.fault is not None:
        steps.record(turn, loaded, step, failure=new.fault)
        return
    begun = eager.claim(state, loaded, lead, step, new, report) if new.eager_fence or loaded.begun is not None else None
    if begun is not None:
        steps.issue(turn, loaded, step, begun.session, begun.fence)
        if eager.is_lost(state, begun):
            steps.fail_attempt(turn, loaded, step, quarantine.loss(begun.session, step), "lost")
        return
    match step.kind:
        case StepKind.CLOSURE | StepKind.TASK:
            step.fence = turn.fence()  # a lead may have begun it in an earlier life of the executor
            quarantine.enqueue(state, loaded, step)
        case StepKind.SLEEP:
            sleep(turn, loaded, step, new)
        case StepKind.WAIT_FOR_EVENT:
            wait(turn, loaded, step, new)
        case StepKind.INVOKE:
            starts.start_child(turn, loaded, step)
        case StepKind.SEND_EVENTS:
            starts.send(turn, loaded, step, new.events, new.output, report.known)


def sleep(turn: Turn, loaded: LoadedRun, step: Step, new: StepPlanned) -> None:
    """Wait for a time of day."""
    step.due_at = new.due_at if new.due_at is not None else turn.now.wall + (new.delay or 0.0)
    if step.due_at <= turn.now.wall:
        steps.record(turn, loaded, step, output=b"")
    else:
        turn.state.timers.at_wall(step.due_at, TimerKind.SLEEP, loaded.run.id, step.key)
        turn.state.idle_candidates[loaded.run.id] = None


def wait(turn: Turn, loaded: LoadedRun, step: Step, new: StepPlanned) -> None:
    """Wait for an event; one may have come already since the run began. See `matches`."""
    state = turn.state
    if not loaded.known_waits().has_room(step):
        message = (
            f"step {step.key} waits for {step.target!r}, but the run's waits for it compare {MOST_PATHS} different "
            f"sets of fields already, and no more are allowed: have more of them compare the same fields"
        )
        failure = Failure("TooManyWaitFieldsError", message, retryable=False)
        steps.record(turn, loaded, step, failure=failure)
        return
    delay = new.delay if new.delay is not None else state.limits.max_sleep
    step.due_at = turn.now.steady + delay
    turn.after(delay, TimerKind.WAIT, loaded.run.id, step.key)
    row = Wait(step.target, *criterion(step), loaded.run.id, step.key, loaded.run.event.position, loaded.run.app)
    turn.decision.writes.begin_wait(row)
    seek_event(state, loaded, step)


def seek_event(state: State, loaded: LoadedRun, step: Step) -> None:
    """Have events looked up that a wait may have missed."""
    loaded.known_waits().seek(step)
    state.seeking[loaded.run.id, step.target] = None
