"""A step that kills its workers fails at its cap; those beside it do not."""

from __future__ import annotations

import random

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure, FunctionOptions, Retry, StepKey, StepState
from tests.core.world import World, closure, of_type

GRACE = 5.1


class Fleet:
    """Workers under a supervisor: whoever runs the step "poison" dies, and another one takes its place."""

    def __init__(self, workers: int, slots: int, retries: int) -> None:
        retry = Retry(retries, initial_interval=0.1, maximum_interval=1.0)
        self.world = World(FunctionOptions("f", ("go",), retry))
        self.slots = slots
        self.running: dict[int, c.StartAttempt] = {}
        self.deaths = 0
        for _ in range(workers):
            self.add()

    def add(self) -> None:
        name = f"w{self.deaths}-{len(self.world.state.sessions)}"
        self.take(self.world.worker(name, slots=self.slots, stream=name))

    def take(self, commands: list[c.Command]) -> None:
        """Note what begins; bodies run dry at once."""
        for start in of_type(commands, c.StartAttempt):
            self.running[start.fence] = start
        for body in [*of_type(commands, c.Invoke), *of_type(commands, c.Resume)]:
            loaded = self.world.state.runs.get(body.run.id)
            if (
                loaded is not None
                and loaded.lead is not None
                and loaded.lead.fence == body.invocation
                and loaded.run.steps
            ):
                self.take(self.world.find(loaded.run.id))

    def kill(self, session_id: str) -> list[c.StartAttempt]:
        """End a worker, and begin another; gives what ran there."""
        lost = [start for start in self.running.values() if start.session_id == session_id]
        for start in lost:
            del self.running[start.fence]
        self.deaths += 1
        self.take(self.world.tell(i.StreamLost(session_id, session_id)))
        self.add()
        self.take(self.world.wait(GRACE))
        return lost

    def succeed(self, start: c.StartAttempt) -> None:
        del self.running[start.fence]
        self.take(self.world.succeed(start))


def poisoned(fleet: Fleet, innocents: int, poisons: int, dice: random.Random) -> str:
    """Let a fan-out with poison in it come to its end, at a random pace; gives the run's id."""
    (run_id,) = fleet.world.send()
    steps = [closure("innocent", n) for n in range(innocents)] + [closure("poison", n) for n in range(poisons)]
    dice.shuffle(steps)
    fleet.take(fleet.world.find(run_id, *steps))
    while fleet.world.state.runs[run_id].run.open:
        deadly = [start for start in fleet.running.values() if start.key.id == "poison"]
        harmless = [start for start in fleet.running.values() if start.key.id == "innocent"]
        if deadly and dice.random() < 0.5:
            lost = fleet.kill(dice.choice(deadly).session_id)
            assert len(lost) == 1 or all(start.number <= 2 for start in lost), "a suspect ran beside others"
        elif harmless and dice.random() < 0.5:
            fleet.succeed(dice.choice(harmless))
        else:
            fleet.take(fleet.world.wait(dice.choice([0.1, 1.0])))
    return run_id


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("retries", [1, 2, 4])
def test_poison_fails_at_its_cap_and_the_innocent_all_succeed(workers: int, retries: int) -> None:
    for seed in range(20):
        fleet = Fleet(workers, slots=8, retries=retries)
        run_id = poisoned(fleet, 50, 2, random.Random(seed))
        steps = fleet.world.run(run_id).steps.values()
        for step in steps:
            if step.key.id == "poison":
                assert (step.state, step.attempt) == (StepState.FAILED, retries + 1), seed
                assert step.failure is not None
                assert step.failure.type == "WorkerLostError"
            else:
                assert step.state is StepState.SUCCEEDED, f"seed {seed}: {step}"
        assert fleet.deaths <= 2 * (retries + 1)


def suspect(fleet: Fleet) -> tuple[str, c.StartAttempt]:
    """Start a run with a step that has been lost twice; gives its third attempt."""
    (run_id,) = fleet.world.send()
    fleet.take(fleet.world.find(run_id, closure("poison")))
    for _ in range(2):
        (start,) = [start for start in fleet.running.values() if start.key.id == "poison"]
        fleet.kill(start.session_id)
        fleet.take(fleet.world.wait(1.0))
    (start,) = [start for start in fleet.running.values() if start.key.id == "poison"]
    return run_id, start


def test_nothing_joins_a_suspect_and_it_goes_on_when_the_suspect_has_ended() -> None:
    fleet = Fleet(1, slots=4, retries=4)
    run_id, start = suspect(fleet)
    fleet.take(fleet.world.find(run_id, closure("late"), sequence=0))
    assert [each.key.id for each in fleet.running.values()] == ["poison"]
    assert not of_type(fleet.world.tell(i.Tick()), c.Invoke)
    fleet.succeed(start)
    assert [each.key.id for each in fleet.running.values()] == ["late"]


def test_half_of_the_workers_are_left_to_others() -> None:
    fleet = Fleet(4, slots=1, retries=4)
    (run_id,) = fleet.world.send()
    fleet.take(fleet.world.find(run_id, *[closure("poison", n) for n in range(4)]))
    for _ in range(2):
        for start in list(fleet.running.values()):
            fleet.kill(start.session_id)
        fleet.take(fleet.world.wait(1.0))
    fleet.take(fleet.world.find(run_id, *[closure("late", n) for n in range(4)], sequence=0))
    assert sorted(each.key.id for each in fleet.running.values()) == ["late", "late", "poison", "poison"]


def test_a_suspect_that_fails_by_itself_is_none_any_more() -> None:
    fleet = Fleet(1, slots=4, retries=4)
    run_id, start = suspect(fleet)
    del fleet.running[start.fence]
    fleet.take(fleet.world.fail(start, Failure("ValueError", "bad")))
    fleet.take(fleet.world.find(run_id, closure("late"), sequence=0))
    fleet.take(fleet.world.wait(1.0))
    assert {"poison", "late"} <= {each.key.id for each in fleet.running.values()}


def test_a_suspect_stays_one_over_a_restart_and_a_cancelled_one_leaves_no_trace() -> None:
    fleet = Fleet(1, slots=4, retries=4)
    run_id, _ = suspect(fleet)
    fleet.world.crash()
    assert [key for _, key in fleet.world.state.quarantine] == [StepKey("poison", 0)]
    fleet.world.tell(i.RunCancelled(run_id, "enough"))
    fleet.world.worker("another")
    assert not fleet.world.state.quarantine
