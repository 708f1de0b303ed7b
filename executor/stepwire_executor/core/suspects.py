"""Steps that may be what ends their workers: each is tried where nothing else runs, so that it takes nobody with it.

The death of a worker counts against every attempt that ran there, for nobody knows which of them it was. So that this
can't be the end of an innocent step, one that was lost twice, or once with but one attempt left, runs alone from then
on. If its worker ends again it was the step's own doing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stepwire_executor.core import runs
from stepwire_executor.core.model import Failure, Step, StepKind, StepState
from stepwire_executor.core.state import HotRun, Session, State
from stepwire_executor.core.turns import PoolKey

LOST = "WorkerLostError"


def loss(session: Session, step: Step) -> Failure:
    """Describe the end of a running attempt whose worker was lost; it counts, for nobody knows how far it came."""
    when = "was lost in its drain" if session.draining else "was lost"
    return Failure(LOST, f"worker {session.instance_id} {when} with attempt {step.attempt} of step {step.key}")


def is_suspect(state: State, hot: HotRun, step: Step) -> bool:
    """Whether a step's next attempt has to be alone: the last was lost with its worker, and another may be the end."""
    lost = step.failure is not None and step.failure.type == LOST
    return lost and (step.attempt > 1 or runs.policy(state, hot.run, step).retries <= 1)


def place(state: State, able: Mapping[PoolKey, Sequence[Session]]) -> list[tuple[HotRun, Step, Session]]:
    """Say which suspects begin, and where; marks the session that is to be emptied for the next one.

    `able` are the sessions that can run a pool's steps. At most half of them (rounded up) are given to suspects at a
    time, and one at a time is emptied.
    """
    starts: list[tuple[HotRun, Step, Session]] = []
    used: set[str] = set()
    for (run_id, key), pool in list(state.suspects.items()):
        at = state.step(run_id, key)
        if at is None or not is_ready(*at):
            del state.suspects[run_id, key]
            continue
        free = [session for session in able[pool] if session.id not in used and not session.secluded]
        taken = len(able[pool]) - len(free)
        if not free or taken >= (len(able[pool]) + 1) // 2:
            continue
        session = min(free, key=lambda each: (not each.idle, len(each.attempts) + each.reserved, each.id))
        if not session.idle:
            session.emptied, state.emptied = True, session
            break
        used.add(session.id)
        del state.suspects[run_id, key]
        starts.append((*at, session))
    return starts


def is_ready(hot: HotRun, step: Step) -> bool:
    """Whether a step can begin: closures can't while their run's body is to be tried again later."""
    return step.state is StepState.READY and (hot.run.retry_at is None or step.kind is not StepKind.CLOSURE)
