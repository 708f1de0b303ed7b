"""Histories of real processes, some of which are killed: no promise is broken, and a broken one is seen."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from stepwire.testing.process import ProcessError
from stepwire_executor.store.sqlite import SQLiteStore
from tests.end_to_end.processes import System
from tests.histories.checker import check
from tests.histories.database import Database, read_database
from tests.histories.records import Record, read

RUNS = [
    ("fan-out", {"count": 40, "seconds": 0.05}),
    ("flaky", None),
    ("hopeless", None),
    ("doomed", None),
    ("clumsy-body", None),
    ("killer", None),
    ("naps", None),
    ("parent", None),
    ("race", None),
    ("timeouts", None),
    ("short", None),
    ("plain", {"count": 6}),
    ("asyncio", None),
    ("tasks", {"count": 12}),
    ("blob", {"bytes": 300_000}),
]


class Lived:
    """A system whose processes write their history, and what it has left behind once it has ended."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.history = folder / "history"
        self.file = folder / "executor" / "stepwire.db"
        monkeypatch.setenv("STEPWIRE_HISTORY", str(self.history))
        settings = {"history": self.history, "session_grace": 0.5, "heartbeat_interval": 0.5}
        self.system = System(folder, settings=settings, environment={"STEPWIRE_HISTORY": str(self.history)})

    async def stop(self) -> None:
        """Drain everything."""
        for worker in self.system.workers:
            assert await asyncio.to_thread(worker.stop) == 0
        assert await asyncio.to_thread(self.system.executor.stop) == 0

    async def read(self) -> tuple[list[Record], Database]:
        """Give the history, and what lies in the file."""
        return read(self.history), await stored(self.file)


async def stored(file: Path) -> Database:
    """Read the file of an executor that has ended. Opening it raises its epoch, as any start does."""
    store = SQLiteStore(str(file))
    await store.open()
    try:
        return await read_database(store)
    finally:
        await store.close()


async def revive_workers(system: System, over: asyncio.Event) -> None:
    """Start workers again that have ended: a step kills one, and may have its next attempt in a worker alone only."""
    while not over.is_set():
        for worker in system.workers:
            if not worker.running:
                with contextlib.suppress(ProcessError):  # killed again, as soon as it was connected
                    await asyncio.to_thread(worker.start)
        await asyncio.sleep(0.05)


async def test_no_promise_is_broken_while_processes_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lived = Lived(tmp_path, monkeypatch)
    async with lived.system as system:
        await system.start_workers(2, slots=4)
        reviving = asyncio.create_task(revive_workers(system, over := asyncio.Event()))
        run_ids = [await system.send(f"flows/{name}", data, id=f"event-{name}") for name, data in RUNS]
        cancelled = await system.send("flows/long", id="event-long")
        await system.has_begun(cancelled, "long:0")
        await system.kill_executor()
        await asyncio.to_thread(system.workers[0].kill)
        assert (await system.client.send("flows/flaky", id="event-flaky")).duplicate
        for run_id in run_ids:
            await system.ended(run_id)
        await system.client.cancel(cancelled, "the test has seen enough")
        await system.ended(cancelled)
        over.set()
        await reviving
        await lived.stop()
    records, database = await lived.read()
    assert {each["process"].partition("-")[0] for each in records} == {"executor", "worker", "client"}
    assert len({each["process"] for each in records if each["process"].startswith("executor")}) == 2
    seen = {each["what"] for each in records}
    assert seen >= {"dispatched", "closed", "recorded", "told", "gone", "delivered", "found", "started", "finished"}
    assert check(records, database) == []


async def test_what_is_changed_in_the_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lived = Lived(tmp_path, monkeypatch)
    async with lived.system as system:
        await system.start_workers(1)
        run_id = await system.send("flows/fan-out", {"count": 4}, id="event")
        assert await system.result(run_id) == {"count": 4, "total": 24}
        await lived.stop()
    records, database = await lived.read()
    assert check(records, database) == []
    copy = tmp_path / "copy.db"
    for changed, promise, named in [
        ("UPDATE steps SET output = x'' WHERE step_id = 'total'", "I2", "total:0"),
        ("UPDATE steps SET fence = 1 WHERE step_id = 'part' AND step_index = 2", "I3", "part:2"),
        ("UPDATE steps SET sequence = 99 WHERE step_id = 'part' AND step_index = 1", "I2", f"journal of run {run_id}"),
        ("UPDATE runs SET state = 2, output = NULL", "I7", run_id),
        ("DELETE FROM steps; DELETE FROM runs", "I1", "event"),
    ]:
        shutil.copy(lived.file, copy)
        with closing(sqlite3.connect(copy)) as connection, connection:
            connection.executescript(changed)
        breaches = check(records, await stored(copy))
        assert any(each.promise == promise and named in each.text for each in breaches), (changed, breaches)
