"""The core's one entrance: a batch of inputs in, a decision out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from stepwire_executor.core import (
    containment,
    matches,
    placement,
    plans,
    quarantine,
    registrations,
    replicas,
    retries,
    runs,
    starts,
    steps,
    transitions,
    workers,
)
from stepwire_executor.core import inputs as i
from stepwire_executor.core.commands import Answer, CancelRun, Decision
from stepwire_executor.core.model import EventKey, Failure, FunctionOptions, Now, Run, StepKind, StepState
from stepwire_executor.core.state import IDLE_SECONDS, LoadedRun, State, Timer, TimerKind
from stepwire_executor.core.transitions import StepEvent
from stepwire_executor.core.turn import Turn

SLACK_SECONDS = 0.001
"""By so much the clocks may disagree on whether something is due."""
UNLOADED_TOGETHER = 1.0
"""Runs that become idle within so many seconds leave the memory together."""
MOST_IDLE = 10_000
"""Runs that wait in memory; of more the longest idle leave it sooner."""
MOST_UNLOADED = 500
"""Runs that leave the memory in one decision, so that others need not wait for the rows of very many."""


def decide(state: State, batch: Iterable[i.Input], now: Now, decision: Decision) -> None:
    """Decide a batch in one piece; see `pieces`."""
    for _ in pieces(state, batch, now, decision):
        pass


def pieces(state: State, batch: Iterable[i.Input], now: Now, decision: Decision) -> Iterator[int]:
    """Apply inputs in their order, then whatever time has brought, and add what to write and to send to a decision.

    It stops between small pieces of work, so that others can have a turn; nobody else may change the state meanwhile.
    It gives how large each piece was: how many inputs, events, steps or runs.
    `state` is changed, and goes ahead of the store by the decisions that are not `sent` yet. If the writes of one can't
    be committed it must be thrown away and loaded anew. The same holds if this raises, which it does only when it can't
    be told whom that concerns; see `containment`.
    """
    turn = Turn(state, now, decision)
    decision.decided_at = now.mono
    for input_ in batch:
        begun = len(decision.writes.events), len(decision.commands), len(decision.early)
        try:
            apply_in_pieces = LARGE.get(type(input_))
            if apply_in_pieces is None:
                apply(turn, input_)
            else:
                yield from apply_in_pieces(turn, input_)
        except Exception as error:
            containment.refuse(turn, input_, error, begun)
        yield len(input_.steps) if type(input_) is i.StepsFound else 1
    for timer in state.due(now):
        yield 1
        try:
            strike(turn, timer)
        except Exception as error:
            containment.give_up(turn, timer, error)
    for phase in (starts.go_on, placement.assign, starts.come_back, matches.seek, unload_idle_runs):
        try:
            phase(turn)
        except Exception as error:
            yield from containment.do_again(turn, phase, error)
    matches.mark(turn)


def apply(turn: Turn, input_: i.Input) -> None:
    """Apply one input, but for those that may be large; see LARGE."""
    match input_:
        case i.StepRun():
            steps.on_step_run(turn, input_)
        case i.StepsFound():
            plans.on_steps_found(turn, input_)
        case i.StepFailed():
            steps.on_step_failed(turn, input_)
        case i.RunFinished():
            runs.on_run_finished(turn, input_)
        case i.RunFailed():
            replicas.on_run_failed(turn, input_)
        case i.StepCancelled():
            steps.on_step_cancelled(turn, input_)
        case i.RunCancelled():
            runs.on_run_cancelled(turn, input_)
        case i.EventMatched():
            matches.on_event_matched(turn, input_)
        case i.EventsLookedUp():
            matches.on_events_looked_up(turn, input_)
        case i.ChildEnded():
            steps.on_child_ended(turn, input_)
        case i.Hello():
            workers.on_hello(turn, input_)
        case i.StreamLost():
            workers.on_stream_lost(turn, input_)
        case i.Draining():
            workers.on_draining(turn, input_)
        case i.Evicted():
            workers.on_evicted(turn, input_)
        case i.Heartbeat():
            workers.on_heartbeat(turn.state, input_, turn.now)
        case i.NotWritten():
            containment.on_not_written(turn, input_)
        case i.FunctionsChecked():
            registrations.on_functions_checked(turn, input_)
            if input_.reply is not None:
                turn.send(Answer(input_.reply, None))
        case i.ExecutorDraining():
            turn.state.draining = True
        case i.Tick(reply) if reply is not None:
            turn.send(Answer(reply, None))
        case i.SleepersWoken() | i.Tick():
            pass


def strike(turn: Turn, timer: Timer) -> None:
    """Act on a timer, if what it was set for still holds."""
    state = turn.state
    if timer.kind is TimerKind.SESSION_GRACE:
        workers.grace_over(turn, timer.run_id)
        return
    loaded = state.runs.get(timer.run_id)
    if loaded is None:
        return
    run = loaded.run
    if timer.kind is TimerKind.RUN_TIMEOUT:
        limit = f"its function's timeout of {run_timeout(state, run, turn.now):g} s (timeout=…)"
        message = f"run {run.id} of {run.app}/{run.function_id} took longer than {limit}"
        runs.fail(turn, loaded, Failure("RunTimeoutError", message, retryable=False))
    elif timer.kind is TimerKind.BODY_RETRY:
        if run.retry_at is not None and run.attempt == timer.fence:
            run.retry_at = None
            turn.changed(run)
            runs.want_lead(state, loaded)
            quarantine.enqueue_closures(state, loaded)
    elif timer.key is not None and timer.key in run.open:
        strike_step(turn, loaded, timer)


def run_timeout(state: State, run: Run, now: Now) -> float:
    """Give the seconds that a run was allowed; its function may have another timeout by now."""
    present = state.functions[run.function_key].options.run_timeout
    if now.moved and present is not None:
        return present
    return (run.deadline_at or now.steady) - run.created_at


def strike_step(turn: Turn, loaded: LoadedRun, timer: Timer) -> None:
    """Act on a timer of an unfinished step; not on one of the time before it was cancelled and planned anew."""
    state, now = turn.state, turn.now
    assert timer.key is not None
    step = loaded.run.open[timer.key]
    match timer.kind:
        case TimerKind.ATTEMPT_TIMEOUT if step.state is StepState.RUNNING and step.fence == timer.fence:
            message = f"attempt {step.attempt} of step {step.key} took longer than {step.attempt_timeout:g} s"
            failure = Failure("StepTimeoutError", message)
            retried = retries.delay(state, loaded.run, failure, step) is not None
            steps.stop_attempt(turn, loaded, step, "attempt timeout", (failure, retried))
            steps.fail_attempt(turn, loaded, step, failure, "timed_out")
        case TimerKind.STEP_RETRY if step.state is StepState.RETRYING and step.fence == timer.fence:
            step.due_at = None
            transitions.move_step(loaded, step, StepEvent.BACKOFF_ENDED)
            turn.decision.changed_runs.add(loaded.run.id)
            state.idle_candidates[loaded.run.id] = None
            quarantine.enqueue(state, loaded, step)
        case TimerKind.STEP_TIMEOUT if step.planned_at + (step.step_timeout or 0.0) <= now.steady + SLACK_SECONDS:
            steps.time_out(turn, loaded, step)
        case TimerKind.SLEEP if (step.due_at or 0.0) <= now.wall + SLACK_SECONDS:
            steps.record(turn, loaded, step, output=b"")
        case TimerKind.WAIT if (step.due_at or 0.0) <= now.steady + SLACK_SECONDS and not loaded.known_waits().postpone(
            step
        ):
            steps.record(turn, loaded, step, timed_out=True)


def on_runs_loaded(turn: Turn, brought: i.RunsLoaded) -> Iterator[int]:
    """Bring runs into memory. In pieces, see `pieces`."""
    for run in brought.runs:
        take_in(turn, run)
        yield 1 + len(run.steps)


def take_in(turn: Turn, run: Run) -> None:
    """Bring a run into memory; one that can't be brought in keeps no other out."""
    try:
        load(turn, run)
    except Exception as error:
        containment.not_loaded(turn, run, error)


def load(turn: Turn, run: Run) -> None:
    """Bring a run into memory, with its timers. What ran when it was stored is ready again, uncounted."""
    state, now = turn.state, turn.now
    if run.id in state.runs or run.state.ended:
        return
    loaded = state.runs[run.id] = LoadedRun(run)
    asleep = run.wake_at != 0
    if asleep:
        loaded.replayed_to = len(run.journal)
        run.wake_at = 0.0
        turn.changed(run)
    options = state.functions[run.function_key].options
    hold_to_delays(turn, loaded, options)
    if run.deadline_at is not None:
        turn.after(run.deadline_at - now.steady, TimerKind.RUN_TIMEOUT, run.id)
    if run.retry_at is not None:
        loaded.replayed_to = -1
        turn.after(run.retry_at - now.steady, TimerKind.BODY_RETRY, run.id, fence=run.attempt)
    for step in list(run.open.values()):
        transitions.load_step(loaded, step)
        if step.state is StepState.READY:
            quarantine.enqueue(state, loaded, step)
        elif step.state is StepState.RETRYING:
            turn.after((step.due_at or 0.0) - now.steady, TimerKind.STEP_RETRY, run.id, step.key, step.fence)
        elif step.kind is StepKind.SLEEP:
            state.at_wall(step.due_at or 0.0, TimerKind.SLEEP, run.id, step.key)
        elif step.kind is StepKind.WAIT_FOR_EVENT and step.due_at is not None:
            turn.after(step.due_at - now.steady, TimerKind.WAIT, run.id, step.key)
            if not asleep or run.id in state.taken_back:  # who sleeps has had all events looked up before
                plans.seek_event(state, loaded, step)
        elif step.kind in (StepKind.INVOKE, StepKind.SEND_EVENTS):
            starts.load(turn, loaded, step)
        if step.step_timeout is not None:
            turn.after(step.planned_at + step.step_timeout - now.steady, TimerKind.STEP_TIMEOUT, run.id, step.key)
    workers.requeue(state, loaded)
    if loaded.wants_worker:
        state.queued.add(run)
    state.taken_back.discard(run.id)
    if run.id in state.faults:
        containment.came_back(turn, loaded)


def hold_to_delays(turn: Turn, loaded: LoadedRun, options: FunctionOptions) -> None:
    """See to it that no stored time is farther away than its whole delay was.

    Another life of the executor may have read it from a clock that has been set back since, and nobody is to wait for
    longer because of that.
    """
    now = turn.now
    run = loaded.run
    if run.deadline_at is not None and options.run_timeout is not None:
        latest = now.steady + options.run_timeout
        if run.deadline_at > latest:
            run.deadline_at = latest
            turn.changed(run)
    if run.retry_at is not None:
        latest = now.steady + retries.longest(options.retry, run.failure)
        if run.retry_at > latest:
            run.retry_at = latest
            turn.changed(run)
    for step in run.open.values():
        ahead = step.planned_at - now.steady
        if ahead > 0 and step.kind is not StepKind.SLEEP:
            step.planned_at -= ahead
            if step.kind is StepKind.WAIT_FOR_EVENT and step.due_at is not None:
                step.due_at -= ahead
            steps.written(turn, loaded, step)
        if step.state is StepState.RETRYING and step.due_at is not None:
            latest = now.steady + retries.longest(step.retry or options.retry, step.failure)
            if step.due_at > latest:
                step.due_at = latest
                steps.written(turn, loaded, step)


def unload_idle_runs(turn: Turn) -> None:
    """Note which runs have come to wait for a worker, or to wait only, and let go of those that have waited for long.

    A body that is parked in a worker stays there meanwhile: it goes on where it is. Without one nothing is gained.
    """
    state = turn.state
    for run_id in list(state.idle_candidates):
        loaded = state.runs.get(run_id)
        if loaded is None:
            continue
        if loaded.wants_worker:
            state.queued.add(loaded.run)
        elif loaded.lead is None:
            state.queued.drop(run_id)
        if not only_waits(state, loaded):
            continue
        if loaded.lead is None:
            put_to_sleep(turn, loaded)
        else:
            state.idle[run_id] = turn.now.mono
            state.idle.move_to_end(run_id)
    state.idle_candidates.clear()
    unload_idle(turn)


LARGE: dict[type[i.Input], Callable[[Turn, Any], Iterator[int]]] = {
    i.EventsSent: runs.on_events_sent,
    i.SendDue: starts.on_send_due,
    i.RunsLoaded: on_runs_loaded,
}
"""How inputs are applied that are so large that others have turns in between. They give how large each piece was."""


def only_waits(state: State, loaded: LoadedRun) -> bool:
    """Whether nothing happens in a run until one of its sleeps, waits or invoked runs ends."""
    if loaded.busy or not loaded.run.open or loaded.run.id in state.undelivered:
        return False  # a body that awaits nothing has still something to say
    if loaded.run.id in state.held:
        return False
    if loaded.waits is not None and loaded.waits.lookups:
        return False  # whoever sleeps has had all events looked up
    lead, told = loaded.lead, len(loaded.run.journal)
    return loaded.replayed_to >= told if lead is None else lead.sent >= told and lead.parked


def unload_idle(turn: Turn) -> None:
    """Let go of runs for which nothing has happened for long, or of the longest idle where there are too many."""
    state = turn.state
    before = len(turn.decision.unloaded)
    until = turn.now.mono - IDLE_SECONDS + 1e-6  # what is due by `next_due` is due here, however it was rounded
    while state.idle and len(turn.decision.unloaded) < before + MOST_UNLOADED:
        run_id, since = next(iter(state.idle.items()))
        if since <= until:
            until = turn.now.mono - IDLE_SECONDS + UNLOADED_TOGETHER
        elif len(state.idle) <= MOST_IDLE:
            break
        del state.idle[run_id]
        loaded = state.runs.get(run_id)
        if loaded is not None and only_waits(state, loaded):
            put_to_sleep(turn, loaded)


def put_to_sleep(turn: Turn, loaded: LoadedRun) -> None:
    """Take a run that only waits out of memory, and out of the workers', unless something is due soon.

    A row is left of it, which says when to wake it.
    """
    wake_at = next_due(loaded.run, turn.now)
    if wake_at is not None and wake_at <= turn.now.wall + IDLE_SECONDS:
        return
    for invocation in (loaded.lead, *list(loaded.replicas.values())):
        if invocation is not None:
            turn.cancel(CancelRun(invocation.session_id, loaded.run.id, "asleep"))
            runs.forget(turn.state, invocation)
    loaded.run.wake_at = wake_at
    turn.changed(loaded.run)
    runs.unload(turn, loaded)


def next_due(run: Run, now: Now) -> float | None:
    """Give the time of day when a run that only waits has something to do; None if nothing but others can wake it.

    A run that wakes too early, because the clock was set, goes back to sleep.
    """
    steady = [run.deadline_at, run.retry_at]
    sleeps: list[float | None] = []
    for step in run.open.values():
        (sleeps if step.kind is StepKind.SLEEP else steady).append(step.due_at)
        if step.step_timeout is not None:
            steady.append(step.planned_at + step.step_timeout)
    dues = [*sleeps, *(due + now.moved for due in steady if due is not None)]
    return min((due for due in dues if due is not None), default=None)


def touched_runs(input_: i.Input) -> Sequence[str]:
    """Name the runs that must be in memory, if they have not ended, for `input_` to be decided."""
    match input_:
        case i.Hello():
            return [attempt.run_id for attempt in input_.in_hand]
        case i.SleepersWoken():
            return input_.run_ids
        case i.RunCancelled() | i.EventMatched() | i.ChildEnded():
            return [input_.run_id]
    return ()


def sent_events(input_: i.Input) -> Sequence[EventKey]:
    """Name the events that `input_` sends: it must know which of them have been taken before."""
    match input_:
        case i.EventsSent() | i.SendDue():
            return [event.key for event in input_.events]
        case i.StepsFound():
            return [event.key for step in input_.steps for event in step.events]
    return ()
