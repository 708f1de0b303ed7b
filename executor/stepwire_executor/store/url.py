"""Which store a `--store` names."""

from __future__ import annotations

from stepwire_executor.store import Store
from stepwire_executor.store.memory import MemoryStore
from stepwire_executor.store.sqlite import SQLiteStore

ACCEPTED = 'accepted are "sqlite:///relative.db", "sqlite:////absolute/path.db" and "memory:"'


def open_store(url: str) -> Store:
    """Make the store that `url` names; it still has to be opened. Raises ValueError for what is no store."""
    if url == "memory:":
        return MemoryStore()
    scheme, separator, path = url.partition(":///")
    usable = path.strip("/") not in ("", ":memory:") and not set(path) & set("?#\0")
    if scheme == "sqlite" and separator and usable:
        return SQLiteStore(path)
    raise ValueError(f"{url!r} names no store: {ACCEPTED}")
