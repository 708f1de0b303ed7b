"""The store in a PostgreSQL database, which one of several executors owns at a time.

One connection writes and one reads. A commit is one statement, whole or nothing by itself, and writes nothing once
another executor has taken the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from stepwire_core.commands import Writes
from stepwire_core.model import Event, EventKey, Run, StepState, restore
from stepwire_executor.store import (
    Opened,
    Removal,
    StoreAwayError,
    StoreError,
    StoreTakenError,
    postgres_open,
    questions,
)
from stepwire_executor.store.changes import removals
from stepwire_executor.store.ownership import Watch, lease_seconds
from stepwire_executor.store.postgres_session import CONNECT_SECONDS, GOODBYE_SECONDS, Session, connect
from stepwire_executor.store.postgres_sql import commit_statement, count_steps, known_events, open_runs, steps_of
from stepwire_executor.store.questions import Question, T
from stepwire_executor.store.sql import SqlStore

log = logging.getLogger("stepwire.executor")

SERVER = "SELECT pg_postmaster_start_time(), inet_server_addr(), inet_server_port()"


class PostgresStore(SqlStore):
    """A store in the database at `url`; see Store for what its methods do. `name` is the URL without its secrets.

    Another executor takes over when this one has given no sign of life for `takeover_after` seconds. After a statement
    that failed it refuses everything until it has been closed and opened again.
    """

    def __init__(self, url: str, name: str, takeover_after: float) -> None:
        super().__init__()
        self.name = name
        self.holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._url = url
        self._takeover_after = takeover_after
        self._lease = lease_seconds(takeover_after)
        self._watch = Watch(self.holder, takeover_after)
        self._writer: Session | None = None
        self._reader: Session | None = None
        self._failure: StoreError | None = None
        self._epoch = 0
        self._beaten_at = 0.0
        self._beating: asyncio.Task[None] | None = None
        self._commits: set[asyncio.Future[None]] = set()
        self._opening: asyncio.Future[None] | None = None

    async def open(self) -> Opened:
        """Raise StoreTakenError while another executor owns the database: then call it again, soon and often.

        Raises StoreAwayError if the database can't be reached, and StoreUnusableError if it can't be used.
        """
        if self._reader is not None:
            raise StoreError(f"the store {self.name} is open already")
        opening = self._opening = asyncio.get_running_loop().create_future()
        try:
            return await self._open()
        except StoreTakenError:
            raise  # the connection stays, for the next look
        except BaseException:
            self._drop()
            raise
        finally:
            self._opening = None
            opening.set_result(None)

    async def _open(self) -> Opened:
        writer = self._writer
        if writer is None:
            writer = self._writer = await self._connect()
            await postgres_open.create(writer, self.name)
        sight = await postgres_open.look(writer, self.name)
        if not self._watch.may_take(sight, time.monotonic()):
            raise StoreTakenError(f"this executor is a standby: executor {sight.holder} has the store")
        taken_at = time.monotonic()
        epoch = await postgres_open.take(writer, sight, self.holder)
        if not epoch:
            raise StoreTakenError("this executor is a standby: another one has just taken the store")
        self._epoch, self._beaten_at, self._failure = epoch, taken_at, None
        self._beating = asyncio.create_task(self._beat_on())
        reader = await self._connect()
        try:
            if await reader.rows(SERVER) != await writer.rows(SERVER):
                raise StoreAwayError(f"{self.name} is two servers at once: it fails over")
            if self._writer is not writer:
                raise StoreError(f"the store {self.name} was closed while it was opened")
        except BaseException:
            reader.drop()
            raise
        self._reader = reader
        await self.read_index()
        functions = await self.ask(questions.functions())
        last_position, told = await self.ask(questions.last_position()), await self.ask(questions.told())
        return Opened(epoch, functions, last_position, told)

    async def _connect(self) -> Session:
        # A transaction of a process that is stopped must not keep its locks from whoever takes over.
        stopped = {"idle_in_transaction_session_timeout": str(max(1, int(self._takeover_after * 1000)))}
        return await connect(self._url, self.name, stopped, min(CONNECT_SECONDS, max(self._takeover_after, 1.0)))

    async def close(self) -> None:
        """Let go of the database, for another executor to take at once; what is being written is written first.

        An `open` that is under way has a moment to end: what it may just have taken is to be given back.
        """
        if self._opening is not None:
            await asyncio.wait([self._opening], timeout=GOODBYE_SECONDS)
        if self._commits:
            await asyncio.wait(self._commits)
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            self._beating = None
        if self._reader is not None and self._writer is not None and self._failure is None:
            with contextlib.suppress(StoreError):
                await self._writer.rows(postgres_open.RELEASE, self._epoch, seconds=GOODBYE_SECONDS)
        sessions = [session for session in (self._writer, self._reader) if session is not None]
        self._writer = self._reader = None
        for session in sessions:
            await session.close()

    def _drop(self) -> None:
        """Let go of the database without a word."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        for session in (self._writer, self._reader):
            if session is not None:
                session.drop()
        self._writer = self._reader = None

    def _sessions(self) -> tuple[Session, Session]:
        """Give the writer and the reader."""
        if self._writer is None or self._reader is None:
            raise StoreError(f"the store {self.name} is not open")
        if self._failure is not None:
            raise type(self._failure)(f"the store has failed ({self._failure}): close it and open it again")
        return self._writer, self._reader

    async def shrink(self) -> None:
        """See Store; it is the server that keeps something."""

    # Signs of life.

    async def confirm(self) -> None:
        """See Store. Asks the database if the last sign of life is so old that another executor may have taken over."""
        self._sessions()
        if time.monotonic() - self._beaten_at >= self._lease / 2:  # what follows has the other half
            await self._beat()

    async def _beat_on(self) -> None:
        """Give signs of life for as long as the store is open and has not failed."""
        rest = self._lease / 3
        while self._failure is None:
            await asyncio.sleep(rest)
            if time.monotonic() - self._beaten_at >= rest:
                with contextlib.suppress(StoreError):  # it is kept, and told to whoever asks next
                    await self._beat()

    async def _beat(self) -> None:
        await self._write(postgres_open.BEAT, [self._epoch], seconds=max(self._takeover_after, 1.0))

    async def _write(self, sql: str, values: Sequence[Any], **options: float) -> None:
        """Execute a statement that writes nothing, and gives no row or 0, if the store was taken."""
        sent_at = time.monotonic()
        try:
            if self._writer is None:
                raise StoreError(f"the store {self.name} is not open")
            found = await self._writer.rows(sql, *values, **options)
            if not found or found[0][0] == 0:
                raise StoreTakenError("another executor has taken the store over; this one is a standby")
        except StoreError as error:
            self._failure = self._failure or error
            raise
        self._beaten_at = max(self._beaten_at, sent_at)

    # Rows.

    def commit(self, writes: Writes) -> Awaitable[None]:
        """See Store; it is written when awaited."""
        return self._commit(*commit_statement(self._changes(writes)))

    async def remove(self, removal: Removal) -> None:
        """See Store."""
        await self._commit(*commit_statement(removals(removal)))

    async def _commit(self, sql: str, values: Sequence[Any]) -> None:
        self._sessions()
        if not sql:
            return
        # Whoever waits may go; the statement is not cancelled, see Session.rows.
        commit = asyncio.ensure_future(self._write(sql, [self._epoch, *values]))
        self._commits.add(commit)
        commit.add_done_callback(self._commits.discard)
        commit.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(commit)

    async def ask(self, question: Question[T]) -> T:
        """See SqlStore."""
        _, reader = self._sessions()
        try:
            return await reader.ask(question)
        except StoreError as error:
            if reader.lost:
                self._failure = self._failure or error
            raise

    async def load_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """See Store."""
        runs = await self.ask(open_runs(run_ids)) if run_ids else {}
        steps = await self.ask(steps_of(list(runs))) if runs else {}
        return [restore(runs[id_], steps.get(id_, ())) for id_ in dict.fromkeys(run_ids) if id_ in runs]

    async def known_events(self, keys: Sequence[EventKey], since: float) -> dict[EventKey, Event]:
        """See Store."""
        return await self.ask(known_events(keys, since)) if keys else {}

    async def count_steps(self, run_ids: Sequence[str]) -> dict[str, dict[StepState, int]]:
        """See Store."""
        return await self.ask(count_steps(run_ids)) if run_ids else {}
