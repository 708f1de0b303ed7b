"""What a worker may speak of: runs of its app, and the attempts and invocations that were given to it.

What is stale is refused inside the stream, where it was reported. Here is what can be no honest mistake of a worker
that was cut off for a while; it ends the stream.
"""

from __future__ import annotations

from stepwire_core.commands import Rejected
from stepwire_core.inputs import AttemptRef, Hello
from stepwire_core.state import Session, State
from stepwire_core.turn import Turn

DENIED, UNASKED = "PERMISSION_DENIED", "FAILED_PRECONDITION"


def attempt_is_foreign(turn: Turn, session_id: str, attempt: AttemptRef) -> bool:
    """Whether a worker speaks of an attempt that it can't have been given; its stream is ended, then.

    An attempt that was given to another worker after this one was lost has a higher fence than this one knows: whoever
    names the current fence of another's attempt has not got it from the executor.
    """
    session = turn.state.sessions.get(session_id)
    if session is None:
        return False
    what = f"attempt {attempt.fence} of step {attempt.key} of run {attempt.run_id}"
    for other in turn.state.sessions.values():
        if other is not session and other.attempts.get(attempt.fence) == (attempt.run_id, attempt.key):
            return end_stream(turn, session, DENIED, f"{what} was given to worker {other.instance_id}")
    return is_strange(turn, session, what, attempt.run_id, attempt.fence)


def invocation_is_foreign(turn: Turn, session_id: str, run_id: str, fence: int) -> bool:
    """Whether a worker speaks of an invocation that it can't have been given; its stream is ended, then."""
    state = turn.state
    session = state.sessions.get(session_id)
    if session is None:
        return False
    what = f"invocation {fence} of run {run_id}"
    loaded = state.runs.get(run_id)
    for invocation in (loaded.lead, *loaded.replicas.values()) if loaded is not None else ():
        if invocation is not None and invocation.fence == fence and invocation.session_id != session_id:
            holder = state.sessions[invocation.session_id].instance_id
            return end_stream(turn, session, DENIED, f"{what} was given to worker {holder}")
    return is_strange(turn, session, what, run_id, fence)


def is_strange(turn: Turn, session: Session, what: str, run_id: str, fence: int) -> bool:
    """Whether a worker speaks of another app's run, or of a fence that nobody was given yet."""
    state = turn.state
    loaded = state.runs.get(run_id)
    if loaded is not None and loaded.run.app != session.app:
        return end_stream(
            turn, session, DENIED, f"{what} is of app {loaded.run.app}, and this worker serves {session.app}"
        )
    if fence > state.fence:
        return end_stream(
            turn, session, UNASKED, f"{what} was never given to anybody: the newest fence is {state.fence}"
        )
    return False


def end_stream(turn: Turn, session: Session, code: str, what: str) -> bool:
    """End a worker's stream because of what it has said."""
    message = f"{what}: worker {session.instance_id} may report what it was given itself, and nothing else"
    turn.send(Rejected(session.id, session.stream, code, message))
    return True


def theft(state: State, worker: Hello) -> str:
    """Say what a worker claims that is another one's, a session or a name; "" if it claims nothing such."""
    who = f"worker {worker.instance_id} of app {worker.app}"
    old = state.sessions.get(worker.resume_session)
    if old is not None and (old.instance_id, old.app) != (worker.instance_id, worker.app):
        return (
            f"{who} wants to resume a session of worker {old.instance_id} of app {old.app}: "
            "a worker resumes its own session, or leaves resume_session empty"
        )
    for other in state.sessions.values():
        same = (other.instance_id, other.app) == (worker.instance_id, worker.app)
        if same and other.identity != worker.identity:
            return (
                f"{who} has connected with another token, which its session and its name belong to: "
                "give each worker an instance id of its own, or wait until that one is gone"
            )
    return ""
