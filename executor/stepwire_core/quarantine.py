"""Steps and bodies that may be what ends their workers: each is tried where nothing else runs, and takes nobody along.

The death of a worker counts against every attempt that ran there, and every body that was at work there, for nobody
knows which of them it was. So that this can't be the end of an innocent one, what was lost twice, or once where another
loss may be the last, runs alone from then on. If its worker ends again it was its own doing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stepwire_core import retries, runs
from stepwire_core.model import Failure, Step, StepKey, StepKind, StepState
from stepwire_core.state import LoadedRun, Session, SessionState, State
from stepwire_core.timer_queue import TimerKind
from stepwire_core.turn import Turn
from stepwire_core.turns import PoolKey

LOST = "WorkerLostError"


def loss(session: Session, step: Step) -> Failure:
    """Describe the end of a running attempt whose worker was lost; it counts, for nobody knows how far it came."""
    when = "was lost in its drain" if session.draining else "was lost"
    return Failure(LOST, f"worker {session.instance_id} {when} with attempt {step.attempt} of step {step.key}")


def is_suspect(state: State, loaded: LoadedRun, step: Step) -> bool:
    """Whether a step's next attempt has to be alone: the last was lost with its worker, and another may be the end."""
    lost = step.failure is not None and step.failure.type == LOST
    return lost and (step.attempt > 1 or retries.policy(state, loaded.run, step).retries <= 1)


def enqueue(state: State, loaded: LoadedRun, step: Step, *, first: bool = False) -> None:
    """Put a ready step into the queue of those who can run it."""
    pool = state.pool(loaded, step)
    if is_suspect(state, loaded, step):
        state.quarantine[loaded.run.id, step.key] = pool
    else:
        state.ready.at(pool).push(loaded.run.id, step.key, first=first)


def enqueue_closures(state: State, loaded: LoadedRun) -> None:
    """Put the ready closures of a run into their queue again, which were left out while its body could not run."""
    for step in loaded.run.open.values():
        if step.state is StepState.READY and step.kind is StepKind.CLOSURE:
            enqueue(state, loaded, step)


def place(state: State, able: Mapping[PoolKey, Sequence[Session]]) -> list[tuple[LoadedRun, Step | None, Session]]:
    """Say which suspects begin, and where (no step: a body); marks the session that is to be emptied for the next one.

    `able` are the sessions that can run what is in a pool. At most half of them (rounded up) are given to suspects at a
    time, and one at a time is emptied.
    """
    starts: list[tuple[LoadedRun, Step | None, Session]] = []
    used: set[str] = set()
    for (run_id, key), pool in list(state.quarantine.items()):
        found = find(state, run_id, key)
        if found is None:
            del state.quarantine[run_id, key]
            continue
        free = [session for session in able[pool] if session.id not in used and not session.secluded]
        taken = len(able[pool]) - len(free)
        if not free or taken >= (len(able[pool]) + 1) // 2:
            continue
        session = min(free, key=lambda each: (not is_empty(each, run_id), each.slots - each.room, each.id))
        if is_empty(session, run_id):
            used.add(session.id)
            del state.quarantine[run_id, key]
            starts.append((*found, session))
        elif state.emptied is None:
            session.emptied, state.emptied = True, session
    return starts


def find(state: State, run_id: str, key: StepKey | None) -> tuple[LoadedRun, Step | None] | None:
    """Find a suspect that can begin."""
    loaded = state.runs.get(run_id)
    if loaded is None:
        return None
    if key is None:
        return (
            (loaded, None)
            if loaded.lead is None and loaded.run.retry_at is None and state.suspects_body(loaded)
            else None
        )
    step = loaded.run.steps.get(key)
    return (loaded, step) if step is not None and is_ready(state, loaded, step) else None


def is_ready(state: State, loaded: LoadedRun, step: Step) -> bool:
    """Whether a step can begin. Closures can't while their body is to be tried later, or has to be alone."""
    if step.state is not StepState.READY:
        return False
    return step.kind is not StepKind.CLOSURE or (loaded.run.retry_at is None and not state.suspects_body(loaded))


def is_empty(session: Session, run_id: str) -> bool:
    """Whether no attempt, and no body of another run, is at work in a worker."""
    if not session.idle:
        return False
    others = (each for each in session.invocations.values() if each.lead and each.run_id != run_id)
    return all(each.parked for each in others)


def count_loss(turn: Turn, loaded: LoadedRun, session: Session, alone: bool) -> None:
    """Note that a run's worker was lost while its body ran. The last of the losses that it may have must be its own."""
    run, limit = loaded.run, turn.state.limits.max_lost_invocations
    run.lost_invocations += 1
    loaded.replayed_to = -1
    turn.changed(run)
    if alone and run.lost_invocations >= limit:
        message = (
            f"run {run.id} lost {run.lost_invocations} workers while its body ran (--max-lost-invocations={limit}), "
            "the last while nothing else ran there"
        )
        advice = "something in the body, or its first step, ends the process"
        runs.fail(turn, loaded, Failure(LOST, f"{message}: {advice}", retryable=False))
        return
    message = f"worker {session.instance_id} was lost while it ran the body of run {run.id}"
    run.failure = Failure(LOST, f"{message}, {run.lost_invocations} times without progress")
    if alone:
        put_off(turn, loaded)


def put_off(turn: Turn, loaded: LoadedRun) -> None:
    """Have a body wait that has just ended its worker by itself, so that others come in between."""
    run = loaded.run
    delay = retries.backoff(retries.policy(turn.state, run), 1, run.id, None)
    run.retry_at = turn.now.steady + delay
    turn.state.quarantine.pop((run.id, None), None)
    turn.after(delay, TimerKind.BODY_RETRY, run.id, fence=run.attempt)


def serve_others_first(turn: Turn, session: Session) -> None:
    """Have a worker that is the only one of its app, and has just come, be given to others before it is to suspects.

    A body that has ended the worker before would end this one too, and others would wait for the next.
    """
    for run_id, key in list(turn.state.quarantine):
        loaded = turn.state.runs.get(run_id)
        if key is not None or loaded is None or loaded.run.app != session.app or loaded.run.lost_invocations <= 2:
            continue
        connected = [each for each in turn.state.sessions.values() if each.state is SessionState.CONNECTED]
        if sum(each.app == session.app for each in connected) <= 1:
            put_off(turn, loaded)
