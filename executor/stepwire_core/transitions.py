"""What can happen to a step, a run and a session: the only module that changes their states.

Each table says which state follows when something happens in a state. What is not in a table can't happen: it raises
TransitionError, which is a bug. What follows from a state is derived here too: how many steps of a run are busy, and
which slots of a worker are kept for steps that its bodies may run unasked.
"""

from __future__ import annotations

from enum import IntEnum

from stepwire_core.model import Run, RunState, Step, StepKind, StepState
from stepwire_core.state import Invocation, LoadedRun, Session, SessionState


class TransitionError(Exception):
    """Something was to happen in a state in which it can't."""


class StepEvent(IntEnum):
    """What happens to a step."""

    ISSUED = 1
    """An attempt begins in a worker."""
    RETURNED = 2
    """The worker gives the attempt back; it does not count."""
    ATTEMPT_FAILED = 3
    """The attempt has failed, and another one follows after a backoff."""
    BACKOFF_ENDED = 4
    SUCCEEDED = 5
    FAILED = 6
    CANCELLED = 7
    """Its body has given it up."""


class RunEvent(IntEnum):
    """What happens to a run."""

    BEGUN = 1
    """A worker gets its body for the first time."""
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4


class SessionEvent(IntEnum):
    """What happens to a session. A worker that resumes one gets a new one with its id."""

    DRAINED = 1
    """The worker takes nothing new any more."""
    STREAM_LOST = 2


FIRST = {
    StepKind.CLOSURE: StepState.READY,
    StepKind.TASK: StepState.READY,
    StepKind.SLEEP: StepState.WAITING,
    StepKind.INVOKE: StepState.WAITING,
    StepKind.SEND_EVENTS: StepState.WAITING,
    StepKind.WAIT_FOR_EVENT: StepState.WAITING,
}
"""The state of a step that has been planned: those that a worker runs are ready, the others wait."""

STEP = {
    (StepState.READY, StepEvent.ISSUED): StepState.RUNNING,
    (StepState.READY, StepEvent.FAILED): StepState.FAILED,
    (StepState.READY, StepEvent.CANCELLED): StepState.CANCELLED,
    (StepState.RUNNING, StepEvent.RETURNED): StepState.READY,
    (StepState.RUNNING, StepEvent.ATTEMPT_FAILED): StepState.RETRYING,
    (StepState.RUNNING, StepEvent.SUCCEEDED): StepState.SUCCEEDED,
    (StepState.RUNNING, StepEvent.FAILED): StepState.FAILED,
    (StepState.RUNNING, StepEvent.CANCELLED): StepState.CANCELLED,
    (StepState.RETRYING, StepEvent.BACKOFF_ENDED): StepState.READY,
    (StepState.RETRYING, StepEvent.ISSUED): StepState.RUNNING,  # an earlier life issued it; its worker is back
    (StepState.RETRYING, StepEvent.FAILED): StepState.FAILED,
    (StepState.RETRYING, StepEvent.CANCELLED): StepState.CANCELLED,
    (StepState.WAITING, StepEvent.SUCCEEDED): StepState.SUCCEEDED,
    (StepState.WAITING, StepEvent.FAILED): StepState.FAILED,
    (StepState.WAITING, StepEvent.CANCELLED): StepState.CANCELLED,
}

RUN = {
    (RunState.PENDING, RunEvent.BEGUN): RunState.RUNNING,
    (RunState.PENDING, RunEvent.FAILED): RunState.FAILED,
    (RunState.PENDING, RunEvent.CANCELLED): RunState.CANCELLED,
    (RunState.RUNNING, RunEvent.SUCCEEDED): RunState.SUCCEEDED,
    (RunState.RUNNING, RunEvent.FAILED): RunState.FAILED,
    (RunState.RUNNING, RunEvent.CANCELLED): RunState.CANCELLED,
}

SESSION = {
    (SessionState.CONNECTED, SessionEvent.DRAINED): SessionState.DRAINING,
    (SessionState.CONNECTED, SessionEvent.STREAM_LOST): SessionState.LOST,
    (SessionState.DRAINING, SessionEvent.STREAM_LOST): SessionState.LOST,
}


_MOVES = {(state, event): (after, after.busy - state.busy) for (state, event), after in STEP.items()}
"""The same, with what it adds to the number of busy steps."""


def plan_step(loaded: LoadedRun, step: Step) -> None:
    """Give a step its first state: a new one, or one that its body wants again after it had given it up."""
    step.state = FIRST[step.kind]
    loaded.busy += step.state.busy


def load_step(loaded: LoadedRun, step: Step) -> None:
    """Count a step that has come from the store, unfinished. An attempt of an earlier life is forgotten, uncounted."""
    if step.state is StepState.RUNNING:
        step.state = StepState.READY
        step.attempt -= 1
    loaded.busy += step.state.busy


def move_step(loaded: LoadedRun, step: Step, event: StepEvent) -> None:
    """Change a step's state by what has happened to it."""
    move = _MOVES.get((step.state, event))
    if move is None:
        raise TransitionError(f"step {step.key} of run {loaded.run.id} is {step.state.name}: it can't be {event.name}")
    step.state, more = move
    loaded.busy += more


def move_run(run: Run, event: RunEvent) -> None:
    """Change a run's state by what has happened to it."""
    after = RUN.get((run.state, event))
    if after is None:
        raise TransitionError(f"run {run.id} is {run.state.name}: it can't be {event.name}")
    run.state = after


def move_session(session: Session, event: SessionEvent) -> None:
    """Change a session's state by what has happened to it."""
    after = SESSION.get((session.state, event))
    if after is None:
        raise TransitionError(f"session {session.id} is {session.state.name}: it can't be {event.name}")
    session.state = after


def keep_slot(session: Session, invocation: Invocation, fence: int) -> None:
    """Keep a slot of its worker for the lone step that an invocation may run unasked, with this fence."""
    invocation.eager_fence = fence
    session.permitted.add(fence)


def free_slot(session: Session | None, invocation: Invocation) -> None:
    """Let the slot go that was kept for an invocation's lone step, if one was."""
    if invocation.eager_fence:
        if session is not None:
            session.permitted.discard(invocation.eager_fence)
        invocation.eager_fence = 0
