"""The core's one entrance: a batch of inputs in, a decision out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from stepwire_executor.core import (
    containment,
    matches,
    placement,
    plans,
    registrations,
    replicas,
    runs,
    starts,
    steps,
    suspects,
    transitions,
    workers,
)
from stepwire_executor.core import inputs as i
from stepwire_executor.core.commands import Answer, CancelRun, Decision
from stepwire_executor.core.model import EventKey, Failure, FunctionOptions, Now, Retry, Run, StepKind, StepState
from stepwire_executor.core.state import IDLE_SECONDS, HotRun, State, Timer
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
    if timer.kind == "grace":
        workers.grace_over(turn, timer.run_id)
        return
    hot = state.runs.get(timer.run_id)
    if hot is None:
        return
    run = hot.run
    if timer.kind == "run":
        limit = f"its function's timeout of {run_timeout(state, run, turn.now):g} s (timeout=…)"
        message = f"run {run.id} of {run.app}/{run.function_id} took longer than {limit}"
        runs.fail(turn, hot, Failure("RunTimeoutError", message, retryable=False))
    elif timer.kind == "body":
        if run.retry_at is not None and run.attempt == timer.fence:
            run.retry_at = None
            turn.changed(run)
            runs.want_lead(state, hot)
            suspects.enqueue_closures(state, hot)
    elif timer.key is not None and timer.key in run.open:
        strike_step(turn, hot, timer)


def run_timeout(state: State, run: Run, now: Now) -> float:
    """Give the seconds that a run was allowed; its function may have another timeout by now."""
    present = state.functions[run.function_key].options.run_timeout
    if now.moved and present is not None:
        return present
    return (run.deadline_at or now.steady) - run.created_at


def strike_step(turn: Turn, hot: HotRun, timer: Timer) -> None:
    """Act on a timer of an unfinished step; not on one of the time before it was cancelled and planned anew."""
    state, now = turn.state, turn.now
    assert timer.key is not None
    step = hot.run.open[timer.key]
    match timer.kind:
        case "attempt" if step.state is StepState.RUNNING and step.fence == timer.fence:
            message = f"attempt {step.attempt} of step {step.key} took longer than {step.attempt_timeout:g} s"
            failure = Failure("StepTimeoutError", message)
            retried = runs.retry_delay(state, hot.run, failure, step) is not None
            steps.stop_attempt(turn, hot, step, "attempt timeout", (failure, retried))
            steps.fail_attempt(turn, hot, step, failure, "timed_out")
        case "retry" if step.state is StepState.RETRYING and step.fence == timer.fence:
            step.due_at = None
            transitions.move_step(hot, step, StepEvent.BACKOFF_ENDED)
            turn.decision.changed_runs.add(hot.run.id)
            state.settling[hot.run.id] = None
            suspects.enqueue(state, hot, step)
        case "step" if step.planned_at + (step.step_timeout or 0.0) <= now.steady + SLACK_SECONDS:
            steps.time_out(turn, hot, step)
        case "sleep" if (step.due_at or 0.0) <= now.wall + SLACK_SECONDS:
            steps.record(turn, hot, step, output=b"")
        case "wait" if (step.due_at or 0.0) <= now.steady + SLACK_SECONDS and not hot.known_waits().postpone(step):
            steps.record(turn, hot, step, timed_out=True)


def on_runs_loaded(turn: Turn, loaded: i.RunsLoaded) -> Iterator[int]:
    """Bring runs into memory. In pieces, see `pieces`."""
    for run in loaded.runs:
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
    hot = state.runs[run.id] = HotRun(run)
    asleep = run.wake_at != 0
    if asleep:
        hot.settled = len(run.journal)
        run.wake_at = 0.0
        turn.changed(run)
    options = state.functions[run.function_key].options
    hold_to_delays(turn, hot, options)
    if run.deadline_at is not None:
        turn.after(run.deadline_at - now.steady, "run", run.id)
    if run.retry_at is not None:
        hot.settled = -1
        turn.after(run.retry_at - now.steady, "body", run.id, fence=run.attempt)
    for step in list(run.open.values()):
        transitions.load_step(hot, step)
        if step.state is StepState.READY:
            suspects.enqueue(state, hot, step)
        elif step.state is StepState.RETRYING:
            turn.after((step.due_at or 0.0) - now.steady, "retry", run.id, step.key, step.fence)
        elif step.kind is StepKind.SLEEP:
            state.at_wall(step.due_at or 0.0, "sleep", run.id, step.key)
        elif step.kind is StepKind.WAIT_FOR_EVENT and step.due_at is not None:
            turn.after(step.due_at - now.steady, "wait", run.id, step.key)
            if not asleep or run.id in state.taken_back:  # who sleeps has had all events looked up before
                plans.seek_event(state, hot, step)
        elif step.kind in (StepKind.INVOKE, StepKind.SEND_EVENTS):
            starts.load(turn, hot, step)
        if step.step_timeout is not None:
            turn.after(step.planned_at + step.step_timeout - now.steady, "step", run.id, step.key)
    workers.requeue(state, hot)
    if hot.wants_worker:
        state.queued.add(run)
    state.taken_back.discard(run.id)
    if run.id in state.faults:
        containment.came_back(turn, hot)


def hold_to_delays(turn: Turn, hot: HotRun, options: FunctionOptions) -> None:
    """See to it that no stored time is farther away than its whole delay was.

    Another life of the executor may have read it from a clock that has been set back since, and nobody is to wait for
    longer because of that.
    """
    now = turn.now
    run = hot.run
    if run.deadline_at is not None and options.run_timeout is not None:
        latest = now.steady + options.run_timeout
        if run.deadline_at > latest:
            run.deadline_at = latest
            turn.changed(run)
    if run.retry_at is not None:
        latest = now.steady + longest_backoff(options.retry, run.failure)
        if run.retry_at > latest:
            run.retry_at = latest
            turn.changed(run)
    for step in run.open.values():
        ahead = step.planned_at - now.steady
        if ahead > 0 and step.kind is not StepKind.SLEEP:
            step.planned_at -= ahead
            if step.kind is StepKind.WAIT_FOR_EVENT and step.due_at is not None:
                step.due_at -= ahead
            steps.written(turn, hot, step)
        if step.state is StepState.RETRYING and step.due_at is not None:
            latest = now.steady + longest_backoff(step.retry or options.retry, step.failure)
            if step.due_at > latest:
                step.due_at = latest
                steps.written(turn, hot, step)


def longest_backoff(policy: Retry | None, failure: Failure | None) -> float:
    """Give the most seconds that the delay before a retry can have been."""
    if failure is not None and failure.retry_after is not None:
        return failure.retry_after
    return (policy or runs.DEFAULT_RETRY).maximum_interval


def unload_idle_runs(turn: Turn) -> None:
    """Note which runs have come to wait for a worker, or to wait only, and let go of those that have waited for long.

    A body that is parked in a worker stays there meanwhile: it goes on where it is. Without one nothing is gained.
    """
    state = turn.state
    for run_id in list(state.settling):
        hot = state.runs.get(run_id)
        if hot is None:
            continue
        if hot.wants_worker:
            state.queued.add(hot.run)
        elif hot.lead is None:
            state.queued.drop(run_id)
        if not only_waits(state, hot):
            continue
        if hot.lead is None:
            put_to_sleep(turn, hot)
        else:
            state.idle[run_id] = turn.now.mono
            state.idle.move_to_end(run_id)
    state.settling.clear()
    unload_idle(turn)


LARGE: dict[type[i.Input], Callable[[Turn, Any], Iterator[int]]] = {
    i.EventsSent: runs.on_events_sent,
    i.SendDue: starts.on_send_due,
    i.RunsLoaded: on_runs_loaded,
}
"""How inputs are applied that are so large that others have turns in between. They give how large each piece was."""


def only_waits(state: State, hot: HotRun) -> bool:
    """Whether nothing happens in a run until one of its sleeps, waits or invoked runs ends."""
    if hot.busy or not hot.run.open or hot.run.id in state.undelivered:
        return False  # a body that awaits nothing has still something to say
    if hot.run.id in state.held:
        return False
    if hot.waits is not None and hot.waits.lookups:
        return False  # whoever sleeps has had all events looked up
    lead, told = hot.lead, len(hot.run.journal)
    return hot.settled >= told if lead is None else lead.sent >= told and lead.parked


def unload_idle(turn: Turn) -> None:
    """Let go of runs for which nothing has happened for long, or of the longest idle where there are too many."""
    state = turn.state
    before = len(turn.decision.retired)
    until = turn.now.mono - IDLE_SECONDS + 1e-6  # what is due by `next_due` is due here, however it was rounded
    while state.idle and len(turn.decision.retired) < before + MOST_UNLOADED:
        run_id, since = next(iter(state.idle.items()))
        if since <= until:
            until = turn.now.mono - IDLE_SECONDS + UNLOADED_TOGETHER
        elif len(state.idle) <= MOST_IDLE:
            break
        del state.idle[run_id]
        hot = state.runs.get(run_id)
        if hot is not None and only_waits(state, hot):
            put_to_sleep(turn, hot)


def put_to_sleep(turn: Turn, hot: HotRun) -> None:
    """Take a run that only waits out of memory, and out of the workers', unless something is due soon.

    A row is left of it, which says when to wake it.
    """
    wake_at = next_due(hot.run, turn.now)
    if wake_at is not None and wake_at <= turn.now.wall + IDLE_SECONDS:
        return
    for invocation in (hot.lead, *list(hot.replicas.values())):
        if invocation is not None:
            turn.cancel(CancelRun(invocation.session_id, hot.run.id, "asleep"))
            runs.forget(turn.state, invocation)
    hot.run.wake_at = wake_at
    turn.changed(hot.run)
    runs.unload(turn, hot)


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
