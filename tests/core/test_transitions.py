"""The tables of what can happen: complete, without a way out of an end, and refusing everything else."""

from __future__ import annotations

import pytest

from stepwire_core import transitions
from stepwire_core.model import Event, Run, RunState, Step, StepKey, StepKind, StepState
from stepwire_core.state import LoadedRun
from stepwire_core.transitions import RunEvent, StepEvent, TransitionError


def hot_run(*states: StepState) -> LoadedRun:
    run = Run("r", "app", "f", "", Event("e", "go", b"", 1.0), 1.0)
    for number, state in enumerate(states):
        step = Step(StepKey("s", number), number, StepKind.CLOSURE, state=state)
        run.steps[step.key] = run.open[step.key] = step
    return LoadedRun(run)


def test_nothing_follows_an_end() -> None:
    assert not [state for state, _ in transitions.STEP if state.ended]
    assert not [state for state, _ in transitions.RUN if state.ended]


def test_every_state_can_be_reached_and_every_event_happens_somewhere() -> None:
    assert set(transitions.STEP.values()) | set(transitions.FIRST.values()) == set(StepState)
    assert {event for _, event in transitions.STEP} == set(StepEvent)
    assert set(transitions.RUN.values()) | {RunState.PENDING} == set(RunState)
    assert {event for _, event in transitions.RUN} == set(RunEvent)
    assert set(transitions.FIRST) == set(StepKind)


@pytest.mark.parametrize("state", StepState)
@pytest.mark.parametrize("event", StepEvent)
def test_a_step_moves_as_the_table_says_and_its_run_counts_what_is_busy(state: StepState, event: StepEvent) -> None:
    loaded = hot_run(state)
    (step,) = loaded.run.steps.values()
    loaded.busy = int(state.busy)
    after = transitions.STEP.get((state, event))
    if after is None:
        with pytest.raises(TransitionError, match=f"s of run r is {state.name}: it can't be {event.name}"):
            transitions.move_step(loaded, step, event)
        after = state
    else:
        transitions.move_step(loaded, step, event)
    assert step.state is after
    assert loaded.busy == after.busy


def test_an_attempt_of_an_earlier_life_is_forgotten_uncounted() -> None:
    loaded = hot_run(StepState.RUNNING)
    (step,) = loaded.run.steps.values()
    step.attempt = 2
    transitions.load_step(loaded, step)
    assert (step.state, step.attempt, loaded.busy) == (StepState.READY, 1, 1)
