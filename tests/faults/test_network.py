"""The network between real workers and a real executor goes wrong; what happened must keep the promises."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from stepwire.testing import WorkerProcess
from tests.end_to_end.processes import until
from tests.faults.proxy import BOTH, Proxy, Relay, Way
from tests.faults.seen import fan_out, has_happened, parts_end
from tests.faults.storm import Storm
from tests.faults.tools import FaultySystem

HEARTBEAT_SECONDS = 0.5
SHORT = {"heartbeat_interval": HEARTBEAT_SECONDS, "session_grace": 5}
FOUND_SECONDS = 2 * HEARTBEAT_SECONDS
A_LITTLE_SECONDS = 1.0
"""What a busy machine may add to a silence before somebody looks at the clock."""


def silences(worker: WorkerProcess) -> list[float]:
    """Give the seconds of the silences after which a worker gave its stream up."""
    return [float(seconds) for seconds in re.findall(r"nothing has come for ([\d.]+) s", worker.log)]


async def test_a_reset_connection_is_resumed_and_costs_no_attempt(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT) as system, Proxy(system.executor.address) as proxy:
        await system.start_workers(2, address=proxy.address)
        run_id = await system.send("flows/fan-out", {"count": 160, "seconds": 0.1})
        for _ in range(4):
            await parts_end(system, 20)
            proxy.reset()
        proxy.refuse()
        proxy.reset()
        tries = [worker.log.count("reconnecting") for worker in system.workers]
        for worker, before in zip(system.workers, tries, strict=True):
            await until(lambda worker=worker, before=before: worker.log.count("reconnecting") > before + 2, "3 tries")
        proxy.refuse(False)
        assert await system.result(run_id) == fan_out(160)
        await system.check(run_id)
        assert system.at_most_one_attempt()
        assert len(has_happened(system, "connected", resumed=True)) >= 4


@pytest.mark.parametrize("ways", [(Way.TO_EXECUTOR,), (Way.TO_WORKER,), BOTH], ids=["up", "down", "both"])
async def test_a_half_open_connection_is_found_on_both_sides(tmp_path: Path, ways: tuple[Way, ...]):
    async with FaultySystem(tmp_path, settings=SHORT) as system, Proxy(system.executor.address) as proxy:
        (worker,) = await system.start_workers(1, address=proxy.address)
        await until(lambda: has_happened(system, "connected"), "the Welcome has come through the proxy")
        await half_open(system, proxy, worker, ways)  # no heartbeat has been answered yet, or hardly one
        run_id = await system.send("flows/gates", {"gates": ["first", "second"]})
        await system.has_begun(run_id, "gate:0")
        for gate in ("first", "second"):
            await half_open(system, proxy, worker, ways)
            system.open_gate(gate)
        assert await system.result(run_id) == [system.begun(run_id, "gate:0")[0].pid] * 2
        await system.check(run_id)
        assert system.at_most_one_attempt()
        assert len(system.lines()) == 4, "an attempt that went on was begun anew"
        if Way.TO_WORKER in ways:
            assert silences(worker)
            assert max(silences(worker)) < FOUND_SECONDS + A_LITTLE_SECONDS


async def half_open(system: FaultySystem, proxy: Proxy, worker: WorkerProcess, ways: tuple[Way, ...]) -> None:
    """Keep what comes over the present connections until both sides have found out; then let it come, too late."""
    begun = time.monotonic()
    losses = worker.log.count("the stream to")
    proxy.stall(*ways, new=False)
    proxy.refuse()  # a new connection would tell the executor of the old one's end

    def both_know() -> bool:
        return worker.log.count("the stream to") > losses and bool(has_happened(system, "gone", begun))

    await until(both_know, "both sides know that the connection is half-open")
    assert time.monotonic() - begun < FOUND_SECONDS + A_LITTLE_SECONDS
    proxy.refuse(False)
    await until(lambda: has_happened(system, "connected", begun, resumed=True), "the session is resumed")
    proxy.go_on()
    await system.connected(1)


async def test_a_welcome_that_comes_too_late_harms_nobody(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT) as system, Proxy(system.executor.address) as proxy:

        def keep_from_hello_on(_: Way, data: bytes) -> None:
            if b"stepwire-python" in data:
                proxy.stall(Way.TO_WORKER)

        proxy.seen = keep_from_hello_on
        (worker,) = await system.start_workers(1, address=proxy.address, wait=False)  # it counts from its Hello
        begun = time.monotonic()
        run_id = await system.send("flows/fan-out", {"count": 4})
        await until(lambda: has_happened(system, "gone", begun), "the executor gives the silent worker up")
        assert has_happened(system, "gone", begun)[0]["at"] - begun < FOUND_SECONDS + A_LITTLE_SECONDS
        proxy.seen = None
        proxy.go_on()
        assert await system.result(run_id) == fan_out(4)
        assert "the stream to" in worker.log
        await system.check(run_id)


async def test_connections_that_end_within_a_frame_lose_nothing(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT) as system, Proxy(system.executor.address) as proxy:
        await system.start_workers(2, address=proxy.address)
        for number in range(6):
            accepted = proxy.accepted
            way = BOTH[number % 2]
            proxy.close_after(way, 20_000 + 777 * number)
            run_id = await system.send("flows/blob", {"bytes": 300_000})
            await until(lambda accepted=accepted: proxy.accepted > accepted, f"a connection is cut {way}")
            assert await system.result(run_id) == [300_000] * 3
        assert system.at_most_one_attempt()


async def test_frames_that_come_twice_are_taken_once(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT) as system, Relay(system.executor.address) as relay:
        await system.start_workers(2, address=relay.address, wait=False)
        runs = [await system.send("flows/fan-out", {"count": 50, "seconds": 0.01}) for _ in range(3)]
        flaky, races = await system.send("flows/flaky"), await system.send("flows/race")
        for run_id in runs:
            assert await system.result(run_id) == fan_out(50)
            await system.check(run_id)
        assert await system.result(flaky) == [2, 3, 4]
        assert await system.result(races) == 4
        kinds = {"step_run", "step_failed", "steps_found", "recorded", "cancel"}
        assert kinds <= set(relay.repeated)
        await until(lambda: "heartbeat" in relay.repeated, "a heartbeat comes twice")
        assert max(step.attempt for step in await system.steps(flaky)) == 3


async def test_a_slow_link_is_no_lost_worker(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT) as system, Proxy(system.executor.address) as proxy:
        (worker,) = await system.start_workers(1, address=proxy.address)
        proxy.delay_seconds = 0.15
        begun = time.monotonic()
        run_id = await system.send("flows/fan-out", {"count": 30, "seconds": 0.05})
        assert await system.result(run_id) == fan_out(30)
        assert time.monotonic() - begun > 4 * proxy.delay_seconds
        assert not has_happened(system, "gone")
        assert not silences(worker)
        await system.check(run_id)
        proxy.delay_seconds = 0.0


STORM_WORKERS = 40
BARE_BACKOFF = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
BACK_SECONDS = 8.0
"""In which all workers are back; alone one takes 0.1 to 2 s."""


async def test_a_storm_of_reconnecting_workers_settles(tmp_path: Path):
    async with FaultySystem(tmp_path, settings={"session_grace": 10}) as system:
        environment = {"STEPWIRE_HISTORY": str(system.history), "FLOWS_LOG": str(system.log)}
        crowd = Storm(system.executor.address, STORM_WORKERS, slots=4, folder=tmp_path, environment=environment)
        with crowd:
            await system.connected(STORM_WORKERS)
            runs = [await system.send("flows/fan-out", {"count": 200, "seconds": 0.5})]
            await parts_end(system, 50)
            await system.kill_executor()
            await all_are_back(system)
            delays = [float(seconds) for seconds in re.findall(r"reconnecting to \S+ in ([\d.]+) s", crowd.log)]
            assert sum(delay not in BARE_BACKOFF for delay in delays) > STORM_WORKERS / 4, "they come without jitter"
            runs.append(await system.send("flows/fan-out", {"count": 200, "seconds": 0.5}))
            await parts_end(system, 50)
            assert await asyncio.to_thread(system.executor.stop) == 0
            await asyncio.to_thread(system.executor.start)
            await all_are_back(system)
            for run_id in runs:
                assert await system.result(run_id) == fan_out(200)
                await system.check(run_id)
            assert system.at_most_one_attempt()
            assert await asyncio.to_thread(crowd.stop) == 0


async def all_are_back(system: FaultySystem) -> None:
    """Wait until all workers are connected again; that takes seconds."""
    started = time.monotonic()
    await system.connected(STORM_WORKERS)
    assert time.monotonic() - started < BACK_SECONDS
