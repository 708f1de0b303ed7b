"""What the core counts and refers to, beside what it stands for: nothing of it may drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from stepwire_core.model import Step, StepKind, StepState, size
from stepwire_core.state import LoadedRun, Session, State

BUSY = (StepState.READY, StepState.RUNNING)


def drifted(state: State) -> Iterator[str]:
    """Tell what does not agree, in words."""
    waiting = {
        run_id: len(loaded.run.event.data) + sum(map(size, loaded.run.journal))
        for run_id, loaded in state.runs.items()
        if loaded.wants_worker
    }
    if len(state.queued) != len(waiting) or not all(run_id in state.queued for run_id in waiting):
        yield f"{len(state.queued)} runs are counted as queued, but {len(waiting)} are"
    if state.queued.bytes != sum(waiting.values()):
        yield f"{state.queued.bytes} bytes are counted as queued, but {sum(waiting.values())} are"
    apps = Counter(state.runs[run_id].run.app for run_id in waiting)
    for app in {*apps, *state.queued._shares}:
        if state.queued.of(app)[0] != apps[app]:
            yield f"{state.queued.of(app)[0]} runs of {app} are counted as queued, but {apps[app]} are"
    held = Counter(state.held.steps())
    without = Counter(
        (run_id, step.key)
        for run_id, loaded in state.runs.items()
        for step in loaded.run.open.values()
        if starts_later(step)
    )
    if held != without:
        yield f"steps {held} are held, but {without} wait for room"
    if state.held.granted_runs != sum(each.starts for each in state.held._granted.values()):
        yield f"{state.held.granted_runs} runs have been granted room, but others should have"
    if not held and (+state.held._bytes or +state.held._of_run):
        yield f"nothing is held, but {state.held._bytes} bytes are counted of {state.held._of_run}"
    for run_id, loaded in state.runs.items():
        for wrong in of_run(state, run_id, loaded):
            yield f"run {run_id}: {wrong}"
    for session in state.sessions.values():
        for wrong in of_session(state, session):
            yield f"session {session.id}: {wrong}"


def starts_later(step: Step) -> bool:
    """Whether a step waits for room for what it starts."""
    if step.state is not StepState.WAITING:
        return False
    return step.kind is StepKind.SEND_EVENTS or (step.kind is StepKind.INVOKE and not step.child_run_id)


def of_run(state: State, run_id: str, loaded: LoadedRun) -> Iterator[str]:
    """Tell what does not agree of a run in memory."""
    run = loaded.run
    if run.id != run_id or run.state.ended:
        yield f"it is {run.id}, {run.state.name}"
    unfinished = {key: step for key, step in run.steps.items() if not step.state.ended}
    if run.open != unfinished:
        yield f"{len(run.open)} steps are open, but {len(unfinished)} are unfinished"
    busy = sum(step.state in BUSY for step in unfinished.values())
    if loaded.busy != busy:
        yield f"{loaded.busy} steps are counted as busy, but {busy} are"
    ended = [step for step in run.steps.values() if step.sequence]
    if len(run.journal) != len(ended):
        yield f"{len(run.journal)} results are in the journal, but {len(ended)} steps have one"
    for step in unfinished.values():
        held = state.sessions.get(step.session) if step.state is StepState.RUNNING else None
        if step.state is StepState.RUNNING and (held is None or held.attempts.get(step.fence) != (run_id, step.key)):
            yield f"step {step.key} runs in {step.session!r}, which does not know it"
    for session_id, invocation in [
        *loaded.replicas.items(),
        *([(loaded.lead.session_id, loaded.lead)] if loaded.lead else []),
    ]:
        session = state.sessions.get(session_id)
        if session is None or session.invocations.get(run_id) is not invocation:
            yield f"its invocation {invocation.fence} is not one of session {session_id!r}"


def of_session(state: State, session: Session) -> Iterator[str]:
    """Tell what does not agree of a session."""
    permitted = {invocation.eager_fence for invocation in session.invocations.values()} - {0}
    if session.permitted != permitted:
        yield f"slots are kept for {session.permitted}, but bodies may run {permitted} unasked"
    for fence, (run_id, key) in session.attempts.items():
        at = state.step(run_id, key)
        if at is None or at[1].state is not StepState.RUNNING or (at[1].fence, at[1].session) != (fence, session.id):
            yield f"attempt {fence} of step {key} of run {run_id} holds a slot, but does not run"
    for run_id, invocation in session.invocations.items():
        loaded = state.runs.get(run_id)
        if loaded is None or invocation not in (loaded.lead, loaded.replicas.get(session.id)):
            yield f"its invocation of run {run_id} is not one of that run's"
    if session.guest is not None and session.invocations.get(session.guest.run_id) is not session.guest:
        yield f"its guest of run {session.guest.run_id} is not there"
