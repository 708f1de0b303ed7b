"""What every system is asked to do: the workloads of `stepwire bench`. It must import nothing but the standard library.

A fan is one run of parallel steps, each of which gives its number; it gives their sum. A chain is one run of steps in
sequence, each of which gets the one before's result plus one; it gives the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """Some runs of one kind."""

    name: str
    kind: str
    """Either "fan" or "chain"."""
    count: int
    """Steps a run."""
    runs: int = 1
    at_once: int = 1
    """How many runs are under way at a time; each is started and waited for by a call of its own."""
    takes: int = 1
    """How often it is done, and timed, in one repeat."""

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.count * self.runs


WORKLOADS: Sequence[Workload] = [
    Workload("fan-100", "fan", 100, takes=10),
    Workload("fan-1000", "fan", 1_000, takes=3),
    Workload("fan-10000", "fan", 10_000),
    Workload("fan-50x20", "fan", 50, runs=20, at_once=20, takes=3),
    Workload("chain-3", "chain", 3, takes=100),
    Workload("chain-3x500", "chain", 3, runs=500, at_once=100),
]


def expected(kind: str, count: int) -> int:
    """Give the result that a run must come to."""
    return count * (count - 1) // 2 if kind == "fan" else count
