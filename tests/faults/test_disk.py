"""Faults of the disk against a real executor: kills between writes, a full disk, failing and slow syncs, damage.

Each history is held against the promises. FAULTS_ALL=1 goes through every crash point, not one of several.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from stepwire.testing.process import ProcessError
from tests.end_to_end.processes import until
from tests.faults.tools import FaultyExecutor, FaultySystem, calls, hold, killed_at, under_strace

ALL = os.environ.get("FAULTS_ALL") == "1"
SECONDS = 1200 if ALL else 120
WRITES = ("pwrite64", "fdatasync")


async def life(system: FaultySystem, number: int) -> asyncio.Task[Any]:
    """Start the executor, have it run something, stop it, wherever in this it dies; gives what awaits the output."""

    async def run() -> Any:
        return await system.result(await system.send("flows/fan-out", {"count": 2}, id=f"event-{number}"))

    running = asyncio.create_task(run())
    try:
        await asyncio.to_thread(system.executor.start)
        await until(lambda: running.done() or not system.executor.running, "the run or the executor ends")
        if system.executor.running:
            await asyncio.to_thread(system.executor.stop)
    except ProcessError:
        assert system.executor.returncode == -signal.SIGKILL, system.executor.log
    return running


@pytest.mark.timeout(SECONDS)
async def test_a_kill_at_any_write_or_sync_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "strace"
    async with FaultySystem(tmp_path) as system:
        await system.start_workers(1)
        await asyncio.to_thread(system.executor.stop)
        system.executor.prefix = under_strace(log, "-e", "trace=" + ",".join(WRITES))
        results = [await life(system, 0)]
        made = calls(log)
        assert made["fdatasync"] >= 5
        assert made["pwrite64"] >= 20
        points = [(call, number) for call in WRITES for number in range(1, made[call] + 1)]
        kills = 0
        for call, number in points if ALL else points[3::7]:
            system.executor.prefix = killed_at(log, call, number)
            results.append(await life(system, len(results)))
            kills += system.executor.returncode == -signal.SIGKILL
        system.executor.prefix = ()
        await asyncio.to_thread(system.executor.start)
        outputs = await asyncio.gather(*results)
        assert outputs == [{"count": 2, "total": 4}] * len(outputs)
    print(f"{kills} kills in {len(results)} lives, of {made} calls")
    assert kills >= 0.8 * (len(results) - 1)


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(("call", "stride"), [("fsync", 1), ("fdatasync", 2), ("pwrite64", 11)])
async def test_a_kill_in_the_first_start_leaves_a_store_that_can_be_used(
    tmp_path: Path, call: str, stride: int
) -> None:
    log, history, store = tmp_path / "strace", tmp_path / "history", tmp_path / "store" / "faulty.db"
    executor = FaultyExecutor(settings={"history": history, "store": f"sqlite:///{store}"}, folder=tmp_path)
    kills = 0
    try:
        for number in range(1, 100, 1 if ALL else stride):
            executor.prefix = killed_at(log, call, number)
            try:
                await asyncio.to_thread(executor.start)
            except ProcessError:
                assert executor.returncode == -signal.SIGKILL, executor.log
                kills += 1
            else:
                break
        assert await asyncio.to_thread(executor.stop) in (0, -signal.SIGKILL)
    finally:
        executor.destroy()
    assert kills >= (1 if call == "fsync" else 3)
    await hold(history, store)
