"""Faults that meet: a drain or a restart with a dead connection, a full one, a recovery, another clock."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from stepwire.records import StepState
from stepwire.testing.process import ManagedProcess
from tests.end_to_end.processes import until
from tests.faults.fast import GRACE_SECONDS, HEARTBEAT_SECONDS, FastSystem
from tests.faults.forked import ForkedExecutor
from tests.faults.proxy import BOTH, Proxy, Way
from tests.faults.seen import has_happened
from tests.faults.tools import WrongClock

TROUBLE = "tests.faults.apps.trouble:app"
TWO_HOURS = 7200.0
FOUND_SECONDS = 2 * HEARTBEAT_SECONDS + 1.0
"""With what a busy machine may be late."""


async def ends(process: ManagedProcess) -> None:
    """Wait for a process's good end."""
    assert await asyncio.to_thread(process.wait) == 0, process.log[-2000:]


@pytest.mark.parametrize("ways", [BOTH, (Way.TO_WORKER,)], ids=["both", "down"])
async def test_a_half_open_connection_is_found_while_large_messages_wait_for_it(tmp_path: Path, ways: tuple[Way, ...]):
    async with FastSystem(tmp_path, target=TROUBLE) as system, Proxy(system.executor.address) as proxy:
        await system.fork_worker(proxy.address)
        await system.launch("fan-out", {"count": 2})
        await system.all_end()
        proxy.stall(*ways)
        cut_at = time.monotonic()
        for _ in range(6):
            await system.launch("heavy", {"text": "x" * 900_000}, 900_000)
        await until(lambda: has_happened(system, "gone", cut_at), "the worker is given up")
        await system.fork_worker()
        await system.all_end()
        proxy.go_on()
        await system.connected(2)


async def test_an_executor_drains_while_a_connection_is_half_open(tmp_path: Path):
    async with FastSystem(tmp_path) as system, Proxy(system.executor.address) as proxy:
        await system.fork_worker(proxy.address)
        await system.fork_worker()
        await system.load()
        proxy.stall(*BOTH)
        system.executor.signal(signal.SIGTERM)
        await ends(system.executor)
        await asyncio.to_thread(system.executor.start)
        proxy.go_on()
        await system.all_end()


async def test_executor_and_workers_stop_at_once_and_come_back(tmp_path: Path):
    async with FastSystem(tmp_path) as system:
        workers = [await system.fork_worker() for _ in range(2)]
        await system.load()
        for process in (system.executor, *workers):
            process.signal(signal.SIGTERM)
        await ends(system.executor)
        await asyncio.to_thread(system.executor.start)
        for worker in workers:
            await ends(worker)
            await asyncio.to_thread(worker.start)
        await system.all_end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
async def test_a_recovery_cut_short_at_any_time_strands_nothing(tmp_path: Path, number: int):
    async with FastSystem(tmp_path) as system:
        worker = await system.fork_worker()
        await asyncio.to_thread(worker.stop)
        for _ in range(150):
            await system.launch("fan-out", {"count": 2})
        await system.launch("parent")
        assert isinstance(system.executor, ForkedExecutor)
        for delay in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
            await asyncio.to_thread(system.executor.kill)
            system.executor.spawn()
            await asyncio.sleep(delay)  # not to wait for something, but to strike at different instants
            system.executor.signal(number)
            assert await asyncio.to_thread(system.executor.wait) in (0, -number)
            await asyncio.to_thread(system.executor.start)
        await asyncio.to_thread(worker.start)
        await system.all_end()


async def test_an_executor_stopped_again_and_again_while_workers_come_back_strands_nothing(tmp_path: Path):
    async with FastSystem(tmp_path, settings={"session_grace": 20}) as system:
        for _ in range(3):
            await system.fork_worker()
        await system.load()
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            before = system.executor.log.count("has connected")
            system.executor.signal(number)
            await asyncio.to_thread(system.executor.wait)
            await asyncio.to_thread(system.executor.start)
            await until(lambda before=before: system.executor.log.count("has connected") > before, "one is back")
        await system.connected(3)
        await system.all_end()


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS], ids=["ahead", "back"])
async def test_a_lost_workers_grace_is_kept_though_the_clock_is_set(tmp_path: Path, jump: float):
    clock = WrongClock(tmp_path / "clock")
    async with (
        FastSystem(tmp_path, clock=clock.environment, settings={"session_grace": 30}) as system,
        Proxy(system.executor.address) as proxy,
    ):
        await system.fork_worker(proxy.address)
        run_id = await system.launch("fan-out", {"count": 8, "seconds": 2.0})
        await system.has_begun(run_id, "part:0")
        proxy.refuse()
        proxy.reset()
        await until(lambda: has_happened(system, "gone"), "the worker is missed")
        clock.set(jump)
        await asyncio.sleep(2 * GRACE_SECONDS)  # time in which nothing must happen
        proxy.refuse(False)
        await system.connected(1)
        await system.all_end()
        assert system.at_most_one_attempt()


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS], ids=["ahead", "back"])
async def test_a_retry_is_not_forgotten_though_the_executor_comes_back_with_another_clock(tmp_path: Path, jump: float):
    clock = WrongClock(tmp_path / "clock")
    async with FastSystem(tmp_path, target=TROUBLE, clock=clock.environment) as system:
        await system.fork_worker()
        # Longer than a loaded machine takes to look, and much shorter than the jump.
        run_id = await system.launch("waits-to-retry", {"seconds": 10.0}, 2)
        await system.reaches(run_id, "again:0", StepState.RETRYING)
        await asyncio.to_thread(system.executor.kill)
        clock.set(jump)
        await asyncio.to_thread(system.executor.start)
        assert await system.result(run_id, timeout=60) == 2
