"""Large values: their rate, the memory that they take beside the size of the journal, and the frames they travel in.

python -m benchmarks.values [--repeat N] [--json FILE]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks import command
from benchmarks.counted import Counted
from benchmarks.scene import Scene, run, scene, worker
from benchmarks.taken import Taken

KINDS = {"1,000 of 100 kB": (1_000, 100_000), "20 of 4 MiB": (20, 4 << 20)}
"""How many steps, and the bytes that each gives."""
LIMIT = {"STEPWIRE_MAX_OUTPUT_BYTES": str(4 << 20)}
LEAST_SIZE = 10
ALLOWED = 3.0
"""Peak memory over the size of the journal."""
MOST_FRAME_BYTES = 1 << 20
"""The executor's --max-frame-bytes, as it is by default."""


@dataclass(slots=True)
class Found:
    """What was measured of one kind."""

    count: int
    size: int
    seconds: list[float] = field(default_factory=list)
    executor: list[float] = field(default_factory=list)
    """Peak memory over the size of the journal."""
    worker: list[float] = field(default_factory=list)
    frames: dict[str, int] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """Give what is written as JSON."""
        return {
            "steps": self.count,
            "bytes": self.size,
            "seconds": self.seconds,
            "executor_peak_over_journal": self.executor,
            "worker_peak_over_journal": self.worker,
            "largest_frame_bytes": self.frames,
        }


async def measure(stage: Scene, found: Found) -> None:
    """Run it once in processes that have done the same with small values."""
    async with stage.client() as client:
        for _ in range(3):
            await run(client, "values", count=found.count, size=LEAST_SIZE)
        executor, its_worker = Taken(stage.executor.pid), Taken(stage.workers[0].pid)
        begun = time.perf_counter()
        await run(client, "values", count=found.count, size=found.size)
        found.seconds.append(time.perf_counter() - begun)
        journal = found.count * found.size
        found.executor.append(executor.peak_bytes / journal)
        found.worker.append(its_worker.peak_bytes / journal)


async def count_frames(stage: Scene, found: Found) -> None:
    """Run it once through a relay that looks at every frame."""
    async with Counted(stage.executor.address) as relay, stage.client() as client:
        async with worker(relay.address, wait=False):  # it would ask the relay, which knows no such calls
            while not await client.functions(app="benchmarks"):  # noqa: ASYNC110 - the executor does not tell
                await asyncio.sleep(0.05)
            await run(client, "values", count=found.count, size=found.size)
        found.frames = relay.largest


def all_kinds(repeats: int) -> dict[str, Found]:
    """Measure every kind, each time in fresh processes: an executor and one worker."""
    kinds = {name: Found(count, size) for name, (count, size) in KINDS.items()}
    for name, found in kinds.items():
        for number in range(1, repeats + 1):
            with scene(workers=1, environment=LIMIT) as stage:
                asyncio.run(measure(stage, found))
            memory = f"{found.executor[-1]:.1f} and {found.worker[-1]:.1f} times the journal"
            command.progress(f"{name}: {number} of {repeats}, {found.seconds[-1]:.2f} s, {memory}")
        with scene(workers=0, environment=LIMIT) as stage:
            asyncio.run(count_frames(stage, found))
    return kinds


def table(kinds: dict[str, Found]) -> str:
    """Write what was measured beside the aims."""
    rows = []
    for name, found in kinds.items():
        megabytes = found.count * found.size / 1e6
        rows.append(
            [
                name,
                command.spread(found.seconds, "{:.2f}") + " s",
                f"{megabytes / statistics.median(found.seconds):,.0f} MB/s",
                command.spread(found.executor) + " times",
                command.spread(found.worker) + " times",
                f"{ALLOWED:g} times",
                f"{max(found.frames.values()):,} of {MOST_FRAME_BYTES:,} B",
            ]
        )
    memory = [f"peak of the {name} over the journal" for name in ("executor", "worker")]
    return command.table(["values", "time", "rate", *memory, "the aim: at most", "largest frame"], rows)


def main() -> int:
    """Measure and print."""
    given = command.parser("values", __doc__, 3).parse_args()
    kinds = all_kinds(given.repeat)
    command.show(table(kinds), {"values": {name: found.as_data() for name, found in kinds.items()}}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
