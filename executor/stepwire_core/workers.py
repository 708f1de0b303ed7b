"""Where sessions change: workers connect, come back, drain, and are lost."""

from __future__ import annotations

from collections.abc import Sequence

from stepwire_core import authorization, eager, plans, quarantine, registrations, runs, steps
from stepwire_core.commands import Rejected, Welcomed, WorkerLost
from stepwire_core.inputs import (
    AttemptRef,
    Draining,
    Evicted,
    Heartbeat,
    Hello,
    StreamLost,
)
from stepwire_core.model import FunctionOptions, StepState
from stepwire_core.state import EPOCH_BITS, LoadedRun, Session, SessionState, State
from stepwire_core.timer_queue import TimerKind
from stepwire_core.transitions import SessionEvent, free_slot, move_session
from stepwire_core.turn import Turn


def on_hello(turn: Turn, worker: Hello) -> None:
    """Take a worker in, with the session and the attempts that it brings."""
    state, now, decision = turn.state, turn.now, turn.decision
    old = state.sessions.get(worker.resume_session)
    for code, refusal in (
        (authorization.DENIED, authorization.theft(state, worker)),
        ("FAILED_PRECONDITION", "" if worker.draining else disagreement(state, worker)),
        ("FAILED_PRECONDITION", "" if worker.draining else registrations.excess(state, worker)),
    ):
        if refusal:
            turn.send(Rejected("", worker.stream, code, refusal))
            return
    for other in list(state.sessions.values()):
        if (other.instance_id, other.app) == (worker.instance_id, worker.app) and other is not old:
            replace_stream(turn, other, worker)
            lose(turn, other)
    if not worker.draining:
        registrations.register(turn, worker)
    session = Session(
        old.id if old else worker.session_id,
        worker.instance_id,
        worker.app,
        worker.app_version,
        {options.id: options for options in worker.functions},
        frozenset(worker.tasks),
        worker.slots,
        worker.max_invocations,
        worker.eager,
        worker.labels,
        worker.sdk_name,
        worker.sdk_version,
        worker.stream,
        old.connected_at if old else now.wall,
        now.mono,
        worker.identity,
    )
    session.welcomed_in = decision.number
    if old is not None:
        state.leaves(old, now)
        replace_stream(turn, old, worker)
        session.attempts, session.alone = old.attempts, old.alone
    session.draining = worker.draining or (old is not None and old.draining)
    if session.draining:
        move_session(session, SessionEvent.DRAINED)
    state.enter(session)
    quarantine.serve_others_first(turn, session)
    unwanted = take_over(turn, session, old, worker)
    turn.send(Welcomed(session.id, worker.stream, old is not None, unwanted))


def disagreement(state: State, worker: Hello) -> str:
    """Say what keeps a worker's functions from being served beside those of the workers that are connected.

    Those agree with each other, so one that has a function speaks for all that have it.
    """
    unknown = {options.id for options in worker.functions}
    for session in state.sessions.values():
        if not unknown:
            break
        same = session.app == worker.app and session.app_version == worker.app_version
        if not same or session.state is not SessionState.CONNECTED or session.instance_id == worker.instance_id:
            continue
        if unknown.isdisjoint(session.functions):
            continue
        unknown -= session.functions.keys()
        for options in worker.functions:
            other = session.functions.get(options.id)
            if other is None:
                continue
            name, there = f"function {worker.app}/{options.id}", f"worker {session.instance_id} of the same app version"
            if session.sdk_name != worker.sdk_name:
                here, elsewhere = (sdk or "an SDK without a name" for sdk in (worker.sdk_name, session.sdk_name))
                return (
                    f"{name} is written for {here} here, but for {elsewhere} in {there} {worker.app_version!r}: a run "
                    "can't go on in both, so give the function another id, or one of the workers another app version"
                )
            if other != options:
                return (
                    f"{name} has other options here ({describe(options)}) than in {there} "
                    f"{worker.app_version!r} ({describe(other)}): "
                    "start all workers from the same code, or give the new code its own app version"
                )
    return ""


def describe(options: FunctionOptions) -> str:
    """Write options in a line."""
    retries = "default" if options.retry is None else str(options.retry)
    return f"events {', '.join(options.event_names) or 'none'}; retries {retries}; timeout {options.run_timeout}"


def replace_stream(turn: Turn, old: Session, worker: Hello) -> None:
    """End the former stream of a session that comes back; the executor may not have noticed its end yet."""
    if old.state is not SessionState.LOST:
        message = f"worker {worker.instance_id} has connected again"
        turn.send(Rejected(old.id, old.stream, "ABORTED", message))
        drop_invocations(turn, old)


def take_over(turn: Turn, session: Session, old: Session | None, worker: Hello) -> list[AttemptRef]:
    """Match the attempts that a worker has in hand with those that it should have; give the unwanted ones."""
    unwanted = []
    in_hand = set()
    take_plans(turn, session, old, worker)
    for attempt in worker.in_hand:
        held = session.attempts.get(attempt.fence) == (attempt.run_id, attempt.key)
        if held or adopt(turn, session, attempt, worker.resume_session):
            in_hand.add(attempt.fence)
        else:
            unwanted.append(attempt)
    for fence, (run_id, key) in list(session.attempts.items()):
        at = turn.state.step(run_id, key)
        if fence not in in_hand and at is not None:
            steps.give_back(turn, *at)
    return unwanted


def take_plans(turn: Turn, session: Session, old: Session | None, worker: Hello) -> None:
    """Plan the lone steps that a worker has begun, and whose plans were lost with its stream: it goes on with them."""
    named = {attempt.fence for attempt in worker.in_hand}
    resumed = epoch_of(worker.resume_session)
    for plan in worker.eager_plans:
        loaded = eager.awaits(turn.state, session, old, plan, resumed)
        if loaded is not None and plan.steps[0].eager_fence in named:
            lead = eager.lead_of(session, plan)
            plans.plan(turn, loaded, lead, plan.steps[0], plan)
            free_slot(session, lead)  # if the step turned out to be no good
            loaded.begun = None
    if old is not None:
        eager.forget(turn.state, old.begun, named)


def adopt(turn: Turn, session: Session, attempt: AttemptRef, resumed: str) -> bool:
    """Take an attempt for running that the last life of the executor had issued, or had itself taken over.

    Of one that is older, and whose worker was not there meanwhile, nobody knows whether a newer one was issued.
    """
    state = turn.state
    if max(attempt.fence >> EPOCH_BITS, epoch_of(resumed)) < state.epoch - 1:
        return False
    at = state.step(attempt.run_id, attempt.key)
    if at is None:
        return False
    loaded, step = at
    if loaded.run.app != session.app:
        return False
    waiting = step.state in (StepState.READY, StepState.RETRYING)
    if not waiting or attempt.fence < step.fence or attempt.fence >> EPOCH_BITS >= state.epoch:
        return False
    steps.issue(turn, loaded, step, session, attempt.fence)
    return True


def epoch_of(session_id: str) -> int:
    """Give the epoch in which a session began; 0 for what is no session's id."""
    epoch = session_id.partition(".")[0]
    return int(epoch) if epoch.isascii() and epoch.isdigit() and len(epoch) < 20 else 0


def on_heartbeat(turn: Turn, beat: Heartbeat) -> None:
    """Note a worker's sign of life."""
    session = turn.state.sessions.get(beat.session_id)
    if session is not None:
        session.last_seen, session.loop_lag, session.blocking_stack = turn.now.mono, beat.loop_lag, beat.blocking_stack


def on_stream_lost(turn: Turn, lost: StreamLost) -> None:
    """Begin a session's grace. Its invocations are gone with the stream; its attempts are not, in a drain neither."""
    state, now = turn.state, turn.now
    session = state.sessions.get(lost.session_id)
    if session is None or session.stream != lost.stream or session.state is SessionState.LOST:
        return
    drop_invocations(turn, session)
    if session.draining and not session.attempts:
        state.drop(session)
        return
    state.leaves(session, now)
    move_session(session, SessionEvent.STREAM_LOST)
    session.last_seen = now.mono
    turn.after(state.limits.session_grace, TimerKind.SESSION_GRACE, session.id, fence=turn.fence())


def give_back_all(turn: Turn, session: Session) -> None:
    """Take back what a drained worker seems to hold: attempts that crossed with its last word never began there."""
    for fence, (run_id, key) in list(session.attempts.items()):
        at = turn.state.step(run_id, key)
        if at is not None and at[1].fence == fence:
            steps.give_back(turn, *at)


def grace_over(turn: Turn, session_id: str) -> None:
    """Lose a session that has not come back in time."""
    session = turn.state.sessions.get(session_id)
    limit = turn.state.limits.session_grace
    if session is not None and session.state is SessionState.LOST and turn.now.mono - session.last_seen >= limit - 1e-6:
        lose(turn, session)


def lose(turn: Turn, session: Session) -> None:
    """Take a worker for dead: its attempts have failed, and count."""
    state = turn.state
    state.leaves(session, turn.now)
    drop_invocations(turn, session)
    attempts = [AttemptRef(run_id, key, fence) for fence, (run_id, key) in session.attempts.items()]
    turn.observe(WorkerLost(session.instance_id, attempts, tuple(session.lost_runs)))
    for fence, (run_id, key) in list(session.attempts.items()):
        at = state.step(run_id, key)
        if at is not None and at[1].fence == fence:
            steps.fail_attempt(turn, *at, quarantine.loss(session, at[1]), "lost")
    state.drop(session)


def drop_invocations(turn: Turn, session: Session) -> None:
    """Forget a session's invocations. Leads that were at work count: their run may be what kills its workers.

    One that only came as far again as the body had come before does not: it has done no harm there.
    """
    state = turn.state
    for invocation in list(session.invocations.values()):
        loaded = state.runs.get(invocation.run_id)
        busy = invocation.lead and (not invocation.parked or invocation.eager_fence != 0)
        busy = busy and loaded is not None and (invocation.sent > loaded.replayed_to or invocation.eager_fence != 0)
        alone = session.guest is invocation
        if session.state is SessionState.CONNECTED:
            eager.note(state, session, invocation)
        runs.forget(state, invocation)
        if loaded is not None:
            if busy and session.state is SessionState.CONNECTED:
                session.lost_runs.append(loaded.run.id)
                quarantine.count_loss(turn, loaded, session, alone)
            if not loaded.run.state.ended:
                requeue(state, loaded)


def requeue(state: State, loaded: LoadedRun) -> None:
    """See to it that a run without a lead gets one if it needs it."""
    runs.want_lead(state, loaded)
    state.idle_candidates[loaded.run.id] = None


def on_evicted(turn: Turn, dropped: Evicted) -> None:
    """Note that a worker no longer holds an invocation; what it was to run of it goes back into the queue."""
    state = turn.state
    session = state.sessions.get(dropped.session_id)
    loaded = state.runs.get(dropped.run_id)
    if session is None or authorization.invocation_is_foreign(
        turn, dropped.session_id, dropped.run_id, dropped.invocation
    ):
        return
    if loaded is None:
        return
    invocation = session.invocations.get(dropped.run_id)
    if not take_returned(turn, session, dropped.returned):
        return
    if invocation is not None and invocation.fence == dropped.invocation:
        if invocation.lead and not invocation.parked:
            loaded.replayed_to = -1
        runs.forget(state, invocation)
    requeue(state, loaded)


def take_returned(turn: Turn, session: Session, returned: Sequence[AttemptRef]) -> bool:
    """Take attempts back that a worker gives back; False if it was not given one of them."""
    for attempt in returned:
        at = turn.state.step(attempt.run_id, attempt.key)
        if at is not None and session.attempts.get(attempt.fence) == (attempt.run_id, attempt.key):
            steps.give_back(turn, *at)
        elif authorization.attempt_is_foreign(turn, session.id, attempt):
            return False
    return True


def on_draining(turn: Turn, drain: Draining) -> None:
    """Give a worker nothing new, and take back what it gives back."""
    session = turn.state.sessions.get(drain.session_id)
    if session is None:
        return
    if session.state is SessionState.CONNECTED:
        turn.state.leaves(session, turn.now)
        move_session(session, SessionEvent.DRAINED)
        session.draining = True
        drop_invocations(turn, session)
    if take_returned(turn, session, drain.returned) and drain.done:
        give_back_all(turn, session)
