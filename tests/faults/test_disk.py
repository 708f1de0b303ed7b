"""Faults of the disk against a real executor: kills between writes, a full disk, failing and slow syncs, damage.

Each history is held against the promises. FAULTS_ALL=1 goes through every crash point, not one of several.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepwire
from stepwire.testing.process import ProcessError
from tests.end_to_end.processes import until
from tests.faults.tools import FaultyExecutor, FaultySystem, calls, hold, inject, killed_at, mounted, run, under_strace
from tests.histories import records

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


@pytest.mark.needs("strace")
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


@pytest.mark.needs("strace")
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


@pytest.mark.needs("root")
async def test_a_full_disk_acknowledges_nothing_and_the_executor_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path / "small", "size=2m") as small:
        filler = small / "filler"
        async with FaultySystem(tmp_path, store_folder=small) as system:
            await system.start_workers(1)
            run = await system.send("flows/gates", {"gates": ["room"]})
            await system.has_begun(run, "gate:0")
            fill(filler)
            async with stepwire.Client(system.executor.address, retry_for=0.2) as hasty:
                for number in range(3):
                    with pytest.raises(stepwire.ExecutorError) as refused:
                        await hasty.send_many(
                            [stepwire.Event("refused", "x" * 1000, id=f"refused-{number}-{n}") for n in range(100)]
                        )
                    assert refused.value.code == "UNAVAILABLE"
            await until(lambda: is_health(system, "NOT_SERVING"), "the executor says that it does not serve")
            status = await system.client.status()
            assert (status.state, status.begun_anew > 0) == ("failing", True)
            assert "disk is full" in status.reason
            system.open_gate("room")  # the step's result can't be recorded yet
            assert system.executor.running
            assert "disk is full" in system.executor.log
            filler.unlink()
            assert len(await system.result(run)) == 1
            await until(lambda: is_health(system, "SERVING"), "the executor says that it serves")
            events = [stepwire.Event("refused", "x" * 1000, id=f"refused-0-{n}") for n in range(100)]
            assert len(await system.client.send_many(events)) == 100
            assert await system.result(await system.send("flows/fan-out", {"count": 20})) == {"count": 20, "total": 760}


@pytest.mark.needs("root", "strace")
@pytest.mark.parametrize("fault", ["fdatasync:error=EIO:when=2", "fdatasync:error=EIO:when=1+"])
async def test_a_sync_that_fails_stops_everything_until_one_succeeds(tmp_path: Path, fault: str) -> None:
    async with FaultySystem(tmp_path) as system:
        await system.start_workers(1)
        waiting = await system.send("flows/gates", {"gates": ["disk"]})
        await system.has_begun(waiting, "gate:0")
        pid = system.executor.pid
        with inject(pid, tmp_path / "strace", fault):
            runs = [asyncio.create_task(system.send("flows/fan-out", {"count": 4}, id=f"event-{n}")) for n in range(20)]
            await until(lambda: "the store failed" in system.executor.log, "the executor notices")
            if fault.endswith("+"):
                await until(lambda: system.executor.log.count("still fails") >= 2, "it has tried to open the store")
                assert not any(run.done() for run in runs)
                assert await is_health(system, "NOT_SERVING")
            else:
                await asyncio.wait(runs)
        system.open_gate("disk")
        assert len(await system.result(waiting)) == 1
        for run in runs:
            assert await system.result(await run) == {"count": 4, "total": 24}
        assert system.executor.pid == pid
        assert system.executor.running
        await until(lambda: is_health(system, "SERVING"), "the executor says that it serves")


@pytest.mark.needs("root", "strace")
async def test_slow_syncs_slow_the_runs_and_lose_no_worker(tmp_path: Path) -> None:
    short = {"heartbeat_interval": 0.2, "session_grace": 0.5}
    async with FaultySystem(tmp_path, settings=short) as system:
        await system.start_workers(2)
        took = []
        with contextlib.ExitStack() as stack:
            for delay in (0, 300_000):
                if delay:
                    fault = f"fdatasync:delay_exit={delay}"
                    stack.enter_context(inject(system.executor.pid, tmp_path / "strace", fault))
                began = time.monotonic()
                runs = [await system.send("flows/fan-out", {"count": 6, "seconds": 1.0}) for _ in range(2)]
                for run in runs:
                    assert await system.result(run) == {"count": 6, "total": 60}
                took.append(time.monotonic() - began)
        assert took[1] > took[0] + 4 * 0.3
        assert system.executor.log.count("has connected") == 2
    happened = records.read(system.history)
    assert not [record for record in happened if record["what"] == "closed" and record["outcome"] != "succeeded"]
    assert {record["number"] for record in happened if record["what"] == "dispatched"} == {1}


@pytest.mark.needs("root")
@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_read_only_database_is_refused_and_named(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    async with FaultySystem(tmp_path, store_folder=folder) as system:
        await system.start_workers(1)
        assert await system.result(await system.send("flows/fan-out", {"count": 2})) == {"count": 2, "total": 4}
        assert await asyncio.to_thread(system.executor.stop) == 0
        with read_only(system.store if what == "file" else folder):
            await refused_at_start(system, "read-only")
        await asyncio.to_thread(system.executor.start)
        assert await system.result(await system.send("flows/fan-out", {"count": 4})) == {"count": 4, "total": 24}


@pytest.mark.parametrize("where", ["first page", "middle", "log"])
async def test_a_damaged_database_is_refused_and_left_as_it_is(tmp_path: Path, where: str) -> None:
    async with FaultySystem(tmp_path) as system:
        await system.start_workers(1)
        for number in range(20):
            run = await system.send("flows/fan-out", {"count": 2, "filler": "x" * 2000}, id=f"event-{number}")
            await system.result(run)
        log = system.store.with_name(f"{system.store.name}-wal")
        if where == "log":
            await asyncio.to_thread(system.executor.kill)
        else:
            assert await asyncio.to_thread(system.executor.stop) == 0
        file = log if where == "log" else system.store
        whole = file.read_bytes()
        damaged = damage(whole, {"first page": 100, "middle": len(whole) // 2, "log": 40}[where])
        file.write_bytes(damaged)
        before = contents(system.store)
        await refused_at_start(system, "damaged")
        assert contents(system.store) == before
        file.write_bytes(whole)
        await asyncio.to_thread(system.executor.start)
        assert await system.result(run) == {"count": 2, "total": 4}


async def test_a_second_executor_on_the_same_file_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with FaultySystem(tmp_path) as system:
        await system.start_workers(1)
        run = await system.send("flows/gates", {"gates": ["second"]})
        await system.has_begun(run, "gate:0")
        second = FaultyExecutor(settings={"store": f"sqlite:///{system.store}"}, folder=tmp_path / "second")
        with pytest.raises(ProcessError, match="exit code 74"):
            await asyncio.to_thread(second.start)
        assert "another executor" in second.log
        assert str(system.store) in second.log
        second.destroy()
        system.open_gate("second")
        assert len(await system.result(run)) == 1
        assert system.executor.log.count("has connected") == 1


async def refused_at_start(system: FaultySystem, reason: str) -> None:
    """Start the executor, which must end by itself with a message about the store."""
    said = len(system.executor.log)
    with pytest.raises(ProcessError, match="exit code 74 before"):
        await asyncio.to_thread(system.executor.start)
    message = system.executor.log[said:]
    assert reason in message
    assert str(system.store) in message
    assert "Traceback" not in message


def contents(store: Path) -> dict[str, bytes]:
    """Give what the files of a database hold."""
    return {file.name: file.read_bytes() for file in store.parent.glob(f"{store.name}*")}


def damage(whole: bytes, at: int) -> bytes:
    """Flip the bits of some bytes."""
    return whole[:at] + bytes(byte ^ 0xFF for byte in whole[at : at + 64]) + whole[at + 64 :]


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a file or folder read-only for root, too."""
    run("mount", "--bind", str(path), str(path))
    try:
        run("mount", "-o", "remount,bind,ro", str(path))
        yield
    finally:
        run("umount", str(path))


def fill(file: Path) -> None:
    """Take all the room that a small disk has."""
    with file.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


async def is_health(system: FaultySystem, wanted: str) -> bool:
    """Whether the executor says so of itself."""
    return await system.health() == wanted


@pytest.mark.needs("root")
@pytest.mark.timeout(SECONDS)
async def test_a_history_that_cannot_be_written_ends_and_nothing_else_does(tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path / "small", "size=64k") as small:
        executor = FaultyExecutor(settings={"history": small / "history"}, folder=tmp_path)
        await asyncio.to_thread(executor.start)
        try:
            async with stepwire.Client(executor.address) as client:
                for number in range(40):
                    receipts = await client.send_many([stepwire.Event("full", id=f"{number}-{at}") for at in range(20)])
                    assert len(receipts) == 20
            assert executor.log.count("the history ends here, it can't be written") == 1
            assert "Traceback" not in executor.log
        finally:
            await asyncio.to_thread(executor.stop)
        assert executor.returncode == 0
