"""What a test sees of a system while it runs: its history so far, and what step code did."""

from __future__ import annotations

from typing import Any

from stepwire.testing import WorkerProcess
from tests.end_to_end.history import Line
from tests.end_to_end.processes import System, until
from tests.faults.tools import FaultySystem
from tests.histories import records


def has_happened(system: FaultySystem, what: str, since: float = 0.0, **fields: Any) -> list[records.Record]:
    """Give the records of a kind since a time of the monotonic clock that have these fields."""
    return [
        record
        for record in records.read(system.history)
        if record["what"] == what and record["at"] >= since and fields.items() <= record.items()
    ]


def dispatched(system: FaultySystem, step: str) -> list[tuple[int, int]]:
    """Give numbers and fences of a step's attempts, in the order in which they were issued."""
    return [(record["number"], record["fence"]) for record in has_happened(system, "dispatched", step=step)]


def worker_of(system: System, line: Line) -> WorkerProcess:
    """Give the worker that ran an attempt."""
    (worker,) = [worker for worker in system.workers if worker.pid == line.pid]
    return worker


def ends(system: System) -> int:
    """Count the attempts whose code has come to its end."""
    return sum(line.what == "end" for line in system.lines())


async def parts_end(system: System, count: int) -> None:
    """Wait until so many attempts have ended since now."""
    wanted = ends(system) + count
    await until(lambda: ends(system) >= wanted, f"{count} more attempts end")


def fan_out(count: int) -> dict[str, int]:
    """Give the output of a fan-out."""
    return {"count": count, "total": 2 * count * (count - 1)}
