"""How long a run of one step takes that starts while a fan-out of 10,000 is under way.

It is compared with its time when nothing else happens, and when bare processes keep every core busy.

python -m benchmarks.fairness [--repeat N] [--slots N] [--json FILE]

Fewer slots make the lines shorter in which a small run waits; the default is that of `stepwire worker`.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks import command
from benchmarks.scene import Scene, run, scene
from stepwire.client import Client

WIDTH, SLOTS = 10_000, 32
RUNS = 60
"""Small runs for one figure, at least."""
INTERVAL_SECONDS = 0.05
"""Between their starts."""
ALLOWED = 3.0
IDLE, OTHERS, FAN = "alone", "beside bare processes on every core", "beside fan-10000"

Found = dict[str, list[list[float]]]
"""Seconds of small runs, by what went on and by repeat."""


async def timed(client: Client) -> float:
    """Give the seconds of a run with one step."""
    begun = time.perf_counter()
    await run(client, "chain", count=1)
    return time.perf_counter() - begun


async def beside(client: Client, goes_on: Callable[[], bool]) -> list[float]:
    """Time small runs that start evenly while something goes on, whatever became of those before."""
    small = []
    while goes_on():
        small.append(asyncio.ensure_future(timed(client)))
        await asyncio.sleep(INTERVAL_SECONDS)
    return await asyncio.gather(*small)


async def beside_fan(client: Client) -> list[float]:
    """Time small runs beside a fan-out."""
    wide = asyncio.ensure_future(run(client, "fan", count=WIDTH))
    taken = await beside(client, lambda: not wide.done())
    await wide
    return taken


@contextmanager
def every_core_busy() -> Iterator[None]:
    """Let bare processes want all cores."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


async def beside_others(client: Client) -> list[float]:
    """Time small runs while other processes want all cores: what the machine alone does to them."""
    with every_core_busy():
        until = time.monotonic() + RUNS * INTERVAL_SECONDS
        return await beside(client, lambda: time.monotonic() < until)


async def measure(stage: Scene, found: Found) -> None:
    """Time small runs in all three ways."""
    async with stage.client() as client:
        for function in ("fan", "chain"):
            await run(client, function, count=1_000)
        found[IDLE].append([await timed(client) for _ in range(RUNS)])
        found[OTHERS].append(await beside_others(client))
        busy: list[float] = []
        while len(busy) < RUNS:
            busy += await beside_fan(client)
        found[FAN].append(busy)


def ratios(found: Found, name: str) -> list[float]:
    """Compare the median of each repeat with the idle one."""
    return [
        statistics.median(busy) / statistics.median(idle) for busy, idle in zip(found[name], found[IDLE], strict=True)
    ]


def table(found: Found) -> str:
    """Write what was measured beside the aim."""
    rows = []
    for name, repeats in found.items():
        times = [
            command.spread([command.percentile(each, share) * 1e3 for each in repeats]) + " ms" for share in (0.5, 0.99)
        ]
        compared = "" if name == IDLE else command.spread(ratios(found, name)) + " times"
        rows.append([name, *times, compared, f"at most {ALLOWED:g} times" if name == FAN else ""])
    return command.table(["a run of one step", "p50", "p99", "p50 of the idle p50", "the aim"], rows)


def main() -> int:
    """Measure and print."""
    parser = command.parser("fairness", __doc__, 5)
    parser.add_argument("--slots", type=int, default=SLOTS, help=f"slots of each worker (default {SLOTS})")
    given = parser.parse_args()
    found: Found = {IDLE: [], OTHERS: [], FAN: []}
    for number in range(1, given.repeat + 1):
        with scene(slots=given.slots) as stage:
            asyncio.run(measure(stage, found))
        command.progress(
            f"{number} of {given.repeat}, {len(found[FAN][-1])} runs: {ratios(found, FAN)[-1]:.1f} times idle"
        )
    command.show(table(found), {"slots": given.slots, "seconds": found}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
