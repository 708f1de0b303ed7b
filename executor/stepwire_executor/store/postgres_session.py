"""One connection to PostgreSQL: statements one after the other, each within a time, and errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import asyncpg

from stepwire_executor.store import StoreAwayError, StoreError, StoreUnusableError
from stepwire_executor.store.postgres_sql import asked, loaded, stored
from stepwire_executor.store.questions import Question, T

CONNECT_SECONDS = 10.0
CALL_SECONDS = 60.0
"""How long a statement may take; a database that is stuck for longer counts as lost."""
UNANSWERED_SECONDS = 15.0
"""How long what was sent may stay unacknowledged by the other machine's TCP."""
GOODBYE_SECONDS = 2.0

SETTINGS = {
    "application_name": "stepwire",
    "search_path": "stepwire",
    "client_min_messages": "warning",
    "default_transaction_isolation": "read committed",
    # What was acknowledged is on disk, and on a standby that synchronous_standby_names asks for.
    "synchronous_commit": "on",
    # All questions have an index made for them. A table grows from empty to millions of rows under one plan, so that
    # the planner's guesses must have no say.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "jit": "off",
}
UNUSABLE = (
    asyncpg.InvalidAuthorizationSpecificationError,  # and InvalidPasswordError below it
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,
)
ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)


class Session:
    """A connection. `name` is the database's, for errors; it holds no password."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._name = name
        self._turn = asyncio.Lock()
        self._too_slow = 0.0

    @property
    def lost(self) -> bool:
        """True once nothing can be asked any more."""
        return bool(self._connection.is_closed())

    async def rows(self, sql: str, *values: Any, seconds: float = CALL_SECONDS) -> list[Any]:
        """Execute one statement, after those before it, and give its rows. Raises StoreError.

        One that takes longer than `seconds` costs the connection. It is not cancelled: a COMMIT that waits for a
        synchronous standby would then be visible though it may still be lost.
        """
        async with self._turn:
            alarm = asyncio.get_running_loop().call_later(seconds, self._give_up, seconds)
            try:
                found: list[Any] = await self._connection.fetch(sql, *values)
            except ERRORS as error:
                raise self._mapped(error) from error
            finally:
                alarm.cancel()
            return found

    async def script(self, sql: str) -> None:
        """Execute statements that have no parameters and give no rows. Raises StoreError."""
        async with self._turn:
            alarm = asyncio.get_running_loop().call_later(CALL_SECONDS, self._give_up, CALL_SECONDS)
            try:
                await self._connection.execute(sql)
            except ERRORS as error:
                raise self._mapped(error) from error
            finally:
                alarm.cancel()

    async def ask(self, question: Question[T]) -> T:
        """Give the answer to a question. Raises StoreError."""
        found = await self.rows(asked(question.sql), *stored(question.values))
        return question.read(loaded(found))

    async def close(self) -> None:
        """Say goodbye, or just go."""
        with contextlib.suppress(*ERRORS, TimeoutError):
            await self._connection.close(timeout=GOODBYE_SECONDS)
        self.drop()

    def drop(self) -> None:
        """Go at once; what is being asked fails."""
        if not self.lost:
            self._connection.terminate()

    def _give_up(self, seconds: float) -> None:
        self._too_slow = seconds
        self._connection.terminate()

    def _mapped(self, error: Exception) -> StoreError:
        if self._too_slow:
            return StoreAwayError(f"{self._name} gave no answer within {self._too_slow:g} s")
        # We ask one thing after the other: what is "in progress" is the server's goodbye on an idle connection.
        if isinstance(error, asyncpg.InternalClientError) and "another operation" in str(error):
            self.drop()
            return StoreAwayError(f"{self._name} can't be reached or was lost: the server has ended the connection")
        return mapped(error, self._name)


def mapped(error: Exception, name: str) -> StoreError:
    """Give the StoreError for an error of the database or of the way to it."""
    what = str(error).strip() or type(error).__name__
    if isinstance(error, UNUSABLE):
        return StoreUnusableError(f"{name} refuses: {what}; check the user, password and database in --store")
    if isinstance(error, asyncpg.DivisionByZeroError):  # see postgres_sql.commit_sql
        return StoreError(f"{name}: a row to change is not in the store")
    lost = isinstance(
        error,
        (
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
            asyncpg.ReadOnlySQLTransactionError,
            asyncpg.InsufficientResourcesError,
            asyncpg.TargetServerAttributeNotMatched,
            OSError,
            EOFError,
        ),
    )
    if lost or (isinstance(error, asyncpg.InterfaceError) and "connection is closed" in what):
        return StoreAwayError(f"{name} can't be reached or was lost: {what}")
    return StoreError(f"{name} failed: {what}")


async def connect(url: str, name: str, settings: dict[str, str], seconds: float = CONNECT_SECONDS) -> Session:
    """Connect to the server of `url` that takes writes. Raises StoreError."""
    try:
        async with asyncio.timeout(seconds):
            connection = await asyncpg.connect(
                url, timeout=seconds, target_session_attrs="read-write", server_settings={**SETTINGS, **settings}
            )
    except TimeoutError:
        raise StoreAwayError(f"{name} can't be reached: no connection within {seconds:g} s") from None
    except ERRORS as error:
        raise mapped(error, name) from error
    except ValueError as error:
        raise StoreUnusableError(f"{name}: {error}") from error
    session = Session(connection, name)
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        await session.close()
        raise StoreUnusableError(f"{name} has the encoding {encoding}: create the database with ENCODING 'UTF8'")
    keep_alive(connection)
    return session


def keep_alive(connection: Any) -> None:
    """Have the kernel give the connection up when the other machine is gone without a word."""
    # asyncpg has no public way to its socket; this one is in all of its versions.
    its_socket = connection._transport.get_extra_info("socket")
    if its_socket is None or its_socket.family == socket.AF_UNIX:
        return
    its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2}
    options["TCP_USER_TIMEOUT"] = int(UNANSWERED_SECONDS * 1000)
    for option, value in options.items():
        if hasattr(socket, option):  # not everywhere
            its_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
