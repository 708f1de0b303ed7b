"""Which stores can be named."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwire_executor.store.memory import MemoryStore
from stepwire_executor.store.postgres import PostgresStore
from stepwire_executor.store.sqlite import SQLiteStore
from stepwire_executor.store.url import open_store, shown


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///stepwire.db", Path.cwd() / "stepwire.db"),
        ("sqlite:///data/my store.db", Path.cwd() / "data" / "my store.db"),
        ("sqlite:////var/lib/stepwire/store.db", Path("/var/lib/stepwire/store.db")),
    ],
)
def test_a_file_is_named_relative_or_absolute(url: str, path: Path) -> None:
    store = open_store(url)
    assert isinstance(store, SQLiteStore)
    assert store.path == path


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_database_is_shown_without_its_secrets(scheme: str) -> None:
    url = f"{scheme}://user:se@cret@one:5432,two:5432/stepwire?password=secret&sslmode=require"
    store = open_store(url, 3.0)
    assert isinstance(store, PostgresStore)
    assert store.name == shown(url) == f"{scheme}://one:5432,two:5432/stepwire"
    with pytest.raises(ValueError, match="names no store") as refused:
        open_store("postgresql://user:secret@host")
    assert "secret" not in str(refused.value)


def test_memory_is_a_store() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store.db",
        "sqlite:",
        "sqlite:///",
        "sqlite://host/store.db",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "sqlite:///a\0.db",
        "memory",
        "memory://",
        "postgresql:",
        "postgresql://localhost",
        "postgresql://localhost/",
        "postgresql+asyncpg://localhost/stepwire",
        "mysql://localhost/stepwire",
    ],
)
def test_anything_else_is_refused_with_what_is_accepted(url: str) -> None:
    with pytest.raises(ValueError, match=r'"sqlite:///relative\.db".*"memory:"'):
        open_store(url)
