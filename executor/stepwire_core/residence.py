"""Which runs are in memory: those that are loaded from the store, and those that leave it because they only wait."""

from __future__ import annotations

from collections.abc import Iterator

from stepwire_core import containment, plans, quarantine, retries, runs, starts, steps, transitions, workers
from stepwire_core import inputs as i
from stepwire_core.commands import CancelRun
from stepwire_core.model import FunctionOptions, Now, Run, StepKind, StepState
from stepwire_core.state import IDLE_SECONDS, LoadedRun, State
from stepwire_core.timer_queue import TimerKind
from stepwire_core.turn import Turn

UNLOADED_TOGETHER = 1.0
"""Runs that become idle within so many seconds leave the memory together."""
MOST_IDLE = 10_000
"""Runs that wait in memory; of more the longest idle leave it sooner."""
MOST_UNLOADED = 500
"""Runs that leave the memory in one decision, so that others need not wait for the rows of very many."""


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
            state.timers.at_wall(step.due_at or 0.0, TimerKind.SLEEP, run.id, step.key)
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
    until = turn.now.mono - IDLE_SECONDS + 1e-6  # what is due by `next_delay` is due here, however it was rounded
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
    wake_at = wake_time(loaded.run, turn.now)
    if wake_at is not None and wake_at <= turn.now.wall + IDLE_SECONDS:
        return
    for invocation in (loaded.lead, *list(loaded.replicas.values())):
        if invocation is not None:
            turn.cancel(CancelRun(invocation.session_id, loaded.run.id, "asleep"))
            runs.forget(turn.state, invocation)
    loaded.run.wake_at = wake_at
    turn.changed(loaded.run)
    runs.unload(turn, loaded)


def wake_time(run: Run, now: Now) -> float | None:
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
