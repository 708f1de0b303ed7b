"""Real workers and real executors are told to stop, at bad times and while other things go wrong.

A stop costs nobody an attempt: the numbers of attempts stay 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import pytest

from stepwire.records import RunState, WorkerState
from stepwire.testing import ProcessError, WorkerProcess
from tests.end_to_end.processes import until
from tests.faults.proxy import Proxy, Way
from tests.faults.seen import dispatched, ends, fan_out, has_happened, parts_end, worker_of
from tests.faults.tools import FaultySystem

SHORT = {"heartbeat_interval": 0.5, "session_grace": 0.5, "max_lost_invocations": 100}
AT_ONCE_SECONDS = 4.0
"""What a stop may take on a busy machine if nothing has to be waited for."""
RUNS = 300


async def stop(process: WorkerProcess) -> None:
    """Send SIGTERM and wait for an end without an error."""
    assert await asyncio.to_thread(process.stop) == 0, process.log[-2000:]


async def drains(system: FaultySystem) -> bool:
    """Whether the executor knows of a worker that drains."""
    return WorkerState.DRAINING in [seen.state for seen in await system.client.workers()]


async def stop_executor(system: FaultySystem) -> None:
    """Send SIGTERM and wait for an end without an error."""
    assert await asyncio.to_thread(system.executor.stop) == 0, system.executor.log[-2000:]


@pytest.mark.parametrize("drain_seconds", [30, 0.2], ids=["attempts-finish", "attempts-are-given-back"])
async def test_a_worker_is_stopped_under_load(tmp_path: Path, drain_seconds: float):
    async with FaultySystem(tmp_path) as system:
        options = {"drain_seconds": drain_seconds}
        (worker,) = await system.start_workers(1, processes=2, slots=8, options=options)
        held = await system.send("flows/gates", {"gates": ["go"] * 12})
        for number in range(12):
            await system.has_begun(held, f"gate:{number}")
        await system.start_workers(1, processes=2, slots=8)
        many = await system.send("flows/fan-out", {"count": 100, "seconds": 0.2})
        await parts_end(system, 4)
        stopping = asyncio.create_task(stop(worker))
        await until(lambda: worker.log.count("draining: ") == 2, "both processes drain")
        if drain_seconds > 1:
            system.open_gate("go")
        await stopping
        system.open_gate("go")
        await system.result(held)
        assert await system.result(many) == fan_out(100)
        assert system.at_most_one_attempt()
        cut_off = [record["step"] for record in has_happened(system, "finished", outcome="cancelled")]
        assert sum(step.startswith("gate:") for step in cut_off) == (12 if drain_seconds < 1 else 0)


@pytest.mark.parametrize("workers_too", [False, True], ids=["executor", "both"])
async def test_an_executor_is_stopped_under_load(tmp_path: Path, workers_too: bool):
    async with FaultySystem(tmp_path) as system:
        # Results of workers that outlive the executor can't be recorded: they wait for it until their drain is over.
        workers = await system.start_workers(2, slots=8, options={"drain_seconds": 1})
        runs = [await system.send("flows/fan-out", {"count": 50, "seconds": 0.3}) for _ in range(2)]
        await parts_end(system, 20)
        await asyncio.gather(stop_executor(system), *[stop(worker) for worker in workers if workers_too])
        await asyncio.to_thread(system.executor.start)
        for worker in workers if workers_too else []:
            await asyncio.to_thread(worker.start)
        for run_id in runs:
            assert await system.result(run_id) == fan_out(50)
        assert system.at_most_one_attempt()


async def test_an_executor_is_stopped_while_it_recovers(tmp_path: Path):
    async with FaultySystem(tmp_path) as system:
        await system.start_workers(2, slots=RUNS)
        events = [("flows/gates", {"gates": ["go"]}) for _ in range(RUNS)]
        runs = [run_id for receipt in await system.client.send_many(events) for run_id in receipt.run_ids]
        await until(lambda: len(system.lines()) == RUNS, "all steps have begun")
        await asyncio.to_thread(system.executor.kill)
        for text, times in (("go on with", 1), ("listening", 1), ("has connected", 1), ("has connected", 2)):
            wanted = system.executor.log.count(text) + times
            starting = asyncio.create_task(asyncio.to_thread(system.executor.start))
            await until(lambda text=text, wanted=wanted: system.executor.log.count(text) >= wanted, f"{text} {times}")
            await stop_executor(system)
            with contextlib.suppress(ProcessError):  # it may have ended before it took calls
                await starting
        await asyncio.to_thread(system.executor.start)
        system.open_gate("go")
        for run_id in runs:
            assert (await system.ended(run_id)).state is RunState.SUCCEEDED
        assert system.at_most_one_attempt()


async def test_a_worker_is_stopped_while_its_executor_is_dead(tmp_path: Path):
    async with FaultySystem(tmp_path) as system:
        (worker,) = await system.start_workers(1)
        run_id = await system.send("flows/gates", {"gates": ["go", "go"]})
        await system.has_begun(run_id, "gate:0")
        await system.has_begun(run_id, "gate:1")
        await asyncio.to_thread(system.executor.kill)
        stopping = asyncio.create_task(stop(worker))
        await until(lambda: "draining: 2 attempts" in worker.log, "the worker drains")
        await asyncio.to_thread(system.executor.start)
        system.open_gate("go")
        await stopping
        await system.start_workers(1)
        assert await system.result(run_id) == [worker.pid] * 2
        assert system.at_most_one_attempt()


async def test_an_executor_is_stopped_while_a_worker_is_frozen(tmp_path: Path):
    async with FaultySystem(tmp_path) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/gates", {"gates": ["go"]})
        (first,) = await system.has_begun(run_id, "gate:0")
        frozen = worker_of(system, first)
        frozen.signal(signal.SIGSTOP)
        begun = time.monotonic()
        await stop_executor(system)
        assert time.monotonic() - begun < AT_ONCE_SECONDS
        await asyncio.to_thread(system.executor.start)
        (_, second) = await system.has_begun(run_id, "gate:0", 2)
        system.open_gate("go")
        assert await system.result(run_id) == [second.pid]
        frozen.signal(signal.SIGCONT)
        await system.connected(2)
        assert system.at_most_one_attempt()
        await stop(frozen)


async def test_a_second_signal_ends_a_drain_at_once(tmp_path: Path):
    async with FaultySystem(tmp_path) as system:
        (worker,) = await system.start_workers(1)
        run_id = await system.send("flows/gates", {"gates": ["go"]})
        await system.has_begun(run_id, "gate:0")
        stopping = asyncio.create_task(stop(worker))
        await until(lambda: "draining: 1 attempts" in worker.log, "the worker drains")
        begun = time.monotonic()
        worker.signal(signal.SIGTERM)
        await stopping
        assert time.monotonic() - begun < AT_ONCE_SECONDS
        await system.start_workers(1)
        await system.has_begun(run_id, "gate:0", 2)
        many = await system.send("flows/fan-out", {"count": 100, "seconds": 0.05})
        await parts_end(system, 20)
        stopping = asyncio.create_task(stop_executor(system))
        await until(lambda: "draining" in system.executor.log, "the executor drains")
        system.executor.signal(signal.SIGTERM)
        await stopping
        await asyncio.to_thread(system.executor.start)
        system.open_gate("go")
        await system.result(run_id)
        assert await system.result(many) == fan_out(100)
        assert system.at_most_one_attempt()


async def test_a_worker_is_killed_while_it_drains(tmp_path: Path):
    async with FaultySystem(tmp_path) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/gates", {"gates": ["go"]})
        (first,) = await system.has_begun(run_id, "gate:0")
        worker = worker_of(system, first)
        worker.signal(signal.SIGTERM)
        await until(lambda: drains(system), "the executor knows that the worker drains")
        worker.kill()
        (_, second) = await system.has_begun(run_id, "gate:0", 2)
        assert second.pid != first.pid
        system.open_gate("go")
        assert await system.result(run_id) == [second.pid]
        assert [number for number, _ in dispatched(system, "gate:0")] == [1, 2]


@pytest.mark.parametrize("ready", [False, True], ids=["it-runs", "its-result-is-ready"])
async def test_a_draining_worker_whose_connection_is_reset_finishes_what_it_has(tmp_path: Path, ready: bool):
    async with FaultySystem(tmp_path) as system, Proxy(system.executor.address) as proxy:
        (worker,) = await system.start_workers(1, address=proxy.address)
        run_id = await system.send("flows/gates", {"gates": ["go", "go"]})
        for number in range(2):
            await system.has_begun(run_id, f"gate:{number}")
        (heir,) = await system.start_workers(1)
        stopping = asyncio.create_task(stop(worker))
        await until(lambda: drains(system), "the executor knows that the worker drains")
        if ready:
            proxy.stall(Way.TO_EXECUTOR)
            system.open_gate("go")
            await until(lambda: ends(system) == 2, "the results are ready")
        proxy.reset()
        proxy.go_on()
        await until(lambda: has_happened(system, "connected", resumed=True), "the worker is back")
        system.open_gate("go")
        await stopping
        assert await system.result(run_id) == [worker.pid] * 2
        assert len(system.lines()) == 4, "an attempt that went on was begun anew"
        assert system.at_most_one_attempt()
        assert heir.running


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_draining_worker_finishes_what_it_has_for_an_executor_that_was(tmp_path: Path, how: str):
    async with FaultySystem(tmp_path) as system:
        (worker,) = await system.start_workers(1)
        run_id = await system.send("flows/gates", {"gates": ["soon", "late"]})
        for number in range(2):
            await system.has_begun(run_id, f"gate:{number}")
        stopping = asyncio.create_task(stop(worker))
        await until(lambda: drains(system), "the executor knows that the worker drains")
        await (stop_executor(system) if how == "stopped" else asyncio.to_thread(system.executor.kill))
        system.open_gate("soon")
        await until(lambda: ends(system) == 1, "one result is ready")
        await asyncio.to_thread(system.executor.start)
        await until(lambda: drains(system), "the next executor knows that the worker drains")
        other = await system.send("flows/gates", {"gates": ["late"]})
        system.open_gate("late")
        await stopping
        await system.start_workers(1)
        assert await system.result(run_id) == [worker.pid] * 2
        assert await system.result(other) != [worker.pid], "a worker that drains was given more"
        assert system.at_most_one_attempt()


async def test_a_drain_that_is_over_while_the_worker_is_cut_off_ends_and_costs_an_attempt(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT) as system, Proxy(system.executor.address) as proxy:
        (worker,) = await system.start_workers(1, address=proxy.address, options={"drain_seconds": 1})
        run_id = await system.send("flows/gates", {"gates": ["go"]})
        await system.has_begun(run_id, "gate:0")
        stopping = asyncio.create_task(stop(worker))
        await until(lambda: drains(system), "the executor knows that the worker drains")
        proxy.refuse()
        proxy.reset()
        await stopping
        await system.start_workers(1)
        (_, second) = await system.has_begun(run_id, "gate:0", 2)
        system.open_gate("go")
        assert await system.result(run_id) == [second.pid]
        assert [number for number, _ in dispatched(system, "gate:0")] == [1, 2]
