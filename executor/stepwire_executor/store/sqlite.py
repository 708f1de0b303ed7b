"""The store in one SQLite file, which one connection of aiosqlite, in its one thread, has for itself.

Each call is one trip to that thread, however many rows it moves.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from stepwire_core.commands import Writes
from stepwire_core.model import Event, EventKey, Run, StepState, restore
from stepwire_executor.store import Opened, Removal, StoreError, questions, sqlite_open
from stepwire_executor.store.changes import Change, Verb, removals
from stepwire_executor.store.questions import Question
from stepwire_executor.store.sql import SqlStore
from stepwire_executor.store.sqlite_connection import BatchConnection
from stepwire_executor.store.sqlite_open import ask
from stepwire_executor.store.sqlite_rows import write

T = TypeVar("T")


def execute(connection: sqlite3.Connection, batch: Sequence[Change]) -> None:
    """Write a batch in one transaction. A change of a row that isn't there fails all of it."""
    if not batch:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for kind, values in batch:
            written = write(connection, kind, values)
            if written != len(values) and kind.verb is not Verb.REMOVE:
                missing = f"{len(values) - written} of {len(values)} rows to change are not in the store"
                raise StoreError(f"{missing}: {kind.table}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself after some errors
            connection.execute("ROLLBACK")
        raise


class SQLiteStore(SqlStore):
    """A store in the file at `path`; see Store for what its methods do.

    After a commit that failed it refuses everything until it has been closed and opened again.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path).absolute()
        self._connection: BatchConnection | None = None
        self._failed = False

    async def open(self) -> Opened:
        """Raise StoreUnusableError if the file can't be used, and StoreError if it can't just now."""
        if self._connection is not None:
            raise StoreError(f"the store {self.path} is open already")
        self._connection = await BatchConnection.connected(partial(sqlite_open.connect, self.path))
        self._failed = False
        try:
            opened = await self._call(lambda raw: sqlite_open.prepare(raw, self.path))
            await self.read_index()
            return opened
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the file; what was being done is done first."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close()
        except sqlite3.Error as error:
            raise sqlite_open.mapped(error, self.path) from error

    def _refusal(self) -> StoreError:
        return StoreError(f"the store {self.path} has failed: close it and open it again")

    def _call(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Have a function called in the connection's thread."""
        connection = self._connection
        if connection is None:
            raise StoreError(f"the store {self.path} is not open")
        if self._failed:
            raise self._refusal()

        def call(raw: sqlite3.Connection) -> T:
            try:
                return function(raw)
            except (sqlite3.Error, UnicodeError, OverflowError) as error:
                raise sqlite_open.mapped(error, self.path) from error

        return connection.call(call)

    def commit(self, writes: Writes) -> Awaitable[None]:
        """See Store."""
        return self._call(partial(self._write, self._changes(writes)))

    async def shrink(self) -> None:
        """See Store; pages of the file stay in its cache, up to `cache_size`."""
        await self._call(lambda raw: raw.execute("PRAGMA shrink_memory").close())

    async def remove(self, removal: Removal) -> None:
        """See Store."""
        await self._call(partial(self._write, removals(removal)))

    def _write(self, batch: Sequence[Change], raw: sqlite3.Connection) -> None:
        try:
            execute(raw, batch)
        except BaseException:
            self._failed = True
            raise

    async def confirm(self) -> None:
        """See Store; the file is locked for as long as it is open. Raises StoreError once a write has failed."""
        if self._failed:
            raise self._refusal()

    async def ask(self, question: Question[T]) -> T:
        """See SqlStore."""
        return await self._call(lambda raw: sqlite_open.ask(raw, question))

    async def load_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """See Store."""
        return await self._call(lambda raw: load_runs(raw, run_ids))

    async def known_events(self, keys: Sequence[EventKey], since: float) -> dict[EventKey, Event]:
        """See Store."""
        return await self._call(lambda raw: known_events(raw, keys, since)) if keys else {}

    async def count_steps(self, run_ids: Sequence[str]) -> dict[str, dict[StepState, int]]:
        """See Store."""
        return await self._call(lambda raw: count_steps(raw, run_ids))


def load_runs(connection: sqlite3.Connection, run_ids: Iterable[str]) -> list[Run]:
    """See Store.load_runs."""
    found = []
    for run_id in dict.fromkeys(run_ids):
        run = ask(connection, questions.get_run(run_id))
        if run is not None and not run.state.ended:
            steps = ask(connection, questions.all_steps(run_id))
            found.append(restore(run, steps))
    return found


def known_events(connection: sqlite3.Connection, keys: Iterable[EventKey], since: float) -> dict[EventKey, Event]:
    """See Store.known_events."""
    found = (ask(connection, questions.known_event(key, since)) for key in dict.fromkeys(keys))
    return {event.key: event for events in found for event in events}


def count_steps(connection: sqlite3.Connection, run_ids: Iterable[str]) -> dict[str, dict[StepState, int]]:
    """See Store.count_steps."""
    found = {run_id: ask(connection, questions.count_steps(run_id)) for run_id in run_ids}
    return {run_id: counts for run_id, counts in found.items() if counts}
