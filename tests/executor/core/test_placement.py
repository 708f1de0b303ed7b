"""Who is chosen among many workers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, cast

import pytest

from stepwire_executor.core import commands as c
from stepwire_executor.core.placement import Heap
from tests.executor.core.world import World, closure, of_type


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


def test_a_few_steps_stay_where_the_body_is_while_it_is_as_free_as_others() -> None:
    world = World()
    for n in range(5):
        world.worker(f"w{n}", slots=4)
    (run_id,) = world.send()
    lead = world.state.runs[run_id].lead
    assert lead is not None
    (start,) = of_type(world.find(run_id, closure("one")), c.StartAttempt)
    assert start.session_id == lead.session_id


def after_steps_that_took(*seconds: float) -> tuple[World, str]:
    """Give a world of three workers with 4 slots each, and its one run, whose steps took so long before."""
    world = World()
    for n in range(3):
        world.worker(f"w{n}", slots=4)
    (run_id,) = world.send()
    for n, each in enumerate(seconds):
        (start,) = of_type(world.find(run_id, closure("before", n)), c.StartAttempt)
        world.succeed(start, elapsed=each)
    return world, run_id


@pytest.mark.parametrize(
    ("seconds", "spread"),
    [
        ((0.00002,), [0, 0, 3]),
        ((0.00002, 3.0), [0, 0, 3]),
        ((0.02,), [1, 1, 1]),
        ((0.0,), [1, 1, 1]),
        ((0.00002, 0.02, 0.02), [1, 1, 1]),
    ],
    ids=["short", "one that was held up", "long", "not said", "they have become long"],
)
def test_steps_stay_with_the_lead_where_those_before_were_too_short_for_another_body(
    seconds: tuple[float, ...], spread: list[int]
) -> None:
    world, run_id = after_steps_that_took(*seconds)
    starts = of_type(world.find(run_id, *[closure("part", n) for n in range(3)]), c.StartAttempt)
    lead = world.state.runs[run_id].lead
    assert lead is not None
    assert sorted(sum(start.session_id == f"w{n}" for start in starts) for n in range(3)) == spread
    assert max(spread) == sum(start.session_id == lead.session_id for start in starts)


def test_short_steps_go_to_others_once_the_lead_has_no_slot_left() -> None:
    world, run_id = after_steps_that_took(0.00002)
    starts = of_type(world.find(run_id, *[closure("part", n) for n in range(10)]), c.StartAttempt)
    assert sorted(sum(start.session_id == f"w{n}" for start in starts) for n in range(3)) == [3, 3, 4]
