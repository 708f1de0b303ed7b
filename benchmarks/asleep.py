"""Runs that sleep: what they cost the executor's memory, and how late they wake when very many are due in a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks.command import percentile
from benchmarks.taken import resident_bytes
from stepwire.client import Client
from stepwire.records import EventReceipt, RunState
from stepwire.security import Security
from stepwire.testing.executor import ExecutorProcess, WorkerProcess

TARGET = "benchmarks.sleepers:app"
EVENT = "many/sleep"
ASLEEP, DUE = 100_000, 10_000
"""Runs that sleep, and how many of them wake in one second."""
A_CALL = 5_000
DAY = 86_400.0
WARM_UP = 2_000
LEAD_SECONDS = 20.0
"""From the first sending of those who are to wake until they are due, at least; they must be asleep by then."""
PATIENCE_SECONDS = 300.0
SAMPLE = 1_000
"""Of so many of those who wake the lateness is read: every one of them is a call."""

Progress = Callable[[str], None]


def own_bytes(pid: int) -> int:
    """Give the memory that a process has in use: its own, without what it shares as files."""
    return resident_bytes(pid, "RssAnon")


def measure(progress: Progress) -> dict[str, float]:
    """Measure in fresh processes. Raises StepwireError if one of them does not start or a call fails."""
    with ExitStack() as started:
        executor = started.enter_context(ExecutorProcess())
        for _ in range(2):
            started.enter_context(WorkerProcess(TARGET, executor, slots=100))
        return asyncio.run(_measure(executor, progress))


async def _measure(executor: ExecutorProcess, progress: Progress) -> dict[str, float]:
    async with Client(executor.address, security=Security()) as client:
        await fall_asleep(client, WARM_UP, time.time() + DAY)
        before = own_bytes(executor.pid)
        progress(f"{before / 1e6:.0f} MB before")
        begun, left = time.monotonic(), ASLEEP - DUE
        while left:
            await fall_asleep(client, min(left, 2 * A_CALL), time.time() + DAY)
            left -= min(left, 2 * A_CALL)
            progress(f"{left:,} to go, {own_bytes(executor.pid) / 1e6:.0f} MB")
        rate = (ASLEEP - DUE) / (time.monotonic() - begun)
        due_at = float(int(time.time() + max(LEAD_SECONDS, 3 * DUE / rate)))
        receipts = await fall_asleep(client, DUE, due_at, spread=1.0)
        after = own_bytes(executor.pid)
        spare = due_at - time.time()
        progress(f"all are asleep, {rate:,.0f} a second; {after / 1e6:.0f} MB; {DUE:,} wake in {spare:.0f} s")
        await asyncio.sleep(max(0.0, spare))
        peak = await ended(client, executor.pid)
        figures = {
            "runs put to sleep a second": rate,
            "executor before, MB": before / 1e6,
            "executor with all asleep, MB": after / 1e6,
            "100,000 runs asleep cost, MB": (after - before) / 1e6 * 100_000 / ASLEEP,
            "most while they wake, MB": peak / 1e6,
            "asleep until due, at least, s": spare,
        }
        return {**figures, **await lateness(client, receipts, due_at)}


async def fall_asleep(client: Client, count: int, until: float, spread: float = 0.0) -> list[EventReceipt]:
    """Start runs that sleep until a time, or evenly over `spread` seconds from then, and wait until all are asleep."""
    receipts: list[EventReceipt] = []
    for first in range(0, count, A_CALL):
        numbers = range(first, min(first + A_CALL, count))
        receipts += await client.send_many([(EVENT, {"until": until + spread * n / count}) for n in numbers])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while await busy(client):
        if time.monotonic() > deadline:
            raise TimeoutError(f"runs are still not asleep after {PATIENCE_SECONDS:g} s")
        await asyncio.sleep(0.1)
    return receipts


async def busy(client: Client) -> bool:
    """Whether some run has not begun, or its body is live in a worker."""
    async for _ in client.list(app="many", states=[RunState.PENDING]):
        return True
    return any(worker.live_invocations for worker in await client.workers())


async def ended(client: Client, pid: int) -> int:
    """Wait until no run is at work any more; gives the most memory that the executor had meanwhile, in bytes."""
    peak = 0
    while True:
        peak = max(peak, own_bytes(pid))
        if not await busy(client):
            await asyncio.sleep(2.0)
            if not await busy(client):
                return peak
        await asyncio.sleep(0.1)


async def lateness(client: Client, receipts: Sequence[EventReceipt], due_at: float) -> dict[str, float]:
    """Read how late a sample of runs woke, each by its own time, in milliseconds.

    A sleep's end is stamped when the executor decides it, some ten milliseconds before that is durable. The body goes
    on after it was replayed in a worker, which may first have others to replay.
    """
    recorded: list[float] = []
    went_on: list[float] = []
    for at in range(0, len(receipts), max(1, len(receipts) // SAMPLE)):
        (run_id,) = receipts[at].run_ids
        (sleep,) = [step async for step in client.steps(run_id)]
        due = due_at + at / len(receipts)
        if sleep.ended_at is None:
            raise TimeoutError(f"run {run_id} has not woken")
        recorded.append((sleep.ended_at.timestamp() - due) * 1e3)
        went_on.append((await client.result(run_id) - due) * 1e3)
    return {
        f"{what}, {name}, ms": percentile(values, share)
        for what, values in (("end of sleep recorded late", recorded), ("body went on late", went_on))
        for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
    }
