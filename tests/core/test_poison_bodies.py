"""A body that ends its workers fails at the cap of its own losses; those beside it do not."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.causes import CauseKind
from stepwire_core.model import FunctionOptions, Limits, Retry, RunState
from tests.core.world import World, closure, of_type

FUNCTIONS = ("enters", "returns", "plans", "kills", "innocent")
"""Bodies that end their process when they are entered, after their first step, and beside their steps; one whose step
does; and one without fault."""
FATAL = {"enters": 0, "returns": 1, "plans": None}
"""The functions whose bodies are fatal: once they have been given so many results, or have told of steps."""
MOST_LOST = 2


class Fleet:
    """Workers under a supervisor, which begins another one for each that has ended."""

    def __init__(self, workers: int, limit: int, dice: random.Random) -> None:
        options = [FunctionOptions(each, (each,), Retry(2, 0.5, 1.0)) for each in FUNCTIONS]
        self.world = World(*options, limits=Limits(max_lost_invocations=limit))
        self.dice = dice
        self.bodies: dict[tuple[str, str], int] = {}
        """Bodies at work, by session and run, with the results that they have been given."""
        self.planned: set[str] = set()
        """Runs whose bodies have been heard of since they were entered."""
        self.attempts: dict[int, c.StartAttempt] = {}
        self.deaths = self.begun = 0
        self.lost: Counter[str] = Counter()
        for _ in range(workers):
            self.add()

    def add(self) -> None:
        name = f"w{self.begun}"
        self.begun += 1
        self.take(self.world.worker(name, slots=4, stream=name, functions=FUNCTIONS))

    def take(self, commands: list[c.Command]) -> None:
        for command in commands:
            match command:
                case c.Invoke(lead=True):
                    self.bodies[command.session_id, command.run.id] = len(command.journal)
                case c.Resume(lead=True):
                    self.bodies[command.session_id, command.run.id] = len(command.run.journal)
                case c.StartAttempt():
                    self.attempts[command.fence] = command
                case c.CancelRun():
                    self.bodies.pop((command.session_id, command.run_id), None)
        for loaded in self.world.state.runs.values():
            self.lost[loaded.run.id] = max(self.lost[loaded.run.id], loaded.run.lost_invocations)

    def kill(self, session: str) -> None:
        self.deaths += 1
        for fence in [fence for fence, each in self.attempts.items() if each.session_id == session]:
            del self.attempts[fence]
        for at in [at for at in self.bodies if at[0] == session]:
            del self.bodies[at]
        self.take(self.world.tell(i.StreamLost(session, session)))
        if self.dice.random() < 0.5:
            self.take(self.world.wait(self.dice.choice([0.1, 6.0])))
        self.add()
        self.take(self.world.wait(self.dice.choice([0.0, 6.0])))

    def move(self) -> None:
        """Have one body or attempt go on, or time pass."""
        if self.bodies and self.dice.random() < 0.7:
            self.go_on(*self.dice.choice(sorted(self.bodies)))
        elif self.attempts and self.dice.random() < 0.7:
            start = self.attempts.pop(self.dice.choice(sorted(self.attempts)))
            if start.run.function_id == "kills" and start.key.id == "bad":
                self.kill(start.session_id)
            else:
                self.take(self.world.succeed(start))
        else:
            self.take(self.world.wait(self.dice.choice([0.1, 1.0])))

    def go_on(self, session: str, run_id: str) -> None:
        given = self.bodies.pop((session, run_id))
        loaded = self.world.state.runs[run_id]
        assert loaded.lead is not None
        function = loaded.run.function_id
        if loaded.run.steps if function == "plans" else given == FATAL.get(function):
            self.kill(session)
        elif given < 2 and function != "returns":
            names = ["good", "bad"] if function == "kills" else ["good", "fine"]
            steps = [] if loaded.run.steps else [closure(name) for name in names]
            report = i.StepsFound(session, run_id, loaded.lead.fence, given, steps, quiescent=function != "plans")
            self.take(self.world.tell(report))
            if function == "plans":
                self.bodies[session, run_id] = given
        elif given < 1:
            report = i.StepsFound(session, run_id, loaded.lead.fence, given, [closure("good")], quiescent=True)
            self.take(self.world.tell(report))
        else:
            self.take(self.world.tell(i.RunFinished(session, run_id, loaded.lead.fence, b"", 0)))


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("limit", [1, 2, 4, 10])
def test_bodies_and_steps_that_end_their_workers_fail_and_the_innocent_all_succeed(workers: int, limit: int) -> None:
    for seed in range(6):
        dice = random.Random(seed)
        fleet = Fleet(workers, limit, dice)
        sent = [dice.choice(FUNCTIONS) for _ in range(3)] + ["innocent"] * 12
        dice.shuffle(sent)
        for number, function in enumerate(sent):
            fleet.world.send(function, event_id=f"e{number}")
        fleet.take(fleet.world.commands)
        for _ in range(6_000):
            if not fleet.world.state.runs:
                break
            fleet.move()
        for run in fleet.world.stored.values():
            if run.function_id in FATAL:
                assert run.state is RunState.FAILED, f"seed {seed}: {run}"
                assert run.failure is not None
                assert run.failure.type == "WorkerLostError"
            else:
                assert run.state is RunState.SUCCEEDED, f"seed {seed}: {run}"
            if run.function_id == "innocent":
                assert fleet.lost[run.id] <= MOST_LOST, f"seed {seed}: {run}"
        fatal = sum(function in FATAL or function == "kills" for function in sent)
        results = 3  # each begins the count of losses anew
        assert fleet.deaths <= fatal * results * (max(limit, 3) + MOST_LOST), f"seed {seed}"


def dies_alone(world: World) -> str:
    """Have a body lose two workers beside another, and begin alone; gives its run."""
    (run_id,) = world.send("enters", event_id="bad")
    (other,) = world.send("innocent", event_id="good")
    for n in range(2):
        (session,) = {each.session_id for each in (lead_of(world, run_id), lead_of(world, other))}
        world.tell(i.StreamLost(session, f"stream-{session}"))
        world.worker(f"next-{n}", functions=FUNCTIONS)
    return run_id


def lead_of(world: World, run_id: str) -> c.Invoke:
    return [each for each in of_type(world.commands, c.Invoke) if each.run.id == run_id][-1]


def world_with_worker(limit: int = 10) -> World:
    world = World(*[FunctionOptions(each, (each,)) for each in FUNCTIONS], limits=Limits(max_lost_invocations=limit))
    world.worker("w1", functions=FUNCTIONS)
    return world


def test_a_body_that_was_lost_twice_has_a_worker_for_itself_until_it_has_run_dry() -> None:
    world = world_with_worker()
    suspects = {dies_alone(world)}
    suspects |= set(world.state.runs)
    (session,) = [each for each in world.state.sessions.values() if each.invocations]
    (first,) = session.invocations
    (other,) = suspects - {first}
    (third,) = world.send("innocent", event_id="third")
    assert list(session.invocations) == [first], "nothing comes beside it"
    (waits,) = [each for each in world.why(third) if each.kind is CauseKind.WORKERS_FULL]
    assert waits.workers == 1
    world.find(first, closure("a"))
    assert not of_type(world.commands, c.StartAttempt), "the next suspect has it now"
    assert other in session.invocations
    assert third not in session.invocations
    world.find(other)
    assert third in session.invocations
    assert [start.key.id for start in of_type(world.commands, c.StartAttempt)] == ["a"]


def test_a_suspect_body_says_what_it_waits_for() -> None:
    world = world_with_worker()
    dies_alone(world)
    (waiting,) = [run_id for run_id, key in world.state.quarantine if key is None]
    (cause,) = [each for each in world.why(waiting) if each.kind is CauseKind.NO_SLOT]
    assert "a worker that runs nothing else, as its workers were lost" in world.why_text(waiting)[0]
    assert cause.failure is not None


def test_a_parked_body_is_neither_charged_nor_in_the_way_of_a_suspect() -> None:
    world = world_with_worker()
    (parked,) = world.send("innocent", event_id="parked")
    (start,) = of_type(world.find(parked, closure("slow")), c.StartAttempt)
    world.tell(i.StreamLost("w1", "stream-w1"))
    world.worker(
        "back",
        functions=FUNCTIONS,
        instance_id="i-w1",
        resume_session="w1",
        in_hand=[i.AttemptRef(parked, start.key, start.fence)],
    )
    assert world.run(parked).lost_invocations == 0
