"""The workloads: each is measured from sending its events to the durable ends of all of its runs."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwire.client import Client
from stepwire.errors import StepwireError
from stepwire.records import RunState

LONGEST_SECONDS = 600.0
UNFINISHED = (RunState.PENDING, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class Workload:
    """Some work, and how often it is repeated for one figure."""

    name: str
    says: str
    steps: int
    measure: Callable[[Client], Awaitable[float]]
    """Do it once; gives the seconds."""
    times: int = 1
    """How often it is done in one repeat; of a workload with several the single times count, not their sum."""


@dataclass(slots=True)
class Figures:
    """What was measured of a workload, in seconds."""

    workload: Workload
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Steps a second, by the median."""
        return self.workload.steps / statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest number of steps a second."""
        return self.workload.steps / max(self.seconds), self.workload.steps / min(self.seconds)

    def percentile(self, share: float) -> float:
        """Seconds that a share of the times (0 to 1) does not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def as_data(self) -> dict[str, Any]:
        """Give what is written as JSON."""
        return {
            "steps": self.workload.steps,
            "seconds": self.seconds,
            "steps_per_second": self.rate,
            "p50_ms": self.percentile(0.5) * 1e3,
            "p99_ms": self.percentile(0.99) * 1e3,
        }


async def run(client: Client, event: str, count: int) -> None:
    """Start one run and wait for its end. Raises StepwireError if it comes to something else."""
    receipt = await client.send(event, {"count": count})
    await ended(client, receipt.run_ids[0], count)


async def ended(client: Client, run_id: str, count: int) -> None:
    """Wait for a run's end. Raises StepwireError if it comes to something else than `count`."""
    output = await client.result(run_id, timeout=LONGEST_SECONDS)
    if output != count:
        raise StepwireError(f"run {run_id} of the benchmark has the result {output!r}, not {count}: is it another app?")


def timed(work: Callable[[Client], Awaitable[None]]) -> Callable[[Client], Awaitable[float]]:
    """Give what measures some work."""

    async def measure(client: Client) -> float:
        begun = time.perf_counter()
        await work(client)
        return time.perf_counter() - begun

    return measure


def one(event: str, count: int) -> Callable[[Client], Awaitable[None]]:
    """Give the work of one run."""
    return lambda client: run(client, event, count)


def together(event: str, runs: int, count: int) -> Callable[[Client], Awaitable[None]]:
    """Give the work of runs that one call starts."""

    async def work(client: Client) -> None:
        receipts = await client.send_many([(event, {"count": count})] * runs)
        await ended(client, receipts[-1].run_ids[0], count)
        name = event.partition("/")[2]
        while [each async for each in client.list(app="bench", function=name, states=UNFINISHED)]:
            continue

    return work


def apart(event: str, runs: int, count: int, at_once: int) -> Callable[[Client], Awaitable[None]]:
    """Give the work of runs that are started and waited for by a call each, some at once."""

    async def work(client: Client) -> None:
        rest = iter(range(runs))

        async def some() -> None:
            for _ in rest:
                await run(client, event, count)

        await asyncio.gather(*[some() for _ in range(at_once)])

    return work


def fan(width: int) -> Workload:
    """Give the workload of one run with parallel steps."""
    return Workload(f"fan-{width}", f"one run, {width:,} parallel steps", width, timed(one("bench/fan", width)))


WORKLOADS: Sequence[Workload] = [
    fan(100),
    fan(1_000),
    fan(10_000),
    Workload("fan-50x20", "20 runs at once of 50 parallel steps", 1_000, timed(together("bench/fan", 20, 50))),
    Workload("chain-3", "one run at a time, 3 steps in sequence", 3, timed(one("bench/chain", 3)), times=100),
    Workload(
        "chain-3x500", "500 runs of 3 steps, 100 at once, a call each", 1_500, timed(apart("bench/chain", 500, 3, 100))
    ),
    Workload(
        "chain-3x500-sent-at-once",
        "500 runs of 3 steps, started by one call",
        1_500,
        timed(together("bench/chain", 500, 3)),
    ),
]
