"""How a database becomes the store: what is refused, the migrations, who owns it, the epoch.

Everything lies in the schema `stepwire`, so that the database may hold other things too.
"""

from __future__ import annotations

from stepwire_executor.store import StoreUnusableError
from stepwire_executor.store.ownership import Sight
from stepwire_executor.store.postgres_session import Session
from stepwire_executor.store.postgres_sql import OWNER, translated
from stepwire_executor.store.schema import migrations

LOCK = 0x53545057
"""Marks our advisory locks: "STPW". That of 0 is for creating the schema, that of an epoch for its owner's session."""

EXISTS = """
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'stepwire') AS schema,
    EXISTS (SELECT FROM information_schema.columns
            WHERE table_schema = 'stepwire' AND table_name = 'store' AND column_name = 'released') AS store
"""
LOOK = f"""
SELECT version, epoch, beat, holder, released, EXISTS (
    SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND d.datname = current_database()
        AND l.classid = {LOCK} AND l.objid = (epoch % 2147483648)::bigint::oid AND l.objsubid = 2
) AS alive FROM store
"""
TAKE = """
UPDATE store SET epoch = epoch + 1, beat = beat + 1, holder = $3, released = false
WHERE epoch = $1 AND beat = $2 RETURNING epoch
"""
BEAT = "UPDATE store SET beat = beat + 1 WHERE epoch = $1 RETURNING set_config('synchronous_commit', 'off', true)"
"""A sign of life need not be durable: one that is lost in a crash is missed by nobody."""
RELEASE = "UPDATE store SET beat = beat + 1, released = true WHERE epoch = $1 RETURNING 1"


async def create(session: Session, name: str) -> None:
    """Make the schema if there is none. Several executors may do this at once."""
    [there] = await session.rows(EXISTS)
    if there["store"]:
        return
    await session.script(f"BEGIN; SELECT pg_advisory_xact_lock({LOCK}, 0)")
    [there] = await session.rows(EXISTS)
    if there["store"]:
        await session.script("ROLLBACK")
        return
    if there["schema"]:
        await session.script("ROLLBACK")
        advice = "nothing was changed: drop or rename that schema, or use another database in --store"
        raise StoreUnusableError(f"{name} has a schema stepwire that is of something else; {advice}")
    await session.script(f"CREATE SCHEMA stepwire; {translated(migrations()[0])}; {OWNER}; {_mark(1)}; COMMIT")


def _mark(version: int) -> str:
    return f"UPDATE store SET version = {version}"


async def look(session: Session, name: str) -> Sight:
    """See who owns the store. Raises StoreUnusableError if it is newer than this program."""
    [row] = await session.rows(LOOK)
    sight = Sight(*row)
    known = len(migrations())
    if sight.version > known:
        advice = "run a newer Stepwire, or use another database in --store"
        raise StoreUnusableError(f"{name} has schema version {sight.version}, this Stepwire knows {known}: {advice}")
    return sight


async def take(session: Session, sight: Sight, holder: str) -> int:
    """Become the owner and bring the schema up to date; gives the epoch, or 0 if anything has changed since the look.

    Only an owner migrates: the one before it, perhaps of an older Stepwire, is fenced in the same transaction.
    """
    await session.script("BEGIN")
    taken = await session.rows(TAKE, sight.epoch, sight.beat, holder)
    if not taken:
        await session.script("ROLLBACK")
        return 0
    epoch = int(taken[0]["epoch"])
    await session.rows("SELECT pg_advisory_lock($1, $2)", LOCK, epoch % (1 << 31))
    for number, script in enumerate(migrations()[sight.version :], sight.version + 1):
        await session.script(f"{translated(script)}; {_mark(number)}")
    await session.script("COMMIT")
    return epoch
