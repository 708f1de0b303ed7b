"""What the store needs of aiosqlite, some of which aiosqlite has no public way for."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import weakref
from functools import partial
from pathlib import Path

import pytest

from stepwire_executor.store.sqlite_connection import BatchConnection


def connector(folder: Path) -> partial[sqlite3.Connection]:
    return partial(sqlite3.connect, folder / "a.db", isolation_level=None)


async def test_a_call_is_on_its_way_before_anybody_awaits_it(tmp_path: Path) -> None:
    connection = await BatchConnection.connected(connector(tmp_path))
    try:
        begun = threading.Event()
        result = connection.call(lambda raw: begun.set())
        assert begun.wait(10)  # the loop has had no turn
        await result
    finally:
        await connection.close()


async def test_calls_run_one_after_the_other_in_one_thread(tmp_path: Path) -> None:
    connection = await BatchConnection.connected(connector(tmp_path))
    try:
        seen: list[int] = []

        def note(number: int, raw: sqlite3.Connection) -> int:
            seen.append(number)
            return threading.get_ident()

        threads = await asyncio.gather(*(connection.call(partial(note, number)) for number in range(100)))
        assert seen == list(range(100))
        assert len(set(threads)) == 1
        assert threads[0] != threading.get_ident()
    finally:
        await connection.close()


async def test_an_error_of_one_call_is_that_ones_own(tmp_path: Path) -> None:
    connection = await BatchConnection.connected(connector(tmp_path))
    try:
        wrong = connection.call(lambda raw: raw.execute("SELECT wrong"))
        right = connection.call(lambda raw: raw.execute("SELECT 1").fetchall())
        with pytest.raises(sqlite3.OperationalError, match="wrong"):
            await wrong
        assert await right == [(1,)]
    finally:
        await connection.close()


async def test_a_call_that_nobody_waits_for_any_more_is_made_all_the_same(tmp_path: Path) -> None:
    connection = await BatchConnection.connected(connector(tmp_path))
    try:
        held = threading.Event()
        first = connection.call(lambda raw: held.wait(10))
        written = connection.call(lambda raw: raw.execute("CREATE TABLE made (at)"))
        written.cancel()
        held.set()
        await first
        assert await connection.call(lambda raw: raw.execute("SELECT count(*) FROM made").fetchone()) == (0,)
    finally:
        await connection.close()


async def test_what_was_asked_for_is_done_before_the_end(tmp_path: Path) -> None:
    connection = await BatchConnection.connected(connector(tmp_path))
    made = connection.call(lambda raw: raw.execute("CREATE TABLE made (at)"))
    await connection.close()
    assert made.done()
    with pytest.raises(ValueError, match="no active connection"):
        connection.call(lambda raw: None)


async def test_the_thread_ends_with_the_connection(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    connection = await BatchConnection.connected(connector(tmp_path))
    assert len(set(threading.enumerate()) - before) == 1
    await connection.close()
    assert set(threading.enumerate()) <= before


async def test_the_thread_ends_where_no_connection_can_be_made(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(sqlite3.OperationalError):
        await BatchConnection.connected(connector(tmp_path / "missing"))
    assert set(threading.enumerate()) <= before


async def test_no_batch_is_kept_in_memory_while_the_thread_waits_for_the_next(tmp_path: Path) -> None:
    class Batch:
        def write(self, raw: sqlite3.Connection) -> None:
            raw.execute("SELECT 1")

    connection = await BatchConnection.connected(connector(tmp_path))
    try:
        batch = Batch()
        kept = weakref.ref(batch)
        await connection.call(batch.write)
        del batch
        gc.collect()
        assert kept() is None
    finally:
        await connection.close()
