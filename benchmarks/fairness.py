"""How long a run of one step takes that starts while a fan-out of 10,000 is under way.

It is compared with its time when nothing else happens, and when bare processes keep every core busy. The steps do
nothing, or take 1 or 10 ms: those of the run, and those of the fan-out.

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
STEPS = (0.0, 0.001, 0.01)
"""Seconds that steps take."""
IDLE, OTHERS, FAN = "alone", "beside bare processes on every core", f"beside fan-{WIDTH}"

Found = dict[str, list[list[float]]]
"""Seconds of small runs, by what went on and by repeat."""


def named(what: str, seconds: float) -> str:
    """Name what went on, and how long the steps took."""
    return f"{what}, steps of {seconds * 1e3:g} ms" if seconds else what


async def timed(client: Client, seconds: float = 0.0) -> float:
    """Give the seconds of a run with one step, which takes `seconds`."""
    begun = time.perf_counter()
    await run(client, "chain", count=1, seconds=seconds)
    return time.perf_counter() - begun


async def beside(client: Client, goes_on: Callable[[], bool], seconds: float = 0.0) -> list[float]:
    """Time small runs that start evenly while something goes on, whatever became of those before."""
    small = []
    while goes_on():
        small.append(asyncio.ensure_future(timed(client, seconds)))
        await asyncio.sleep(INTERVAL_SECONDS)
    return await asyncio.gather(*small)


async def beside_fan(client: Client, seconds: float) -> list[float]:
    """Time small runs beside a fan-out, all steps of which take `seconds`."""
    wide = asyncio.ensure_future(run(client, "fan", count=WIDTH, seconds=seconds))
    taken = await beside(client, lambda: not wide.done(), seconds)
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
    """Time small runs in all three ways, and with steps that take a while in two."""
    async with stage.client() as client:
        for function in ("fan", "chain"):
            await run(client, function, count=1_000)
        for seconds in STEPS:
            found[named(IDLE, seconds)].append([await timed(client, seconds) for _ in range(RUNS)])
            if not seconds:
                found[OTHERS].append(await beside_others(client))
            busy: list[float] = []
            while len(busy) < RUNS:
                busy += await beside_fan(client, seconds)
            found[named(FAN, seconds)].append(busy)


def ratios(found: Found, name: str) -> list[float]:
    """Compare the median of each repeat with the idle one of steps that take as long."""
    _, _, steps = name.partition(", ")
    alone = found[f"{IDLE}, {steps}" if steps else IDLE]
    return [statistics.median(busy) / statistics.median(idle) for busy, idle in zip(found[name], alone, strict=True)]


def table(found: Found) -> str:
    """Write what was measured beside the aim."""
    rows = []
    for name, repeats in found.items():
        times = [
            command.spread([command.percentile(each, share) * 1e3 for each in repeats]) + " ms" for share in (0.5, 0.99)
        ]
        compared = "" if name.startswith(IDLE) else command.spread(ratios(found, name)) + " times"
        rows.append([name, *times, compared, f"at most {ALLOWED:g} times" if name.startswith(FAN) else ""])
    return command.table(["a run of one step", "p50", "p99", "p50 of the idle p50", "the aim"], rows)


def main() -> int:
    """Measure and print."""
    parser = command.parser("fairness", __doc__, 5)
    parser.add_argument("--slots", type=int, default=SLOTS, help=f"slots of each worker (default {SLOTS})")
    given = parser.parse_args()
    found: Found = {IDLE: [], OTHERS: []}
    found |= {named(what, seconds): [] for seconds in STEPS for what in (IDLE, FAN)}
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
