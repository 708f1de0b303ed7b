"""aiosqlite's connection, with one more call: a whole batch in one trip to its thread.

This is the only place that knows how aiosqlite hands work to its thread, which it has no public way for: a future and a
function go into a queue. `pyproject.toml` admits the versions for which that holds.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import aiosqlite

T = TypeVar("T")


class BatchConnection(aiosqlite.Connection):
    """A connection to SQLite that one thread has for itself. Make it with `connected`, end it with `close`."""

    @classmethod
    async def connected(cls, connect: Callable[[], sqlite3.Connection]) -> BatchConnection:
        """Make a connection by a function that is called in its thread; if that raises, no thread is left."""
        connection = cls(connect, 1)
        try:
            await connection
        except BaseException:
            connection._thread.join()  # aiosqlite has told it to end, but does not wait for it
            raise
        return connection

    async def close(self) -> None:
        """Close it after what was asked for, and wait until its thread has ended. Raises sqlite3.Error."""
        try:
            await super().close()
        finally:
            self._thread.join()

    def call(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Have a function called in the connection's thread, whether or not anybody awaits its result.

        It is on its way when this returns. aiosqlite's own methods are coroutines: theirs begins when a task has its
        turn, which would be two turns of the loop later for a commit. Raises ValueError on a connection that is closed.
        """
        raw = self._conn
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        wanted = [function]  # taken out, so that the thread keeps no batch in memory while it waits for the next
        self._tx.put_nowait((result, lambda: wanted.pop()(raw)))
        return result
