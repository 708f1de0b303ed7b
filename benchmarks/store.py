"""How fast the SQLite store commits, beside bare `sqlite3` that inserts the same rows with the same settings.

`python -m benchmarks.store [FOLDER]`: the store is made in a temporary folder inside FOLDER: choose the disk by it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles

from stepwire_core import ids
from stepwire_core.commands import Writes
from stepwire_core.model import Event, Run, Step, StepKey, StepKind, StepState
from stepwire_executor.store import sqlite_open
from stepwire_executor.store.changes import changes
from stepwire_executor.store.sqlite import SQLiteStore, execute

OUTPUT = b"x" * 100
SIZES = {1: 300, 100: 100, 1000: 20}
"""Rows a commit, and how many commits."""


def run(number: int) -> Writes:
    """Make a run, to hold steps."""
    event = Event(f"event-{number}", "bench", b"{}", 1.0, position=number)
    new = Run(ids.run_id(b"", 1.7e9, number), "bench", "bench", "1", event, 1.7e9)
    return Writes(events=[event], new_runs={new.id: new})


def plan(run_id: str, first: int, size: int) -> Writes:
    """Make steps as they are planned."""
    numbers = range(first, first + size)
    steps = [Step(StepKey(f"step-{n}", 0), n, StepKind.CLOSURE, source="app.py:12", planned_at=1.7e9) for n in numbers]
    return Writes(new_steps={(run_id, step.number): step for step in steps})


def finish(planned: Writes) -> Writes:
    """Let those steps succeed."""
    for step in planned.new_steps.values():
        step.state, step.attempt, step.fence, step.worker = StepState.SUCCEEDED, 1, 1 << 41, "worker-1"
        step.started_at, step.ended_at, step.sequence, step.output = 1.7e9, 1.7e9, step.number, OUTPUT
    return Writes(steps=planned.new_steps)


def show(what: str, size: int, seconds: list[float]) -> None:
    """Print what was measured."""
    p99 = quantiles(seconds, n=100)[98] * 1000
    rate = size / median(seconds)
    sys.stdout.write(f"{what:28} {size:5} rows  median {median(seconds) * 1000:7.2f} ms  p99 {p99:7.2f} ms")
    sys.stdout.write(f"  {rate:9,.0f} rows/s\n")


async def timed(commit: Callable[[Writes], Awaitable[None]], writes: Writes) -> float:
    """Give the seconds that a commit takes, with the reading of its rows."""
    begin = time.perf_counter()
    await commit(writes)
    return time.perf_counter() - begin


async def measure(name: str, commit: Callable[[Writes], Awaitable[None]]) -> None:
    """Time plans (INSERT) and results (UPDATE) of each size, each size in a run of its own."""
    for number, (size, times) in enumerate(SIZES.items(), 1):
        new = run(number)
        await commit(new)
        [run_id] = new.new_runs
        plans = [plan(run_id, 1 + at * size, size) for at in range(times)]
        show(f"{name}: plan", size, [await timed(commit, planned) for planned in plans])
        results = [finish(planned) for planned in plans]
        show(f"{name}: result", size, [await timed(commit, result) for result in results])


async def main(folder: Path) -> None:
    """Measure the store, and then the same statements without it."""
    store = SQLiteStore(folder / "store.db")
    await store.open()
    await measure("store", store.commit)
    await store.close()

    path = folder / "bare.db"
    bare = sqlite3.connect(path, isolation_level=None)
    sqlite_open.prepare(bare, path)

    async def commit(writes: Writes) -> None:
        execute(bare, changes(writes))

    await measure("bare sqlite3", commit)
    bare.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as made:
        asyncio.run(main(Path(made)))
