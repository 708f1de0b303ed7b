"""Crash points, one after the other: every instant of a process at which it could be killed, for a few functions.

An instant lies before and after each durable write and before and after each thing that is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.simulation.cases import Case, RunCase
from tests.simulation.simulation import Simulation

LONE = ["seq", ["run", "a", 1, False, 0.01], ["sync", "b", 0, False], ["run", "c", 0, False, 0.0]]
FAN_OUT = [
    "gather",
    *[["run", "part", 0, False, 0.01] for _ in range(4)],
    ["task", "task", 1, False, 0.01],
    ["seq", ["sync", "first", 0, False], ["run", "second", 0, False, 0.01]],
]
OTHERS = [
    "seq",
    ["gather", ["invoke", "child", "program", ["run", "inside", 0, False, 0.01]], ["exchange", "talk", 7, 60.0]],
    ["sleep", "nap", 12.0],
    ["send", "tell", 1],
]
RACE = [
    "seq",
    ["race", ["run", "quick", 0, False, 0.01], ["run", "slow", 0, False, 2.0], ["sleep", "alarm", 1.0]],
    ["within", 0.05, ["stubborn", "late", 1.0]],
    ["run", "after", 0, False, 0.0],
]
CLUMSY = ["group", ["seq", ["run", "before", 0, False, 0.0], ["clumsy", 2]], ["run", "beside", 0, False, 0.05]]
SYNC = ["seq", ["parallel", ["run", "left", 0, False, 0.01], ["sync", "right", 1, False]], ["sleep", "nap", 0.02]]

FUNCTIONS = {
    "lone steps": RunCase("sim/program", LONE, 0.0),
    "fan-out": RunCase("sim/program", FAN_OUT, 0.0),
    "child, events and sleep": RunCase("sim/program", OTHERS, 0.0),
    "race and timeout": RunCase("sim/program", RACE, 0.0),
    "body that fails": RunCase("sim/program", CLUMSY, 0.0),
    "sync function": RunCase("sim/program-sync", SYNC, 0.0),
}


def case_of(name: str) -> Case:
    """Give the case of one of the functions."""
    return Case(0, (FUNCTIONS[name],), workers=2, slots=2)


def first_lives(name: str) -> dict[str, int]:
    """Give how many instants each process lives through when nothing happens to it."""
    report = Simulation(case_of(name)).run()
    assert not report.broken, report.broken
    return {process: count for process, count in report.instants.items() if process.endswith("-1")}


def single(name: str) -> Iterator[Mapping[str, int]]:
    """Give every way to kill one process once."""
    for process, count in first_lives(name).items():
        for instant in range(1, count + 1):
            yield {process: instant}


def double(name: str, stride: int = 1) -> Iterator[Mapping[str, int]]:
    """Give every way to kill the executor, and then its next life again: a crash while it recovers, or later.

    With a `stride` only every so-many-th is given.
    """
    number = 0
    for first in range(1, first_lives(name)["executor-1"] + 1):
        again = Simulation(case_of(name), {"executor-1": first}).run()
        for second in range(1, again.instants.get("executor-2", 0) + 1):
            number += 1
            if number % stride == 0:
                yield {"executor-1": first, "executor-2": second}
