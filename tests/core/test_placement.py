"""Who is chosen among many workers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, cast

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core import placement
from stepwire_core.causes import CauseKind
from stepwire_core.model import FunctionOptions, Now, StepKey, StepKind
from stepwire_core.placement import Heap
from stepwire_core.state import Session, State
from stepwire_core.turns import PoolKey
from tests.core.world import World, closure, of_type


@dataclass
class Loaded:
    id: str
    load: int


@pytest.mark.parametrize("seed", range(20))
def test_the_least_is_found_though_loads_grow_and_workers_leave(seed: int) -> None:
    dice = random.Random(seed)
    workers = [Loaded(f"w{n}", dice.randrange(5)) for n in range(dice.randrange(1, 40))]
    heap = Heap(cast(Any, workers), lambda each: (cast(Any, each).load,))
    while workers:
        least = min(workers, key=lambda each: each.load)
        assert cast(Any, heap.least()) is least
        if dice.random() < 0.2:
            heap.drop()
            workers.remove(least)
        for each in dice.choices(workers, k=3) if workers else ():
            each.load += dice.randrange(3)
    assert heap.least() is None


def test_a_fan_out_is_spread_evenly_over_many_workers() -> None:
    world = World()
    for n in range(30):
        world.worker(f"w{n}", slots=4)
    (run_id,) = world.send()
    starts = of_type(world.find(run_id, *[closure("part", n) for n in range(90)]), c.StartAttempt)
    per_worker = [sum(start.session_id == f"w{n}" for start in starts) for n in range(30)]
    assert per_worker == [3] * 30


def test_a_body_goes_to_a_worker_with_a_free_slot_before_one_with_fewer_bodies() -> None:
    world = World()
    world.worker("full", slots=1)
    (busy,) = world.send(event_id="e1")
    (start,) = of_type(world.find(busy, closure("long")), c.StartAttempt)
    world.worker("free", slots=4)
    for n in range(3):
        (run_id,) = world.send(event_id=f"more-{n}")
        lead = world.state.runs[run_id].lead
        assert lead is not None
        assert lead.session_id == "free"
    world.succeed(start)
    (run_id,) = world.send(event_id="last")
    lead = world.state.runs[run_id].lead
    assert lead is not None
    assert lead.session_id == "full", "it has a slot, and fewer bodies"


def test_a_few_steps_stay_where_the_body_is_while_it_is_as_free_as_others() -> None:
    world = World()
    for n in range(5):
        world.worker(f"w{n}", slots=4)
    (run_id,) = world.send()
    lead = world.state.runs[run_id].lead
    assert lead is not None
    (start,) = of_type(world.find(run_id, closure("one")), c.StartAttempt)
    assert start.session_id == lead.session_id


SLOTS = 4


def after_steps_that_took(*seconds: float) -> tuple[World, str, str]:
    """Give a world of three workers, its one run, whose steps took so long before, and the session of its lead."""
    world = World()
    for n in range(3):
        world.worker(f"w{n}", slots=SLOTS)
    (run_id,) = world.send()
    for n, each in enumerate(seconds):
        (start,) = of_type(world.find(run_id, closure("before", n)), c.StartAttempt)
        world.succeed(start, elapsed=each)
    lead = world.state.runs[run_id].lead
    assert lead is not None
    return world, run_id, lead.session_id


def found(world: World, run_id: str, count: int) -> list[c.StartAttempt]:
    """Let the body find some steps; gives the attempts that begin."""
    return of_type(world.find(run_id, *[closure("part", n) for n in range(count)]), c.StartAttempt)


def spread(starts: list[c.StartAttempt]) -> list[int]:
    """Say how many attempts each worker has been given, the least first."""
    return sorted(sum(start.session_id == f"w{n}" for start in starts) for n in range(3))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.00001,), [0, 0, 3]),
        ((0.00001, 3.0), [0, 0, 3]),
        ((0.02,), [1, 1, 1]),
        ((0.0,), [1, 1, 1]),
        ((0.00001, 0.02, 0.02), [1, 1, 1]),
    ],
    ids=["short", "one that was held up", "long", "not said", "they have become long"],
)
def test_steps_stay_with_the_lead_where_those_before_were_too_short_for_another_body(
    seconds: tuple[float, ...], expected: list[int]
) -> None:
    world, run_id, home = after_steps_that_took(*seconds)
    starts = found(world, run_id, 3)
    assert spread(starts) == expected
    assert max(expected) == sum(start.session_id == home for start in starts)


def test_short_steps_wait_for_a_slot_of_the_leads_worker() -> None:
    world, run_id, home = after_steps_that_took(0.00001)
    starts = found(world, run_id, 10)
    assert [start.session_id for start in starts] == [home] * SLOTS
    for start in starts:  # the list grows by those that begin in their places
        world.wait(0.09)
        starts += of_type(world.succeed(start, elapsed=0.00001), c.StartAttempt)
    assert [start.session_id for start in starts] == [home] * 10


def test_others_run_short_steps_once_the_leads_worker_has_had_no_slot_for_a_while() -> None:
    world, run_id, home = after_steps_that_took(0.00001)
    assert len(found(world, run_id, 10)) == SLOTS
    assert not of_type(world.wait(0.05), c.StartAttempt)
    due = world.state.next_delay(Now(world.wall, world.mono))
    assert due is not None
    assert due < 0.06, "nothing else wakes the executor then"
    starts = of_type(world.wait(due), c.StartAttempt)
    assert spread(starts) == [0, 3, 3]
    assert home not in {start.session_id for start in starts}


def test_others_run_short_steps_whose_leads_worker_has_gone() -> None:
    world, run_id, home = after_steps_that_took(0.00001)
    assert len(found(world, run_id, 10)) == SLOTS
    starts = of_type(world.tell(i.StreamLost(home, f"stream-{home}")), c.StartAttempt)
    assert spread(starts) == [0, 3, 3]


def test_others_run_what_is_no_longer_short() -> None:
    world, run_id, home = after_steps_that_took(0.00001)
    first, second, *_ = found(world, run_id, 10)
    assert [each.session_id for each in of_type(world.succeed(first, elapsed=0.02), c.StartAttempt)] == [home]
    starts = of_type(world.succeed(second, elapsed=0.02), c.StartAttempt)
    assert spread(starts) == [0, 2, 3], "its free slot is one of nine"


def test_short_steps_that_wait_are_explained_by_the_worker_that_they_wait_for() -> None:
    world, run_id, home = after_steps_that_took(0.00001)
    found(world, run_id, 10)
    cause = next(each for each in world.why(run_id) if each.kind is CauseKind.NO_SLOT)
    assert (cause.step_count, cause.workers, cause.slots, cause.slots_taken) == (6, 1, SLOTS, SLOTS)
    assert [each.worker for each in cause.causes] == [f"i-{home}"]


def lags(world: World, name: str, seconds: float) -> list[c.Command]:
    """Tell a worker's heartbeat."""
    return world.tell(i.Heartbeat(name, seconds, 'File "app.py", line 7, in busy' if seconds else ""))


def test_a_blocked_worker_gets_no_new_body_and_no_step_while_another_serves_the_function() -> None:
    world = World()
    world.worker("blocked", slots=8)
    world.worker("fit", slots=2)
    lags(world, "blocked", 4.0)
    for n in range(4):
        (run_id,) = world.send(event_id=f"e{n}")
        lead = world.state.runs[run_id].lead
        assert lead is not None
        assert lead.session_id == "fit"
    steps = [closure("part", n) for n in range(6)] + [i.StepPlanned(StepKey("call", 0), StepKind.TASK, target="t")]
    starts = of_type(world.find(run_id, *steps), c.StartAttempt)
    assert [start.session_id for start in starts] == ["fit"] * 2
    starts += of_type(world.succeed(starts[0]), c.StartAttempt)
    assert [start.session_id for start in starts] == ["fit"] * 3, "the others wait for it: the blocked one is later"


def test_a_worker_is_given_something_again_once_its_heartbeat_says_that_it_is_on_time() -> None:
    world = World()
    world.worker("blocked", slots=8)
    world.worker("fit", slots=2)
    lags(world, "blocked", 4.0)
    (run_id,) = world.send()
    assert len(of_type(world.find(run_id, *[closure("part", n) for n in range(6)]), c.StartAttempt)) == 2
    starts = of_type(lags(world, "blocked", 0.0), c.StartAttempt)
    assert [start.session_id for start in starts] == ["blocked"] * 4


def test_where_all_are_blocked_the_one_that_is_blocked_least_gets_what_comes() -> None:
    world = World()
    for name, seconds in (("long", 9.0), ("short", 2.0), ("longer", 20.0)):
        world.worker(name, slots=2)
        lags(world, name, seconds)
    (run_id,) = world.send()
    lead = world.state.runs[run_id].lead
    assert lead is not None
    assert lead.session_id == "short"
    starts = of_type(world.find(run_id, *[closure("part", n) for n in range(5)]), c.StartAttempt)
    assert [start.session_id for start in starts] == ["short"] * 2 + ["long"] * 2 + ["longer"]


def test_a_loop_that_is_a_little_late_is_not_blocked() -> None:
    world = World()
    world.worker("late", slots=2)
    world.worker("fit", slots=2)
    lags(world, "late", 0.9)
    (run_id,) = world.send()
    starts = of_type(world.find(run_id, *[closure("part", n) for n in range(4)]), c.StartAttempt)
    assert sorted(start.session_id for start in starts) == ["fit", "fit", "late", "late"]


def test_short_steps_do_not_wait_for_a_home_that_is_blocked() -> None:
    world, run_id, home = after_steps_that_took(0.00001)
    lags(world, home, 3.0)
    starts = found(world, run_id, 4)
    assert home not in {start.session_id for start in starts}
    assert len(starts) == 4


def test_a_step_that_waits_beside_a_blocked_worker_says_what_blocks_it() -> None:
    world = World()
    world.worker("blocked", slots=8)
    world.worker("fit", slots=1)
    lags(world, "blocked", 4.0)
    (run_id,) = world.send()
    world.find(run_id, closure("a"), closure("b"))
    cause = next(each for each in world.why(run_id) if each.kind is CauseKind.NO_SLOT)
    assert (cause.workers, cause.slots, cause.slots_taken) == (1, 1, 1)
    assert [each.kind for each in cause.causes] == [CauseKind.WORKER_FULL, CauseKind.WORKER_BLOCKED]
    assert any("app.py" in text for text in world.why_text(run_id))


def parked_in(world: World, name: str, *steps: i.StepPlanned) -> tuple[str, list[c.Command]]:
    """Begin a run whose body waits in this worker, for steps that others run."""
    others = [each for each in world.state.sessions.values() if each.id != name]
    for other in others:
        lags(world, other.id, 5.0)
    (run_id,) = world.send()
    lead = world.state.runs[run_id].lead
    assert lead is not None
    assert lead.session_id == name
    for other in others:
        lags(world, other.id, 0.0)
    lags(world, name, 4.0)
    return run_id, world.find(run_id, *steps)


def test_a_body_that_waits_in_a_blocked_worker_goes_on_in_another_one_when_a_result_has_come() -> None:
    world = World()
    world.worker("blocked", slots=2)
    world.worker("fit", slots=2)
    run_id, commands = parked_in(world, "blocked", closure("a"))
    (start,) = of_type(commands, c.StartAttempt)
    assert start.session_id == "fit"
    commands = world.succeed(start)
    (cancelled,) = of_type(commands, c.CancelRun)
    assert (cancelled.session_id, cancelled.run_id) == ("blocked", run_id)
    lead = world.state.runs[run_id].lead
    assert lead is not None
    assert (lead.session_id, lead.sent) == ("fit", 1)


@pytest.mark.parametrize("why", ["it may be what blocks", "its attempt is there", "nobody has room", "all are blocked"])
def test_a_body_stays_in_a_blocked_worker_if(why: str) -> None:
    world = World()
    world.worker("blocked", slots=2)
    world.worker("fit", slots=3)
    steps = [closure("a"), closure("b"), closure("c"), closure("d")][: 4 if why == "its attempt is there" else 3]
    run_id, commands = parked_in(world, "blocked", *steps)
    starts = of_type(commands, c.StartAttempt)
    assert {start.session_id for start in starts} == {"fit"}
    if why == "it may be what blocks":
        lags(world, "blocked", 0.0)
        world.succeed(starts[0])  # it is given this, and has not answered yet
        lags(world, "blocked", 4.0)
    elif why == "its attempt is there":
        (more,) = of_type(lags(world, "blocked", 0.0), c.StartAttempt)
        assert more.session_id == "blocked"
        lags(world, "blocked", 4.0)
    elif why == "nobody has room":
        world.send(event_id="other")
        (other,) = (each for each in world.state.runs if each != run_id)
        world.find(other, closure("x"))
    else:
        lags(world, "fit", 8.0)
    commands = world.succeed(starts[1])
    assert not of_type(commands, c.CancelRun)
    lead = world.state.runs[run_id].lead
    assert lead is not None
    assert lead.session_id == "blocked"


def test_functions_that_wait_for_full_workers_cost_a_decision_next_to_nothing_however_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each app's workers are looked at as long as one of them has room: its own, once."""
    asked = 0
    sessions_of = placement.sessions_of

    def counted(state: State, pool: PoolKey, now: Now) -> list[Session]:
        nonlocal asked
        asked += 1
        return sessions_of(state, pool, now)

    monkeypatch.setattr(placement, "sessions_of", counted)
    world = World(*[FunctionOptions(f"f{n}", ("go",)) for n in range(200)], FunctionOptions("g", ("other",)))
    functions = tuple(f"f{n}" for n in range(200))
    world.worker("w1", slots=1, functions=functions, max_invocations=1)
    assert len(world.send()) == 200
    asked = 0
    world.wait(1.0)
    assert asked <= 1
    world.worker("w2", slots=1, functions=("g",), max_invocations=1)
    asked = 0
    (run_id,) = world.send("other", event_id="e2")
    assert world.state.runs[run_id].lead is not None
    assert asked <= 201, "its own function's, and those of the app, of which each is looked at once"


def test_of_very_many_invocations_all_are_looked_at_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those at work are passed over, some at a time, until one is found that has nothing to do."""
    monkeypatch.setattr(placement, "MOST_LOOKED_AT", 3)
    world = World()
    world.worker("w1", slots=20, max_invocations=10)
    run_ids = [run_id for number in range(10) for run_id in world.send(event_id=f"e{number}")]
    world.find(run_ids[8], i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=1_000.0))
    (late,) = world.send(event_id="late")
    for _ in range(4):
        world.wait(0.1)
    assert world.state.runs[late].lead is not None
    assert run_ids[8] not in world.state.sessions["w1"].invocations
