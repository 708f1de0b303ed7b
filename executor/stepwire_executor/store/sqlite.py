"""The store in one SQLite file, which one connection in one thread has for itself.

Each call is one trip to that thread, however many rows it moves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from stepwire_executor.core.commands import Wait, Writes
from stepwire_executor.core.model import Event, FailedAttempt, Run, Step, StepKey, StepState
from stepwire_executor.store import Opened, RunFilter, StoreError, rows, sqlite_open
from stepwire_executor.store import sqlite_reads as reads

T = TypeVar("T")
Statement = tuple[str, list[rows.Row]]


def _insert(table: str, columns: Sequence[str], verb: str = "INSERT") -> str:
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _update(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    changes = ", ".join(f"{name} = ?" for name in columns)
    return f"UPDATE {table} SET {changes} WHERE {' AND '.join(f'{name} = ?' for name in key)}"


ADD_EVENT = _insert("events", rows.EVENT)
ADD_RUN = _insert("runs", rows.RUN)
CHANGE_RUN = _update("runs", rows.RUN_CHANGING, rows.RUN_KEY)
ADD_STEP = _insert("steps", rows.STEP)
CHANGE_STEP = _update("steps", rows.STEP_CHANGING, rows.STEP_KEY)
ADD_FAILED_ATTEMPT = _insert("failed_attempts", rows.FAILED_ATTEMPT)
PUT_FUNCTION = _insert("functions", rows.FUNCTION, "REPLACE")
ADD_WAIT = _insert("waits", rows.WAIT)
END_WAIT = "DELETE FROM waits WHERE run_id = ? AND step_id = ? AND step_index = ?"


def statements(writes: Writes) -> list[Statement]:
    """Give what to execute, with all values read: later changes of runs and steps don't show in it."""
    new_runs, new_steps = writes.new_runs, writes.new_steps
    everything: list[Statement] = [
        (ADD_EVENT, [rows.from_event(event) for event in writes.events]),
        (ADD_RUN, [rows.from_run(run) for run in new_runs.values()]),
        (CHANGE_RUN, [rows.run_changes(run) for id_, run in writes.runs.items() if id_ not in new_runs]),
        (ADD_STEP, [rows.from_step(id_, step) for (id_, _), step in new_steps.items()]),
        (CHANGE_STEP, [rows.step_changes(at[0], step) for at, step in writes.steps.items() if at not in new_steps]),
        (ADD_FAILED_ATTEMPT, [rows.from_failed_attempt(attempt) for attempt in writes.failed_attempts]),
        (PUT_FUNCTION, [rows.from_function(function) for function in writes.functions]),
        (ADD_WAIT, [rows.from_wait(wait) for wait in writes.new_waits]),
        (END_WAIT, [(run_id, *key) for run_id, key in writes.ended_waits]),
    ]
    return [statement for statement in everything if statement[1]]


def execute(connection: sqlite3.Connection, batch: Sequence[Statement]) -> None:
    """Write a batch in one transaction. A change of a row that isn't there fails all of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for sql, values in batch:
            written = connection.executemany(sql, values).rowcount
            if written != len(values) and sql is not END_WAIT:
                raise StoreError(f"{len(values) - written} of {len(values)} rows to change are not in the store: {sql}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself after some errors
            connection.execute("ROLLBACK")
        raise


class SQLiteStore:
    """A store in the file at `path`; see Store for what its methods do.

    After a commit that failed it refuses everything until it has been closed and opened again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._connection: aiosqlite.Connection | None = None
        self._failed = False

    async def open(self) -> Opened:
        """Raise StoreUnusableError if the file can't be used, and StoreError if it can't just now."""
        if self._connection is not None:
            raise StoreError(f"the store {self.path} is open already")
        attempt = sqlite_open.Connector(self.path)
        self._connection, self._failed = await aiosqlite.Connection(attempt, 1), False
        try:
            if attempt.error is not None:
                raise attempt.error
            return await self._call(lambda raw: sqlite_open.prepare(raw, self.path))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the file; what was being done is done first."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close()
            except sqlite3.Error as error:
                raise sqlite_open.mapped(error, self.path) from error

    async def _call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in the connection's thread."""
        connection = self._connection
        if connection is None:
            raise StoreError(f"the store {self.path} is not open")
        if self._failed:
            raise StoreError(f"the store {self.path} has failed: close it and open it again")
        try:
            # aiosqlite has no public way to run several statements in one trip; this one is in all of its versions.
            result: T = await connection._execute(lambda: function(connection._conn))  # type: ignore[no-untyped-call]
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise sqlite_open.mapped(error, self.path) from error
        return result

    def commit(self, writes: Writes) -> Coroutine[Any, Any, None]:
        """Read the rows at once, when called; write them when awaited."""
        return self._commit(statements(writes))

    async def _commit(self, batch: Sequence[Statement]) -> None:
        if batch:
            try:
                await self._call(lambda raw: execute(raw, batch))
            except StoreError:
                self._failed = True
                raise

    async def load_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """See Store."""
        return await self._call(lambda raw: reads.load_runs(raw, run_ids))

    async def hot_runs(self, after: str, limit: int) -> list[str]:
        """See Store."""
        return await self._call(lambda raw: reads.hot_runs(raw, after, limit))

    async def due_runs(self, until: float, limit: int) -> list[str]:
        """See Store."""
        return await self._call(lambda raw: reads.due_runs(raw, until, limit))

    async def next_wake(self) -> float | None:
        """See Store."""
        return await self._call(reads.next_wake)

    async def known_events(self, event_ids: Sequence[str], since: float) -> dict[str, Event]:
        """See Store."""
        return await self._call(lambda raw: reads.known_events(raw, event_ids, since)) if event_ids else {}

    async def find_events(self, name: str, after: int, limit: int) -> list[Event]:
        """See Store."""
        return await self._call(lambda raw: reads.find_events(raw, name, after, limit))

    async def wait_paths(self, event_name: str) -> list[str]:
        """See Store."""
        return await self._call(lambda raw: reads.wait_paths(raw, event_name))

    async def find_waits(self, event_name: str, paths: str, match: str, limit: int) -> list[Wait]:
        """See Store."""
        return await self._call(lambda raw: reads.find_waits(raw, event_name, paths, match, limit))

    async def waits(self, after: tuple[str, StepKey] | None, limit: int) -> list[Wait]:
        """See Store."""
        return await self._call(lambda raw: reads.waits(raw, after, limit))

    async def ended_children(self, limit: int) -> list[Run]:
        """See Store."""
        return await self._call(lambda raw: reads.ended_children(raw, limit))

    async def orphans(self, limit: int) -> list[str]:
        """See Store."""
        return await self._call(lambda raw: reads.orphans(raw, limit))

    async def get_run(self, run_id: str) -> Run | None:
        """See Store."""
        return await self._call(lambda raw: reads.get_run(raw, run_id))

    async def get_steps(self, run_id: str, after_number: int, limit: int) -> list[Step]:
        """See Store."""
        return await self._call(lambda raw: reads.get_steps(raw, run_id, after_number, limit))

    async def get_failed_attempts(self, run_id: str, first_number: int, last_number: int) -> list[FailedAttempt]:
        """See Store."""
        return await self._call(lambda raw: reads.get_failed_attempts(raw, run_id, first_number, last_number))

    async def count_steps(self, run_id: str) -> dict[StepState, int]:
        """See Store."""
        return await self._call(lambda raw: reads.count_steps(raw, run_id))

    async def list_runs(self, where: RunFilter, before_id: str, limit: int) -> list[Run]:
        """See Store."""
        return await self._call(lambda raw: reads.list_runs(raw, where, before_id, limit))
