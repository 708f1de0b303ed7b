"""Lone steps that a lead may have begun before their plan came: whose attempt each is, once it is planned.

A lead runs a lone step at once under the fence that came with Invoke or Resume, and its plan follows. When its stream
is lost in between, nobody knows whether the code has begun. So the permission is kept with the run: if the next lead
finds a lone closure at the same place, that is the attempt of the permission. It goes on if its worker comes back with
it in time, and counts as lost with its worker otherwise.
"""

from __future__ import annotations

from collections.abc import Collection

from stepwire_core.commands import CancelAttempt
from stepwire_core.inputs import AttemptRef, StepPlanned, StepsFound
from stepwire_core.model import Step, StepKind, StepState
from stepwire_core.state import EPOCH_BITS, Begun, Invocation, LoadedRun, Session, State
from stepwire_core.transitions import free_slot, keep_slot
from stepwire_core.turn import Turn


def note(state: State, session: Session, invocation: Invocation) -> None:
    """Note, as a stream is lost, that its lead may have begun a lone step."""
    loaded = state.runs.get(invocation.run_id)
    if loaded is not None and invocation.lead and invocation.eager_fence:
        loaded.begun = Begun(invocation.eager_fence, session, invocation.sent)
        session.begun[invocation.eager_fence] = loaded.run.id


def claim(
    state: State, loaded: LoadedRun, lead: Invocation, step: Step, new: StepPlanned, report: StepsFound
) -> Begun | None:
    """Give the attempt that a step began with before it was planned, if there is one."""
    if step.kind is not StepKind.CLOSURE:
        return None
    if new.eager_fence and new.eager_fence == lead.eager_fence:
        session = state.sessions[lead.session_id]
        free_slot(session, lead)
        return Begun(new.eager_fence, session, report.sequence)
    begun = loaded.begun
    is_lone = len(report.steps) == 1 and len(loaded.run.open) == 1
    return begun if begun is not None and is_lone and report.sequence == begun.sequence else None


def decline(turn: Turn, lead: Invocation, new: StepPlanned) -> None:
    """Stop what a lead has begun, if the step is the attempt of a worker that has come back since with its plan."""
    if new.eager_fence and new.eager_fence == lead.eager_fence:
        session = turn.state.sessions[lead.session_id]
        free_slot(session, lead)
        attempt = AttemptRef(lead.run_id, new.key, new.eager_fence)
        turn.cancel(CancelAttempt(session.id, attempt, "another worker has begun the step before"))


def is_lost(state: State, begun: Begun) -> bool:
    """Whether the worker of an attempt is gone, or has come back without the plan."""
    return state.sessions.get(begun.session.id) is not begun.session


def awaits(
    state: State, session: Session, old: Session | None, plan: StepsFound, resumed_epoch: int
) -> LoadedRun | None:
    """Give the run whose next step a worker has begun and brings the plan of; None if it can't be that.

    Its permission is one that the session had when its stream was lost, or is of the last life of the executor.
    """
    loaded = state.runs.get(plan.run_id)
    if loaded is None or loaded.run.app != session.app or len(plan.steps) != 1:
        return None
    new, run = plan.steps[0], loaded.run
    fence, known = new.eager_fence, run.steps.get(new.key)
    if new.kind is not StepKind.CLOSURE or run.open or plan.sequence != len(run.journal):
        return None
    if known is not None and (known.state is not StepState.CANCELLED or known.fence > fence):
        return None
    epoch = fence >> EPOCH_BITS
    ours = loaded.begun is not None and loaded.begun.fence == fence and loaded.begun.session is old
    earlier = epoch < state.epoch <= max(epoch, resumed_epoch) + 1
    return loaded if ours or earlier else None


def lead_of(session: Session, plan: StepsFound) -> Invocation:
    """Give the lead that has found a plan as it was before its stream was lost, with its permission and its slot."""
    lead = Invocation(plan.run_id, session.id, plan.invocation, lead=True, sent=plan.sequence)
    keep_slot(session, lead, plan.steps[0].eager_fence)
    return lead


def forget(state: State, begun: dict[int, str], in_hand: Collection[int]) -> None:
    """Drop the permissions that a worker which has come back did not use: it does not have their attempts in hand."""
    for fence, run_id in begun.items():
        loaded = state.runs.get(run_id)
        if loaded is not None and loaded.begun is not None and loaded.begun.fence == fence and fence not in in_hand:
            loaded.begun = None
