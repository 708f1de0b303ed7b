"""Where steps change: recorded, failed, retried, cancelled. `transitions` says what can follow what."""

from __future__ import annotations

from dataclasses import replace

from stepwire_core import authorization, quarantine, retries, runs
from stepwire_core.commands import AttemptIssued, CancelAttempt, Recorded, Refused
from stepwire_core.inputs import (
    AttemptRef,
    ChildEnded,
    StepCancelled,
    StepFailed,
    StepRun,
)
from stepwire_core.model import FailedAttempt, Failure, RunState, Step, StepKind, StepState, size
from stepwire_core.state import LoadedRun, Session, State
from stepwire_core.timer_queue import TimerKind
from stepwire_core.transitions import StepEvent, move_step
from stepwire_core.turn import Turn

RUNNING, WAITING = StepState.RUNNING, StepState.WAITING


def move(turn: Turn, loaded: LoadedRun, step: Step, event: StepEvent) -> None:
    """Change a step's state and have its row written."""
    move_step(loaded, step, event)
    written(turn, loaded, step)


def written(turn: Turn, loaded: LoadedRun, step: Step) -> None:
    """Have a step's row written."""
    decision = turn.decision
    row = (loaded.run.id, step.number)
    if row not in decision.writes.new_steps:
        decision.writes.steps[row] = step
    decision.changed_runs.add(loaded.run.id)
    turn.state.idle_candidates[loaded.run.id] = None


def issue(turn: Turn, loaded: LoadedRun, step: Step, session: Session, fence: int) -> None:
    """Note that an attempt runs in a worker. Not written: a restart forgets it, and its fence tells it apart."""
    now = turn.now
    move_step(loaded, step, StepEvent.ISSUED)
    step.fence = fence
    step.attempt += 1
    step.session, step.worker = session.id, session.instance_id
    step.started_at, step.due_at = now.wall, None
    session.attempts[fence] = (loaded.run.id, step.key)
    turn.decision.changed_runs.add(loaded.run.id)
    turn.observe(
        AttemptIssued(
            loaded.run.id, step.key, step.attempt, fence, step.worker, session.id, step.attempt_timeout, now.mono
        )
    )
    if step.attempt_timeout is not None:
        turn.after(step.attempt_timeout, TimerKind.ATTEMPT_TIMEOUT, loaded.run.id, step.key, fence)


def release(state: State, step: Step) -> int:
    """End the newest attempt's hold on its slot, and make its fence stale; returns the fence that it had."""
    session = state.sessions.get(step.session)
    if session is not None:
        session.attempts.pop(step.fence, None)
    fence, step.fence, step.session = step.fence, state.next_fence(), ""
    return fence


def accept(turn: Turn, report: StepRun | StepFailed) -> tuple[LoadedRun, Step] | None:
    """Find the step whose running attempt a report is of; answer a report that comes too late."""
    at = turn.state.step(report.run_id, report.key)
    if at is not None:
        step = at[1]
        if step.state is RUNNING and step.fence == report.fence and step.session == report.session_id:
            return at
    attempt = AttemptRef(report.run_id, report.key, report.fence)
    if authorization.attempt_is_foreign(turn, report.session_id, attempt):
        return None
    if at is not None:
        step = at[1]
        current = 0 if step.state.ended else step.fence
        reason = "the step has ended" if step.state.ended else f"stale attempt {report.fence}, current {step.fence}"
    else:
        current, reason = 0, "its run has ended, or the step is unknown"
    turn.send(Refused(report.session_id, attempt, current, reason))
    return None


def on_step_run(turn: Turn, report: StepRun) -> None:
    """Record an attempt's output."""
    state = turn.state
    at = accept(turn, report)
    if at is None:
        return
    loaded, step = at
    step.started_at = max(turn.now.wall - report.elapsed, step.started_at or 0.0)
    limit = state.limits.max_output_bytes
    if report.output_bytes > limit:
        message = f"step {step.key} returned {report.output_bytes} bytes, over --max-output-bytes={limit}"
        advice = "return less, or a reference to it"
        failure = Failure("OutputTooLargeError", f"{message}: {advice}", retryable=False)
        fail_attempt(turn, loaded, step, failure, "failed")
    else:
        turn.observe(runs.closed(loaded.run, step, turn.now, "succeeded"))
        state.sessions[step.session].attempts.pop(step.fence, None)
        if step.kind is StepKind.CLOSURE and report.elapsed > 0:  # a worker may not say it
            state.took(loaded.run.function_key, report.elapsed)
        record(turn, loaded, step, output=report.output)
    attempt = AttemptRef(report.run_id, report.key, report.fence)
    turn.send(Recorded(report.session_id, attempt))


def on_step_failed(turn: Turn, report: StepFailed) -> None:
    """Take an attempt's failure."""
    at = accept(turn, report)
    if at is not None:
        loaded, step = at
        step.started_at = max(turn.now.wall - report.elapsed, step.started_at or 0.0)
        retried = fail_attempt(turn, loaded, step, report.failure, "failed")
        attempt = AttemptRef(report.run_id, report.key, report.fence)
        turn.send(Recorded(report.session_id, attempt, failed=not retried))


def fail_attempt(turn: Turn, loaded: LoadedRun, step: Step, failure: Failure, outcome: str) -> bool:
    """End a running attempt with a failure, and plan the next one if the policy has one left: says whether it has."""
    state, now = turn.state, turn.now
    run = loaded.run
    delay = retries.delay(state, run, failure, step)
    turn.observe(runs.closed(run, step, now, outcome, failure, delay))
    started = step.started_at or now.wall
    worker = step.worker
    fence = release(state, step)
    row = FailedAttempt(run.id, step.number, step.attempt, fence, worker, started, now.wall, failure)
    turn.decision.writes.failed_attempts.append(row)
    if delay is None:
        step.fence = fence  # of the attempt that brought this result: its span is what later steps link to
        record(turn, loaded, step, failure=failure)
        return False
    step.failure = failure
    step.due_at = now.steady + delay
    move(turn, loaded, step, StepEvent.ATTEMPT_FAILED)
    turn.after(delay, TimerKind.STEP_RETRY, run.id, step.key, step.fence)
    return True


def give_back(turn: Turn, loaded: LoadedRun, step: Step) -> None:
    """Take back a running attempt that was not the step's fault; it is not counted."""
    turn.observe(runs.closed(loaded.run, step, turn.now, "returned"))
    release(turn.state, step)
    step.attempt -= 1
    step.started_at = None
    move(turn, loaded, step, StepEvent.RETURNED)
    quarantine.enqueue(turn.state, loaded, step, first=True)


def record(
    turn: Turn,
    loaded: LoadedRun,
    step: Step,
    *,
    output: bytes | None = None,
    failure: Failure | None = None,
    timed_out: bool = False,
) -> None:
    """Write a step's result into its run's journal, for good."""
    state, decision = turn.state, turn.decision
    run = loaded.run
    step.output, step.failure, step.timed_out = output, failure, timed_out
    step.ended_at = turn.now.wall
    step.sequence = len(run.journal) + 1
    if step.kind not in (StepKind.CLOSURE, StepKind.TASK):
        turn.observe(runs.closed(run, step, turn.now, "failed" if failure else "succeeded", failure))
        if step.wait is not None:
            loaded.known_waits().drop(step)
            decision.writes.end_wait(run.id, step.key)
    elif step.state is not RUNNING:
        step.fence = 0  # no attempt brought this result: there is no span of it
    move(turn, loaded, step, StepEvent.FAILED if failure else StepEvent.SUCCEEDED)
    run.journal.append(step)
    loaded.recorded_in = decision.number
    decision.recorded.append((run.id, step))
    run.journal_bytes += size(step)
    state.close(run, step)
    state.undelivered[run.id] = None
    if run.lost_invocations:
        run.lost_invocations = 0
        turn.changed(run)
        quarantine.enqueue_closures(state, loaded)
    limit = state.limits.max_journal_bytes
    if run.journal_bytes > limit:
        message = f"the results of run {run.id} have {run.journal_bytes} bytes, over --max-journal-bytes={limit}"
        advice = "return references instead of values, or split the work with step.invoke"
        runs.fail(turn, loaded, Failure("JournalTooLargeError", f"{message}: {advice}", retryable=False))


def time_out(turn: Turn, loaded: LoadedRun, step: Step) -> None:
    """Fail a step that has taken too long, whatever it was doing."""
    message = f"step {step.key} of run {loaded.run.id} took longer than its timeout of {step.step_timeout:g} s"
    failure = Failure("StepTimeoutError", message, retryable=False)
    if step.state is RUNNING:
        stop_attempt(turn, loaded, step, "step timeout", (failure, False))
        fail_attempt(turn, loaded, step, failure, "timed_out")
    else:
        runs.detach_step(turn, loaded, step, "step timeout")
        record(turn, loaded, step, failure=failure)


def stop_attempt(
    turn: Turn, loaded: LoadedRun, step: Step, reason: str, failed: tuple[Failure, bool] | None = None
) -> None:
    """Tell the worker of a running attempt to stop it; that it has `failed` by that, and whether it is tried again."""
    attempt = AttemptRef(loaded.run.id, step.key, step.fence)
    turn.cancel(CancelAttempt(step.session, attempt, reason, *(failed or ())))


def on_step_cancelled(turn: Turn, report: StepCancelled) -> None:
    """Give up the steps that a body no longer wants. A replica's word counts like the lead's: the body is the same."""
    state = turn.state
    loaded = state.runs.get(report.run_id)
    session = state.sessions.get(report.session_id)
    invocation = session.invocations.get(report.run_id) if session else None
    if loaded is None or invocation is None or invocation.fence != report.invocation:
        foreign = authorization.invocation_is_foreign(turn, report.session_id, report.run_id, report.invocation)
        if loaded is not None and not foreign:
            give_back_unwanted(turn, loaded, report)
        return
    for key in report.keys:
        step = loaded.run.open.get(key)
        if step is not None:
            if step.state is RUNNING:
                stop_attempt(turn, loaded, step, "the function's body cancelled it")
            runs.detach_step(turn, loaded, step, "the function's body cancelled it")
            if step.state is RUNNING:
                release(state, step)
            step.ended_at = turn.now.wall
            move(turn, loaded, step, StepEvent.CANCELLED)
            state.close(loaded.run, step)
    runs.want_lead(state, loaded)


def give_back_unwanted(turn: Turn, loaded: LoadedRun, report: StepCancelled) -> None:
    """Take back what will not run in a body that the run no longer has, because another of its bodies has failed."""
    for key in report.keys:
        step = loaded.run.open.get(key)
        if step is not None and step.state is RUNNING and step.session == report.session_id:
            stop_attempt(turn, loaded, step, "its body has ended")
            give_back(turn, loaded, step)


def on_child_ended(turn: Turn, ended: ChildEnded) -> None:
    """End an invoke step with the result of its run."""
    at = turn.state.step(ended.run_id, ended.key)
    if at is None or at[1].state is not WAITING or at[1].child_run_id != ended.child_run_id:
        return  # the step may have been given up and planned anew, and has invoked another run
    if ended.child_state is RunState.SUCCEEDED:
        record(turn, *at, output=ended.output or b"")
    else:
        failure = ended.failure or Failure("RunFailedError", "the invoked run failed")
        record(turn, *at, failure=replace(failure, retryable=False))
