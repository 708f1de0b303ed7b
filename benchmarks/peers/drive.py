"""The measuring itself, the same for every system: a client process does one workload and prints its times as JSON.

It runs in either environment, so it must import nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from benchmarks.peers.workloads import WORKLOADS, Workload, expected

Run = Callable[[str, int], Awaitable[int]]
"""Starts a run of a kind with so many steps, and gives its result once it has durably ended."""

LONGEST_SECONDS = 120.0
"""What takes longer is left out."""
WARM_STEPS = 1_000
"""A longer run is warmed up for by one of this length: its own would take minutes with some."""


async def once(run: Run, workload: Workload) -> float:
    """Do a workload; gives the seconds. Raises ValueError if a run comes to something else than it should."""
    rest = iter(range(workload.runs))

    async def some() -> None:
        for _ in rest:
            result = await run(workload.kind, workload.count)
            if result != expected(workload.kind, workload.count):
                raise ValueError(f"a {workload.kind} of {workload.count} steps came to {result!r}")

    begun = time.perf_counter()
    async with asyncio.timeout(LONGEST_SECONDS):
        await asyncio.gather(*[some() for _ in range(workload.at_once)])
    return time.perf_counter() - begun


async def measure(run: Run, workload: Workload) -> list[float]:
    """Warm up with a third as many, then give the seconds of each take."""
    warm = replace(workload, count=min(workload.count, WARM_STEPS))
    for _ in range(max(1, workload.takes // 3)):
        await once(run, warm)
    return [await once(run, workload) for _ in range(workload.takes)]


async def _print(connect: Callable[[str], AbstractAsyncContextManager[Run]], name: str, address: str) -> None:
    [workload] = [each for each in WORKLOADS if each.name == name]
    async with connect(address) as run:
        try:
            found: dict[str, object] = {"seconds": await measure(run, workload)}
        except TimeoutError:
            found = {"too_long": f"it takes longer than {LONGEST_SECONDS:g} s"}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        os._exit(0)  # what was given up may go on for minutes, and nobody waits for it


def main(connect: Callable[[str], AbstractAsyncContextManager[Run]]) -> None:
    """Be the client: `python -m … ADDRESS WORKLOAD`."""
    address, name = sys.argv[1:]
    asyncio.run(_print(connect, name, address))
