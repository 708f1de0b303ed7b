"""Executors that die before or after each commit and each frame to a worker (row 2). Row 1 is in test_disk.py."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from stepwire.client import Client
from stepwire.errors import ExecutorError
from tests.end_to_end.processes import until
from tests.faults.crashes import POINTS, CrashAt, counted
from tests.faults.fast import FastSystem

AT_ONCE = 2
"""Systems beside each other."""


async def work(system: FastSystem) -> None:
    """A run with a fan-out and a failing attempt, and an event that is sent twice."""
    await asyncio.gather(
        system.launch("fan-out", {"count": 4}, id="fan-out"), system.launch("flaky", id="flaky"), again(system)
    )
    await system.all_end()


async def known(system: FastSystem) -> bool:
    """Whether runs can be started, or nobody is there to start them."""
    if not system.executor.running:
        return True
    try:
        async with Client(system.executor.address, retry_for=0.1) as client:
            return bool(await client.functions())
    except ExecutorError:
        return False


async def again(system: FastSystem) -> None:
    """Send an event once more after its acknowledgement: it starts nothing."""
    await system.launch("plain", {"count": 1}, id="plain")
    assert (await system.client.send("flows/plain", {"count": 1}, id="plain")).duplicate


async def crash(folder: Path, point: str, number: int) -> bool:
    """Have an executor die at a point while it works; then everything goes on with another.

    Gives whether it died.
    """
    died = False
    async with FastSystem(folder, before=CrashAt(point, number, folder.with_suffix(".counts"))) as system:
        await system.fork_worker(wait=False)
        await until(lambda: known(system), "the executor knows the worker's functions, or has died")
        if not system.executor.running:
            system.executor.before = None
            await asyncio.to_thread(system.executor.start)
            await system.connected(1)
            died = True
        working = asyncio.create_task(work(system))
        await until(lambda: working.done() or not system.executor.running, "the work or the executor ends")
        if not system.executor.running:
            assert system.executor.returncode == -signal.SIGKILL
            died = True
            system.executor.before = None
            await asyncio.to_thread(system.executor.start)
        await working
        code = await asyncio.to_thread(system.executor.stop)  # it may pass the point only now
        assert code in (0, -signal.SIGKILL)
    return died or code != 0


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_commit_or_send_loses_nothing(tmp_path: Path, point: str):
    assert not await crash(tmp_path / "counting", point, 0)
    count = counted(tmp_path / "counting.counts")[point]
    assert count >= 5
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> bool:
        async with turns:
            return await crash(tmp_path / str(number), point, number)

    died = await asyncio.gather(*[one(number) for number in range(1, count + 1)])
    print(f"{sum(died)} crashes at {count} points")
    assert sum(died) >= 0.7 * count, "the runs pass other points than the one that counted them"
