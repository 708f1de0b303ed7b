"""Who gets a turn: whatever is ready goes round over functions, tasks and runs, across decisions."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure, FunctionOptions, Retry, Step, StepKey, StepKind, StepState
from stepwire_core.state import LoadedRun
from tests.core.world import World, closure, of_type
from tests.histories.turns import Ready, Turns

FUNCTIONS = ("f", "g", "h")


def world_of(*functions: str, **more: object) -> World:
    """Give a world whose functions start with an event of their own name."""
    return World(*[FunctionOptions(each, (each,), Retry(9, 0.5, 1.0)) for each in functions])


def task(index: int, name: str = "t") -> i.StepPlanned:
    return i.StepPlanned(StepKey(f"call-{name}", index), StepKind.TASK, target=name)


class Crowd:
    """A world, and what runs in it. Every decision is held against the law of turns."""

    def __init__(self, world: World, promised: int = 0) -> None:
        self.world = world
        self.turns = Turns(promised)
        self.running: list[c.StartAttempt] = []
        self.began: list[str] = []
        """Functions and tasks whose steps have begun, in their order."""
        self.broken: list[str] = []
        self._seen = self._told = 0
        self._names = 0

    def send(self, function: str) -> str:
        self._names += 1
        (run_id,) = self.world.send(function, event_id=f"{function}-{self._names}")
        self.look()
        return run_id

    def find(self, run_id: str, *steps: i.StepPlanned) -> None:
        self.world.find(run_id, *steps)
        self.look()

    def succeed(self, start: c.StartAttempt) -> None:
        self.running.remove(start)
        self.world.succeed(start)
        self.look()

    def fail(self, start: c.StartAttempt) -> None:
        self.running.remove(start)
        self.world.fail(start, Failure("ValueError", "bad"))
        self.look()

    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)
        self.look()

    def work(self, steps: int) -> None:
        """Let so many steps end, those that began first."""
        for _ in range(steps):
            self.succeed(self.running[0])

    def look(self) -> None:
        """Hold what the last decision has begun against the law."""
        commands = self.world.commands
        self.running += of_type(commands[self._told :], c.StartAttempt)
        self._told = len(commands)
        issued = [each for each in self.world.observations[self._seen :] if isinstance(each, c.AttemptIssued)]
        self._seen = len(self.world.observations)
        for loaded in self.world.state.runs.values():
            for step in loaded.run.open.values():
                if step.state is StepState.READY:
                    self.turns.ready(ready(loaded, step))
        for each in issued:
            loaded = self.world.state.runs[each.run_id]
            step = ready(loaded, loaded.run.steps[each.key])
            self.turns.ready(step)
            self.began.append(step.turn)
            self.broken += self.turns.begun(step)


def ready(loaded: LoadedRun, step: Step) -> Ready:
    turn = f"task {step.target}" if step.kind is StepKind.TASK else loaded.run.function_id
    return Ready(turn, loaded.run.id, str(step.key))


def test_a_step_of_another_function_begins_after_one_of_a_fan_out() -> None:
    world = world_of("big", "small")
    world.worker("w1", slots=1, functions=("big", "small"))
    crowd = Crowd(world)
    crowd.find(crowd.send("big"), *[closure("part", n) for n in range(40)])
    crowd.work(3)
    crowd.find(crowd.send("small"), closure("one"))
    crowd.work(2)
    assert "small" in crowd.began[-2:]
    assert not crowd.broken


def test_two_fan_outs_of_different_functions_share_slots_that_become_free_one_by_one() -> None:
    world = world_of("big", "other")
    world.worker("w1", slots=3, functions=("big", "other"))
    crowd = Crowd(world)
    crowd.find(crowd.send("big"), *[closure("part", n) for n in range(40)])
    crowd.find(crowd.send("other"), *[closure("part", n) for n in range(40)])
    crowd.work(40)
    count = Counter(crowd.began)
    assert abs(count["big"] - count["other"]) <= 4
    assert not crowd.broken


def test_a_small_run_waits_for_one_step_of_each_of_three_big_ones() -> None:
    world = world_of("f")
    world.worker("w1", slots=4)
    crowd = Crowd(world)
    for _ in range(3):
        crowd.find(crowd.send("f"), *[closure("part", n) for n in range(100)])
    crowd.work(10)
    small = crowd.send("f")
    crowd.find(small, closure("one"))
    crowd.work(4)
    assert small in [start.run.id for start in crowd.running]
    assert not crowd.broken


def chain(world: World, crowd: Crowd, run_id: str, index: int) -> bool:
    """Let a lead find its next lone step, and run it at once if it may; says whether it could."""
    lead = world.state.runs[run_id].lead
    assert lead is not None
    fence, sequence = lead.eager_fence, lead.sent
    step = closure("link", index, eager_fence=fence)
    world.tell(i.StepsFound(lead.session_id, run_id, lead.fence, sequence, [step], quiescent=True))
    crowd.look()
    return fence != 0


def end_eagerly(world: World, crowd: Crowd, run_id: str, index: int) -> None:
    step = world.run(run_id).steps[StepKey("link", index)]
    world.tell(i.StepRun(step.session, run_id, step.key, step.fence, b"", 0, 0.0))
    crowd.look()


def test_a_chain_of_lone_steps_leaves_its_slot_to_what_waits() -> None:
    world = world_of("chain", "other")
    world.worker("w1", slots=1, functions=("chain", "other"), eager=True)
    crowd = Crowd(world, promised=1)
    run_id = crowd.send("chain")
    assert chain(world, crowd, run_id, 0)
    crowd.find(crowd.send("other"), closure("one"))
    assert not crowd.running
    end_eagerly(world, crowd, run_id, 0)
    assert [start.key.id for start in crowd.running] == ["one"]
    assert not chain(world, crowd, run_id, 1), "another step has the slot"
    crowd.work(1)
    assert [start.key.id for start in crowd.running] == ["link"]
    assert not crowd.broken


def test_a_chain_runs_its_steps_at_once_while_nothing_waits() -> None:
    world = world_of("chain")
    world.worker("w1", slots=1, functions=("chain",), eager=True)
    crowd = Crowd(world)
    run_id = crowd.send("chain")
    for n in range(5):
        assert chain(world, crowd, run_id, n)
        end_eagerly(world, crowd, run_id, n)


def test_a_new_body_takes_no_slot_that_a_step_waits_for() -> None:
    world = world_of("chain", "other")
    world.worker("w1", slots=1, functions=("chain", "other"), eager=True)
    crowd = Crowd(world)
    crowd.find(crowd.send("other"), closure("one"), closure("two"), closure("three"))
    new = crowd.send("chain")
    crowd.work(1)
    lead = world.state.runs[new].lead
    assert lead is not None
    assert not lead.eager_fence
    assert not chain(world, crowd, new, 0)
    crowd.work(2)
    assert [start.key.id for start in crowd.running] == ["link"]


def test_a_retry_takes_its_turn_beside_the_fan_out_of_another_function() -> None:
    world = world_of("big", "small")
    world.worker("w1", slots=1, functions=("big", "small"))
    crowd = Crowd(world)
    small = crowd.send("small")
    crowd.find(small, closure("one"))
    crowd.fail(crowd.running[0])
    crowd.find(crowd.send("big"), *[closure("part", n) for n in range(40)])
    crowd.work(3)
    crowd.wait(1.0)
    crowd.work(2)
    assert "small" in crowd.began[-2:]
    assert not crowd.broken


def test_runs_that_others_invoke_take_turns_with_them() -> None:
    world = world_of("parent", "child", "small")
    world.worker("w1", slots=1, functions=("parent", "child", "small"))
    crowd = Crowd(world)
    parent = crowd.send("parent")
    calls = [i.StepPlanned(StepKey("call", n), StepKind.INVOKE, target="/child") for n in range(10)]
    crowd.find(parent, *calls, *[closure("part", n) for n in range(20)])
    for each in list(world.state.runs):
        if world.state.runs[each].run.function_id == "child":
            crowd.find(each, closure("a"), closure("b"))
    small = crowd.send("small")
    crowd.find(small, closure("one"))
    crowd.work(3)
    assert "small" in crowd.began[-3:]
    crowd.work(20)
    assert not crowd.broken


def test_pools_of_one_function_share_its_turn() -> None:
    world = world_of("f", "g")
    for name, version in (("w1", "1"), ("w2", "2"), ("w3", "3")):
        world.worker(name, slots=1, functions=("f",), app_version=version)
    runs = []
    crowd = Crowd(world)
    for version in "123":
        world.state.functions["app", "f"] = world.state.functions["app", "f"].__class__(
            "app", world.state.functions["app", "f"].options, version, 0.0
        )
        runs.append(crowd.send("f"))
    for run_id in runs:
        crowd.find(run_id, *[closure("part", n) for n in range(20)])
    for name in ("w1", "w2", "w3"):
        world.tell(i.Draining(name))
        world.tell(i.StreamLost(name, f"stream-{name}"))
    world.wait(10.0)
    crowd.running.clear()
    world.worker("all", slots=1, functions=("f", "g"), app_version="4")
    crowd.look()
    crowd.find(crowd.send("g"), *[closure("other", n) for n in range(20)])
    crowd.work(12)
    assert crowd.began[-10:].count("g") == 5, "g has every other turn, though f has three pools"


def test_a_function_that_could_use_no_free_slot_keeps_its_place() -> None:
    world = world_of("f", "g", "h")
    world.worker("w1", slots=1, functions=("f", "g"))
    world.worker("w2", slots=1, functions=("g", "h"))
    crowd = Crowd(world)
    for function in ("f", "g", "h"):
        crowd.find(crowd.send(function), *[closure("part", n) for n in range(30)])
    for _ in range(30):
        crowd.work(1)
    count = Counter(crowd.began)
    assert min(count.values()) >= 7, count


def test_bodies_take_turns_over_functions_where_few_fit() -> None:
    world = world_of("big", "small")
    world.worker("w1", functions=("big", "small"), max_invocations=1)
    (first,) = world.send("big", event_id="first")
    for n in range(20):
        world.send("big", event_id=f"big-{n}")
    (small,) = world.send("small", event_id="small")
    for _ in range(2):
        (run_id,) = world.state.sessions["w1"].invocations
        world.tell(i.RunFinished("w1", run_id, world.invocation(run_id), b"", 0))
    assert world.stored[first].state.ended
    assert world.stored[small].started_at is not None, "it came after twenty others of one function"


@pytest.mark.parametrize("eager", [False, True], ids=["planned", "lone steps run at once"])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("slots", [1, 4])
def test_no_step_waits_while_others_have_more_turns(slots: int, workers: int, eager: bool) -> None:
    began: set[str] = set()
    for seed in range(12):
        crowd = turmoil(random.Random(seed), slots, workers, eager)
        assert not crowd.broken, f"seed {seed}: {crowd.broken[0]}"
        began |= set(crowd.began)
    assert began == {*FUNCTIONS, "task t", "task u"}


def turmoil(dice: random.Random, slots: int, workers: int, eager: bool) -> Crowd:
    """Let runs of three functions, and tasks of two, come, branch, fail and end as dice will have it."""
    world = world_of(*FUNCTIONS)
    for n in range(workers):
        world.worker(f"w{n}", slots=slots, functions=FUNCTIONS, tasks=("t", "u"), eager=eager)
    crowd = Crowd(world, promised=slots * workers if eager else 0)
    runs = [crowd.send(each) for each in FUNCTIONS]
    found: Counter[str] = Counter()
    for _ in range(150):
        chance = dice.random()
        if chance < 0.1 and len(runs) < 8:
            runs.append(crowd.send(dice.choice(FUNCTIONS)))
        elif chance < 0.3 and runs:
            run_id = dice.choice(runs)
            lead = world.state.runs[run_id].lead
            if lead is None:
                continue
            found[run_id] += 1
            if dice.random() < 0.5 and lead.eager_fence and not lead.parked:
                link = closure(f"lone-{found[run_id]}", eager_fence=lead.eager_fence)
                crowd.find(run_id, link)
                crowd.running.append(attempt_of(world, run_id, link.key))
                continue
            kinds = [lambda n, at=found[run_id]: closure(f"part-{at}", n), task, lambda n: task(n, "u")]
            make = dice.choice(kinds)
            first = 1_000 * found[run_id]
            crowd.find(run_id, *[make(first + n) for n in range(dice.choice([1, 1, 3, 12]))])
        elif chance < 0.4:
            crowd.wait(0.4)
        elif crowd.running:
            start = dice.choice(crowd.running)
            (crowd.fail if dice.random() < 0.1 else crowd.succeed)(start)
    return crowd


def attempt_of(world: World, run_id: str, key: StepKey) -> c.StartAttempt:
    """Give the attempt that a lead has begun by itself."""
    run = world.run(run_id)
    step = run.steps[key]
    return c.StartAttempt(step.session, run, key, step.fence, step.attempt, None, 0, "", b"")
