"""Real work: CPU spread over processes, and I/O that one process waits for side by side.

python -m benchmarks.work [--repeat N] [--json FILE]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from benchmarks import command
from benchmarks.apps import burn
from benchmarks.scene import Scene, run, scene

CPU_STEPS, CPU_SECONDS, CPU_SLOTS = 200, 0.020, 4
"""Sync steps that hold the GIL: more slots a process would only make its threads take turns more often."""
IO_STEPS, IO_SECONDS, IO_SLOTS = 500, 0.100, 500
LEAST_SPEEDUP = 1.7
MOST_IO_SECONDS = 0.5
IO_TIMES = 5
"""Runs in the same processes."""


async def timed(stage: Scene, function: str, count: int, seconds: float, times: int = 1) -> list[float]:
    """Give the seconds that runs take, after one that warms up."""
    async with stage.client() as client:
        await run(client, function, count=count // 10, seconds=seconds)
        taken = []
        for _ in range(times):
            begun = time.perf_counter()
            await run(client, function, count=count, seconds=seconds)
            taken.append(time.perf_counter() - begun)
        return taken


def cpu(processes: int) -> float:
    """Give the seconds in which fresh worker processes burn all of the CPU."""
    with scene(workers=processes, slots=CPU_SLOTS) as stage:
        [seconds] = asyncio.run(timed(stage, "work", CPU_STEPS, CPU_SECONDS))
        return seconds


def bare(processes: int) -> float:
    """Give the seconds in which as many bare processes burn the same: what the machine has to give just now."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(burn, [CPU_SECONDS] * CPU_SLOTS * processes))
        begun = time.perf_counter()
        list(pool.map(burn, [CPU_SECONDS] * CPU_STEPS))
        return time.perf_counter() - begun


def io() -> list[float]:
    """Give the seconds in which one fresh process has waited for everything, several times."""
    with scene(workers=1, slots=IO_SLOTS) as stage:
        return asyncio.run(timed(stage, "wait", IO_STEPS, IO_SECONDS, IO_TIMES))


def table(found: dict[str, list[float]]) -> str:
    """Write what was measured beside the aims."""
    burnt = f"{CPU_STEPS} sync steps of {CPU_SECONDS * 1e3:g} ms CPU, slots={CPU_SLOTS}"
    speedups, possible = (
        [one / two for one, two in zip(found[f"{what}one"], found[f"{what}two"], strict=True)] for what in ("", "bare_")
    )
    shares = [speedup / most for speedup, most in zip(speedups, possible, strict=True)]
    waits = f"{IO_STEPS} async steps that wait {IO_SECONDS * 1e3:g} ms, slots={IO_SLOTS}, one worker process"
    rows = [
        [f"{burnt}: one worker process", f"{command.spread(found['one'], '{:.2f}')} s", ""],
        ["the same in two", f"{command.spread(found['two'], '{:.2f}')} s", ""],
        [
            "two do, of what one does",
            f"{command.spread(speedups, '{:.2f}')} times",
            f"at least {LEAST_SPEEDUP:g} times",
        ],
        ["two bare processes do, of what one does", f"{command.spread(possible, '{:.2f}')} times", ""],
        ["the first of the second", command.spread(shares, "{:.0%}"), f"at least {LEAST_SPEEDUP / 2:.0%}"],
        [waits, f"{command.spread(found['io'], '{:.2f}')} s", f"at most {MOST_IO_SECONDS:g} s"],
    ]
    return command.table(["work", "measured", "the aim"], rows)


def main() -> int:
    """Measure and print."""
    given = command.parser("work", __doc__, 5).parse_args()
    found: dict[str, list[float]] = {name: [] for name in ("one", "two", "bare_one", "bare_two", "io")}
    for number in range(1, given.repeat + 1):  # in turn, so that all have the same of the machine
        for name, measured, processes in (
            ("one", cpu, 1),
            ("bare_one", bare, 1),
            ("two", cpu, 2),
            ("bare_two", bare, 2),
        ):
            found[name].append(measured(processes))
        found["io"] += io()
        last = ", ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in found.items())
        command.progress(f"{number} of {given.repeat}: {last}")
    command.show(table(found), {"seconds": found}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
