"""How a SQLite file becomes the store: what is refused, the settings, the migrations, the epoch.

Nothing here or elsewhere opens the file but SQLite itself: closing another descriptor of it would drop its locks
(https://www.sqlite.org/howtocorrupt.html, 2.2). A new file is made before SQLite opens it, for its owner alone.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import TypeVar

from stepwire_executor import private
from stepwire_executor.store import Opened, StoreError, StoreUnusableError, questions, sqlite_log
from stepwire_executor.store.questions import Question
from stepwire_executor.store.schema import migrations
from stepwire_executor.store.sqlite_rows import CACHED_STATEMENTS

T = TypeVar("T")

APPLICATION_ID = 0x53545057
"""Marks a file as Stepwire's: "STPW"."""

LOCK_TIMEOUT_SECONDS = 1.0
"""How long another process, perhaps about to end, may hold the file."""

CHECKED_BYTES = 256 << 20
"""The largest database whose structure is checked whole when it is opened."""

SETTINGS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -32768",  # KiB
    "PRAGMA wal_autocheckpoint = 4000",  # pages
    "PRAGMA journal_size_limit = 67108864",  # bytes: what a large transaction leaves of the log
    "PRAGMA temp_store = MEMORY",
)


def ask(connection: sqlite3.Connection, question: Question[T]) -> T:
    """Give the answer to a question."""
    return question.read(connection.execute(question.sql, question.values))


def mapped(error: Exception, path: Path) -> StoreError:
    """Give the StoreError for an error of SQLite, of the system or of a value that SQLite can't hold."""
    if isinstance(error, OSError):
        unusable = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ELOOP)
        kind = StoreUnusableError if unusable else StoreError
        return kind(f"the store {path} can't be made: {error.strerror}; use another --store")
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return StoreUnusableError(f"{path} is not a database; nothing was changed: use another --store")
        case sqlite3.SQLITE_CORRUPT:
            return damaged(path, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreUnusableError(f"the store {path} is read-only ({error}): allow writing, or use another --store")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnusableError(f"another executor has {path} open; stop it or use another --store")
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnusableError(f"the store {path} can't be opened ({error}): check who may write there")
    return StoreError(f"the store {path} failed: {error}")


def damaged(path: Path, where: str) -> StoreError:
    """Give the error for a file that holds what nobody has written."""
    advice = "nothing was started afresh: restore a backup, or use another --store"
    return StoreUnusableError(f"the store {path} is damaged ({where}); {advice}")


def make_folder(path: Path) -> None:
    """Create the folders above `path`, durably, and refuse what can be no database or is the rest of one."""
    if path.is_dir():
        raise StoreUnusableError(f"the store {path} is a directory: name a file in --store")
    # SQLite would open it for reading, and then report whatever fails first, as an I/O error for instance.
    if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreUnusableError(f"the store {path} is read-only: allow writing, or use another --store")
    for folder in private.make_folders(path.parent):
        descriptor = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    log = Path(f"{path}-wal")
    if (not path.exists() or path.stat().st_size == 0) and log.exists() and log.stat().st_size > 0:
        advice = f"restore it, or move {log} away to start afresh"
        raise StoreUnusableError(f"the store {path} is missing or empty, though its log {log} is there: {advice}")
    # SQLite would take what is before the damage for everything, and forget the rest.
    wrong = sqlite_log.damage(log)
    if wrong and not is_taken(path):
        advice = f"nothing was changed: restore a backup, or move {log} away to lose what is in it"
        raise StoreUnusableError(f"the store {path} is damaged ({wrong}); {advice}")


def is_taken(path: Path) -> bool:
    """Whether another process has the file, and changes what is in its log meanwhile. Looks without writing."""
    probe = sqlite3.connect(f"{path.as_uri()}?mode=ro", timeout=0.0, isolation_level=None, uri=True)
    try:
        probe.execute("PRAGMA locking_mode = EXCLUSIVE")  # so that it makes no shared memory; it can't have the lock
        probe.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    finally:
        probe.close()
    return False


def connect(path: Path) -> sqlite3.Connection:
    """Make the folder and open the file; SQLite reads nothing of it yet. Raises StoreError."""
    try:
        make_folder(path)
        private.make_file(path)  # what SQLite makes beside it gets the mode of this file
        return sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None, cached_statements=CACHED_STATEMENTS
        )
    except (sqlite3.Error, OSError) as error:
        raise mapped(error, path) from error


def prepare(connection: sqlite3.Connection, path: Path) -> Opened:
    """Take the file for this connection alone, bring its schema up to date and raise the epoch."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # before anything of the file is read: no shared memory
    version = check(connection, path)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreUnusableError(f"the store {path} can't keep a write-ahead log where it is: use another --store")
    for setting in SETTINGS:
        connection.execute(setting)
    for number, script in enumerate(migrations()[version:], version + 1):
        migrate(connection, number, script)
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read before anything is written, so that a file whose damage shows here stays as it is.
        functions, last_position = ask(connection, questions.functions()), ask(connection, questions.last_position())
        told = ask(connection, questions.told())
        connection.execute("UPDATE store SET epoch = epoch + 1")
        ((epoch,),) = connection.execute("SELECT epoch FROM store").fetchall()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return Opened(epoch, functions, last_position, told)


def check(connection: sqlite3.Connection, path: Path) -> int:
    """Refuse a database that is not ours or is newer than this program; give the version of its schema."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID and (application or tables or version):
        raise StoreUnusableError(f"{path} is a database of something else; nothing was changed: use another --store")
    known = len(migrations())
    if version > known:
        advice = "run a newer Stepwire, or use another --store"
        raise StoreUnusableError(
            f"the store {path} has schema version {version}, this Stepwire knows {known}: {advice}"
        )
    # Some 3 s for each GB, so that larger ones are told of their damage when it is read.
    if path.stat().st_size <= CHECKED_BYTES:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise damaged(path, found)
    return int(version)


def migrate(connection: sqlite3.Connection, number: int, script: str) -> None:
    """Apply one migration, whole or not at all."""
    marks = f"PRAGMA user_version = {number}; PRAGMA application_id = {APPLICATION_ID};"
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {script}; {marks} COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
