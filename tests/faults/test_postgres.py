"""Faults of PostgreSQL and of the executors on it, with real processes; each history is held against the promises."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import stepwire
from stepwire.testing import ExecutorProcess
from tests.end_to_end.processes import until
from tests.faults.standby import TAKEOVER_SECONDS, StandbySystem, serves
from tests.faults.tools import WrongClock
from tests.histories import records
from tests.postgres import HOST, USER, Cluster

ENDS = {"count": 4, "total": 24}
"""What a fan-out of 4 comes to."""
LATE_SECONDS = 8.0
"""What a takeover may take longer on a busy machine, with the reconnection of a worker."""
pytestmark = pytest.mark.needs("postgresql")


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.url(cluster.database())


async def serves_not(executor: ExecutorProcess) -> bool:
    """Whether an executor says that it takes no work."""
    return not await serves(executor)


class Load:
    """Runs that are started one after the other, whatever happens, and what becomes of them."""

    def __init__(self, system: StandbySystem) -> None:
        self.system = system
        self.runs: list[str] = []
        self.enough = False
        self.sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while not self.enough:
            id_ = f"event-{len(self.runs)}"
            self.runs.append(await self.system.send("flows/fan-out", {"count": 4, "seconds": 0.01}, id=id_))

    async def more(self, count: int = 3) -> None:
        """Wait until some more runs have been acknowledged."""
        wanted = len(self.runs) + count
        await until(lambda: len(self.runs) >= wanted or self.sending.done(), f"{count} more events are taken")
        if self.sending.done():
            await self.sending

    async def check(self) -> None:
        """Wait for the ends of all runs, which are those that they should be."""
        assert len(set(self.runs)) == len(self.runs)
        outputs = await asyncio.gather(*map(self.system.result, self.runs))
        assert outputs == [ENDS] * len(self.runs)


@asynccontextmanager
async def load(system: StandbySystem) -> AsyncIterator[Load]:
    """Keep events coming while the context lasts; after it all of their runs have ended as they should."""
    given = Load(system)
    try:
        yield given
    except BaseException:
        given.sending.cancel()
        raise
    given.enough = True
    await given.sending  # the run of an event whose sending was cancelled would be known to nobody
    await given.check()


async def test_a_standby_says_so_and_takes_over_when_the_active_one_is_killed(tmp_path: Path, url: str) -> None:
    async with StandbySystem(tmp_path, url) as system:
        await system.start_workers(1)
        active = await system.active()
        standby = system.standby(active)
        async with stepwire.Client(standby.address, retry_for=0) as client:
            for call in (client.send("flows/fan-out", {"count": 1}), client.workers(), client.why("x")):
                with pytest.raises(
                    stepwire.ExecutorError, match=r"this executor is a standby: executor .* has the store"
                ):
                    await call
            status = await client.status()
            assert status.state == "standby"
            assert "has the store" in status.reason
        run = await system.send("flows/gates", {"gates": ["open", "open"]})
        await system.has_begun(run, "gate:0")
        await system.has_begun(run, "gate:1")
        assert len(await system.steps(run)) == 2, "steps may begin before their plan is durable; what is shown is"
        killed_at = time.monotonic()
        active.kill()
        assert await system.active() is standby
        assert time.monotonic() - killed_at < TAKEOVER_SECONDS + LATE_SECONDS
        await system.connected(1)
        system.open_gate("open")
        assert len(await system.result(run)) == 2
        await asyncio.to_thread(active.start)
        assert not await serves(active)
        assert len(system.begun(run, "gate:0")) == 1, "the worker had it in hand"


async def test_an_executor_that_was_stopped_and_goes_on_writes_nothing_more(tmp_path: Path, url: str) -> None:
    async with StandbySystem(tmp_path, url) as system:
        await system.start_workers(1)
        active = await system.active()
        async with load(system) as given:
            await given.more()
            active.signal(signal.SIGSTOP)
            try:
                after = await system.active(other_than=active)
                await given.more()  # the client finds out by itself that nobody answers
            finally:
                active.signal(signal.SIGCONT)
            await until(lambda: serves_not(active), "it learns of its successor")
            await given.more()
            assert await serves(after)
            assert not await serves(active)
            assert "another executor has taken the store over; this one is a standby" in active.log


async def test_an_executor_that_is_told_to_stop_is_followed_at_once(tmp_path: Path, url: str) -> None:
    async with StandbySystem(tmp_path, url, settings={"takeover_after": 60}) as system:
        await system.start_workers(1)
        active = await system.active()
        async with load(system) as given:
            await given.more()
            told_at = time.monotonic()
            assert await asyncio.to_thread(active.stop) == 0
            assert await system.active() is system.standby(active)
            assert time.monotonic() - told_at < LATE_SECONDS
            await given.more()
            await asyncio.to_thread(active.start)
            assert not await serves(active)


async def test_a_standby_that_is_told_to_stop_ends_in_good_order(tmp_path: Path, url: str) -> None:
    async with StandbySystem(tmp_path, url) as system:
        await system.start_workers(1)
        active = await system.active()
        standby = system.standby(active)
        assert await asyncio.to_thread(standby.stop, 5) == 0
        assert await system.result(await system.send("flows/fan-out", {"count": 4})) == ENDS
        assert await serves(active)
        await asyncio.to_thread(standby.start)
        active.kill()
        await asyncio.sleep(TAKEOVER_SECONDS)  # whether it stands by, takes over or works: it must end
        assert await asyncio.to_thread(standby.stop, 15) == 0
        await asyncio.to_thread(active.start)
        assert await system.active() is active


async def test_connections_that_are_terminated_cost_nothing_but_time(
    tmp_path: Path, cluster: Cluster, url: str
) -> None:
    async with StandbySystem(tmp_path, url) as system:
        await system.start_workers(1)
        async with load(system) as given:
            for _ in range(6):
                await given.more()
                await asyncio.to_thread(cluster.terminate_all)
            await given.more()


async def test_no_room_for_a_connection_is_waited_out(tmp_path: Path, cluster: Cluster, url: str) -> None:
    name = url.rpartition("/")[2]
    async with StandbySystem(tmp_path, url, count=1) as system:
        await system.start_workers(1)
        run = await system.send("flows/gates", {"gates": ["open"]})
        await system.has_begun(run, "gate:0")
        cluster.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        cluster.terminate_all()
        await until(lambda: "the store still fails" in system.executor.log, "it tries again")
        await until(lambda: serves_not(system.executor), "it says so")
        cluster.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        system.open_gate("open")
        assert len(await system.result(run)) == 1


async def test_a_server_that_stops_at_once_in_commits_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with Cluster() as cluster:
        async with StandbySystem(tmp_path, cluster.url(cluster.database())) as system:
            await system.start_workers(1)
            async with load(system) as given:
                for _ in range(5):
                    await given.more()
                    await asyncio.to_thread(cluster.stop_at_once)
                    await asyncio.to_thread(cluster.start)
                await given.more()


async def test_a_database_that_is_lost_in_a_takeover_is_tried_again(tmp_path: Path) -> None:
    with Cluster() as cluster:
        async with StandbySystem(tmp_path, cluster.url(cluster.database()), count=3) as system:
            await system.start_workers(1)
            async with load(system) as given:
                for pause in (0.0, TAKEOVER_SECONDS, TAKEOVER_SECONDS + 0.3):
                    await given.more()
                    active = await system.active()
                    active.kill()
                    await asyncio.sleep(pause)  # others wait, take over, or load
                    await asyncio.to_thread(cluster.stop_at_once)
                    await asyncio.to_thread(cluster.start)
                    await system.active()
                    await asyncio.to_thread(active.start)
                await given.more()


async def test_a_database_that_is_not_there_at_the_start_is_waited_for(tmp_path: Path) -> None:
    with Cluster() as cluster:
        database = cluster.url(cluster.database())
        await asyncio.to_thread(cluster.stop)
        async with StandbySystem(tmp_path, database, count=1) as system:
            assert not await serves(system.executor)
            assert "can't be reached" in system.executor.log
            await asyncio.to_thread(cluster.start)
            await system.start_workers(1)
            assert await system.result(await system.send("flows/fan-out", {"count": 4})) == ENDS


async def test_a_failover_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with Cluster(synchronous_standby_names="*", synchronous_commit="local") as primary:
        name = primary.database()
        with Cluster(of=primary, synchronous_standby_names="") as standby:
            hosts = f"{HOST}:{primary.port},{HOST}:{standby.port}"
            async with StandbySystem(tmp_path, f"postgresql://{USER}@{hosts}/{name}") as system:
                await system.start_workers(1)
                async with load(system) as given:
                    await given.more(10)
                    primary.kill()
                    await asyncio.to_thread(standby.promote)
                    await given.more(10)


@pytest.mark.parametrize("apart", [2 * 3600.0, -2 * 3600.0], ids=["ahead", "behind"])
async def test_executors_whose_clocks_are_apart_take_over_neither_early_nor_at_a_loss(
    tmp_path: Path, url: str, apart: float
) -> None:
    true, wrong = WrongClock(tmp_path / "true"), WrongClock(tmp_path / "wrong")
    wrong.set(apart)
    clocks = [true.environment, wrong.environment]
    async with StandbySystem(tmp_path, url, clocks=clocks) as system:
        await system.start_workers(1)
        active, other = system.executors
        assert await system.active() is active
        run = await system.send("flows/gates", {"gates": ["open"]})
        await system.has_begun(run, "gate:0")
        await asyncio.sleep(3 * TAKEOVER_SECONDS)  # longer than it takes to take over, if somebody should want to
        assert await system.active() is active
        await kill_and_follow(system, active, other)
        await asyncio.to_thread(active.start)
        await kill_and_follow(system, other, active)
        system.open_gate("open")
        assert len(await system.result(run)) == 1
        assert len(system.begun(run, "gate:0")) == 1
    assert not [record for record in records.read(system.history) if record.get("outcome") in ("lost", "timed_out")]


async def kill_and_follow(system: StandbySystem, active: ExecutorProcess, other: ExecutorProcess) -> None:
    """End the one, and wait until the other one has the worker."""
    active.kill()
    assert await system.active() is other
    await system.connected(1)
