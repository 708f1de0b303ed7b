"""Runs that only wait: how long they and their bodies stay where they are."""

from __future__ import annotations

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core import residence
from stepwire_core.model import FunctionOptions, Now, StepKey, StepKind, WaitSpec
from stepwire_core.state import IDLE_SECONDS
from tests.core.world import World, closure, of_type


def nap(index: int, seconds: float = 3600.0) -> i.StepPlanned:
    return i.StepPlanned(StepKey("nap", index), StepKind.SLEEP, delay=seconds)


def approval(index: int, seconds: float | None = None) -> i.StepPlanned:
    return i.StepPlanned(
        StepKey("approval", index), StepKind.WAIT_FOR_EVENT, "approved", wait=WaitSpec(), delay=seconds
    )


def find(world: World, run_id: str, *steps: i.StepPlanned) -> None:
    """Report steps, and say that events for them have not come yet."""
    for look_up in of_type(world.find(run_id, *steps), c.FindEvents):
        world.tell(i.EventsLookedUp(run_id, "approved", look_up.number, [], 0, more=False))


def approved(run_id: str, number: int) -> i.EventMatched:
    return i.EventMatched(run_id, "approved", i.FoundEvent(100 + number, b"event", {"[]": "[]"}))


def asleep(commands: list[c.Command]) -> list[str]:
    return [cancel.run_id for cancel in of_type(commands, c.CancelRun) if cancel.reason == "asleep"]


def test_a_body_that_invokes_others_one_by_one_is_entered_once() -> None:
    world = World(FunctionOptions("f", ("go",)), FunctionOptions("g"))
    world.worker("w1", functions=("f", "g"))
    (run_id,) = world.send()
    for n in range(20):
        world.find(run_id, i.StepPlanned(StepKey("call", n), StepKind.INVOKE, target="/g"))
        child = world.run(run_id).steps[StepKey("call", n)].child_run_id
        world.wait(1.0)
        world.tell(i.RunFinished("w1", child, world.invocation(child), b"fine", 4))
    invoked = [invoke.run.id for invoke in of_type(world.commands, c.Invoke)]
    assert invoked.count(run_id) == 1
    assert len(world.run(run_id).journal) == 20


@pytest.mark.parametrize("seconds", [None, 86_400.0], ids=["without a timeout", "with a long one"])
def test_a_body_that_waits_for_one_event_after_the_other_is_entered_once(seconds: float | None) -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    for n in range(10):
        find(world, run_id, approval(n, seconds))
        world.wait(2.0)
        world.tell(approved(run_id, n))
    assert len(of_type(world.commands, c.Invoke)) == 1
    assert len(world.run(run_id).journal) == 10


def test_a_run_leaves_the_memory_once_nothing_has_happened_for_long_and_not_before() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    find(world, run_id, nap(0), approval(0), approval(1))
    assert not asleep(world.wait(IDLE_SECONDS - 1.0))
    world.tell(approved(run_id, 0))
    world.find(run_id)
    assert not asleep(world.wait(IDLE_SECONDS - 1.0)), "the event began the time anew"
    due = world.state.next_delay(Now(world.wall, world.mono))
    assert due is not None
    assert due <= 1.0
    assert asleep(world.wait(due)) == [run_id]
    assert run_id not in world.state.runs
    assert len(of_type(world.tell(approved(run_id, 1)), c.Invoke)) == 1


def test_a_run_stays_in_memory_for_what_is_due_soon() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, nap(0, 1.9 * IDLE_SECONDS))
    assert not asleep(world.wait(IDLE_SECONDS))
    commands = world.wait(0.9 * IDLE_SECONDS)
    assert not of_type(commands, c.Invoke)
    assert len(of_type(commands, c.Resume)) == 1


def test_a_run_whose_body_is_at_work_again_stays() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, nap(0))
    world.wait(1.0)
    world.find(run_id, closure("late"))
    assert not asleep(world.wait(IDLE_SECONDS))
    assert run_id in world.state.runs


def test_of_too_many_idle_runs_the_longest_idle_leave_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residence, "MOST_IDLE", 3)
    world = World()
    world.worker("w1")
    runs = [world.send(event_id=f"e{n}")[0] for n in range(5)]
    left = [run for run_id in runs for run in asleep(world.find(run_id, nap(0)))]
    assert left == runs[:2]


def test_very_many_idle_runs_leave_the_memory_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residence, "MOST_UNLOADED", 4)
    world = World()
    world.worker("w1")
    for n in range(10):
        world.find(world.send(event_id=f"e{n}")[0], nap(0))
    sizes = [len(asleep(world.wait(IDLE_SECONDS)))]
    while world.state.runs:
        assert world.state.next_delay(Now(world.wall, world.mono)) == 0.0
        sizes.append(len(asleep(world.tell(i.Tick()))))
    assert sizes == [4, 4, 2]


def test_a_run_that_waits_leaves_the_memory_at_once_when_its_body_makes_room() -> None:
    world = World()
    world.worker("w1", max_invocations=1)
    (first,) = world.send(event_id="e1")
    world.find(first, nap(0))
    (second,) = world.send(event_id="e2")
    assert list(world.state.runs) == [second]
    assert world.stored[first].wake_at == world.wall + 3600.0


def test_waits_that_have_ended_leave_no_timers_behind() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    state = world.state
    for n in range(2_500):
        find(world, run_id, approval(n, 86_400.0))
        world.tell(approved(run_id, n))
        world.stored[run_id].steps.clear()  # what was written is of no interest, and would be copied each time
        assert len(state.timers) < 2_200
