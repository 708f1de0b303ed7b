"""Which store a `--store` names."""

from __future__ import annotations

from urllib.parse import urlsplit

from stepwire_executor.store import Store
from stepwire_executor.store.memory import MemoryStore
from stepwire_executor.store.sqlite import SQLiteStore

TAKEOVER_SECONDS = 10.0
POSTGRES = ("postgresql", "postgres")
ACCEPTED = (
    'accepted are "sqlite:///relative.db", "sqlite:////absolute/path.db", "postgresql://user@host/database" and '
    '"memory:"'
)


def open_store(url: str, takeover_after: float = TAKEOVER_SECONDS) -> Store:
    """Make the store that `url` names; it still has to be opened. Raises ValueError for what is no store.

    `takeover_after` is for how many seconds an owner may give no sign of life, where stores have owners.
    """
    if url == "memory:":
        return MemoryStore()
    if url.partition("://")[0] in POSTGRES and names_a_database(url):
        from stepwire_executor.store.postgres import PostgresStore  # asyncpg takes its time; SQLite need not wait

        return PostgresStore(url, shown(url), takeover_after)
    scheme, separator, path = url.partition(":///")
    usable = path.strip("/") not in ("", ":memory:") and not set(path) & set("?#\0")
    if scheme == "sqlite" and separator and usable:
        return SQLiteStore(path)
    raise ValueError(f"{shown(url)!r} names no store: {ACCEPTED}")


def names_a_database(url: str) -> bool:
    """Whether a URL of PostgreSQL names a database: the one that has the user's name is rarely meant."""
    return "\0" not in url and len(urlsplit(url).path) > 1


def shown(url: str) -> str:
    """Give a URL without what only its owner should see: user, password and options."""
    scheme, separator, rest = url.partition("://")
    if scheme not in POSTGRES or not separator:
        return url
    place = rest.partition("?")[0]
    return f"{scheme}://{place.rpartition('@')[2]}"
