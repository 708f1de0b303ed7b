"""What time brings: attempts, steps and runs that take too long, backoffs, sleeps and waits that end, sessions lost."""

from __future__ import annotations

from stepwire_core import quarantine, retries, runs, steps, transitions, workers
from stepwire_core.model import Failure, Now, Run, StepState
from stepwire_core.state import LoadedRun, State
from stepwire_core.timer_queue import Timer, TimerKind
from stepwire_core.transitions import StepEvent
from stepwire_core.turn import Turn

SLACK_SECONDS = 0.001
"""By so much the clocks may disagree on whether something is due."""


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
        case TimerKind.WAIT if (step.due_at or 0.0) <= now.steady + SLACK_SECONDS:
            if not loaded.known_waits().postpone(step):
                steps.record(turn, loaded, step, timed_out=True)
