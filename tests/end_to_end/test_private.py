"""What Stepwire writes is for its owner alone: stores, histories, logs and tokens hold data of users, or secrets."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stepwire.cli import dev, token
from stepwire.history import history_of
from stepwire.testing import ExecutorProcess
from stepwire_executor.private import replace_file
from stepwire_executor.store.sqlite import SQLiteStore
from tests.contract.store_rows import new, run

WANTED = {True: 0o700, False: 0o600}
"""By whether it is a folder."""


@pytest.fixture(params=[0o022, 0o000], ids=["umask 022", "umask 000"], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def open_to_others(folder: Path) -> dict[str, str]:
    """Give what is in a folder that others could read or enter, with its mode."""
    return {
        str(path.relative_to(folder)): oct(mode(path))
        for path in folder.rglob("*")
        if mode(path) != WANTED[path.is_dir()] and not path.is_symlink()
    }


def test_what_an_executor_makes_is_for_its_owner(tmp_path: Path) -> None:
    settings = {
        "store": f"sqlite:///{tmp_path / 'a' / 'b' / 'store.db'}",
        "history": tmp_path / "c" / "histories",
    }
    with ExecutorProcess(settings=settings, folder=tmp_path / "d" / "e"):
        made = {path.name for path in tmp_path.rglob("*") if path.is_file()}
        assert {"store.db", "store.db-wal", "ready"} <= made
        assert any(name.startswith("executor-") and name.endswith(".jsonl") for name in made)
        assert any(name.endswith(".log") for name in made)
        assert open_to_others(tmp_path) == {}


def test_what_dev_keeps_is_for_its_owner(tmp_path: Path) -> None:
    dev.prepare(tmp_path / "deep" / ".stepwire")
    assert (tmp_path / "deep" / ".stepwire" / ".gitignore").read_text() == "*\n"
    assert open_to_others(tmp_path) == {}


def test_histories_of_workers_and_clients_are_for_their_owner(tmp_path: Path) -> None:
    history = history_of("client-1", {"STEPWIRE_HISTORY": str(tmp_path / "deep" / "histories")})
    assert history is not None
    history.note("sent", event="x")
    assert len(list(tmp_path.rglob("*.jsonl"))) == 1
    assert open_to_others(tmp_path) == {}


def test_a_new_file_of_tokens_is_for_its_owner(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "stepwire", "token", "new", "shop", "--file", str(tmp_path / "tokens.toml")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert open_to_others(tmp_path) == {}


async def test_the_log_and_the_journal_of_a_store_have_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(path)
    await store.open()
    await store.commit(new(run(1)))
    assert mode(Path(f"{path}-wal")) == 0o600
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE store SET epoch = epoch + 1")
        assert mode(Path(f"{path}-journal")) == 0o600


async def test_what_exists_keeps_the_mode_that_its_owner_gave_it(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o750)
    store, ready, tokens = folder / "store.db", folder / "ready", folder / "tokens.toml"
    for path in (store, ready, tokens):
        path.touch()
        path.chmod(0o640)
    opened = SQLiteStore(store)
    await opened.open()
    assert [mode(folder / name) for name in ("store.db", "store.db-wal")] == [0o640, 0o640]
    await opened.close()
    replace_file(ready, "127.0.0.1:8377")
    assert (ready.read_text(), mode(ready)) == ("127.0.0.1:8377", 0o640)
    token.add("[[token]]\n", "shop", tokens)
    assert (mode(folder), mode(tokens)) == (0o750, 0o640)


async def test_a_store_behind_a_link_is_made_where_that_leads(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link = tmp_path / "store.db"
    link.symlink_to(elsewhere / "real.db")
    store = SQLiteStore(link)
    await store.open()
    await store.close()
    assert mode(elsewhere / "real.db") == 0o600
    assert link.is_symlink()
