"""What only a file can do: be damaged, foreign, in use, too new, or be torn by a crash or a full disk."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stepwire_core.commands import Wait, Writes
from stepwire_core.model import StepKey
from stepwire_executor.store import RunFilter, StoreError, StoreUnusableError, questions, sqlite_log, sqlite_open
from stepwire_executor.store.changes import changes
from stepwire_executor.store.sqlite import SQLiteStore, execute
from stepwire_executor.store.sqlite_rows import SIZES
from tests.contract.store_rows import MUCH, event, new, run, step, wait, waits_by_key
from tests.executor.store.writer import STEPS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(path)
    yield made
    await made.close()


def writer(path: Path, what: str, *more: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-m", "tests.executor.store.writer", str(path), what, *more]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def content(path: Path) -> bytes:
    return path.read_bytes()


def overwrite(path: Path, data: bytes, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


async def filled(path: Path, runs: int = 30) -> None:
    """Make a store of many pages."""
    store = SQLiteStore(path)
    await store.open()
    for number in range(1, runs + 1):
        await store.commit(new(run(number), steps=[step(n, output=bytes(300)) for n in range(1, 20)]))
    await store.close()


async def test_the_file_is_for_this_connection_alone_and_every_commit_is_synced(store: SQLiteStore, path: Path) -> None:
    await store.open()
    settings = ("locking_mode", "journal_mode", "synchronous", "foreign_keys", "application_id")

    def read(connection: sqlite3.Connection) -> list[object]:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in settings]

    assert await store._call(read) == ["exclusive", "wal", 2, 1, sqlite_open.APPLICATION_ID]
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db", "store.db-wal"]
    await store.close()
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


@pytest.fixture
def text(path: Path) -> bytes:
    path.write_bytes(b"Dear diary,\n" * 100)
    return path.read_bytes()


async def test_a_text_file_is_refused_and_left_alone(store: SQLiteStore, path: Path, text: bytes) -> None:
    with pytest.raises(StoreUnusableError, match=r"store\.db is not a database"):
        await store.open()
    assert content(path) == text


@pytest.mark.parametrize("application_id", [0, 7])
async def test_a_database_of_something_else_is_refused_and_left_alone(
    store: SQLiteStore, path: Path, application_id: int
) -> None:
    other = sqlite3.connect(path)
    other.executescript(f"PRAGMA application_id = {application_id}; CREATE TABLE diary (entry TEXT)")
    other.close()
    before = content(path)
    with pytest.raises(StoreUnusableError, match="a database of something else"):
        await store.open()
    assert content(path) == before


async def test_a_truncated_file_is_refused_and_left_alone(store: SQLiteStore, path: Path) -> None:
    await filled(path)
    kept = content(path)[: len(content(path)) // 2]
    os.truncate(path, len(kept))
    with pytest.raises(StoreUnusableError, match=r"damaged.*nothing was started afresh"):
        await store.open()
    assert content(path) == kept


async def test_a_file_with_a_damaged_schema_is_refused(store: SQLiteStore, path: Path) -> None:
    await filled(path)
    overwrite(path, b"\xff" * 3000, at=100)
    with pytest.raises(StoreUnusableError, match="damaged"):
        await store.open()


async def test_damage_that_shows_later_is_told_as_such(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_open, "CHECKED_BYTES", 0)
    await filled(path)
    database = sqlite3.connect(path)
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = 'steps'").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    database.close()
    overwrite(path, b"\xff" * size, at=(page - 1) * size)
    await store.open()
    with pytest.raises(StoreUnusableError, match="damaged"):
        await store.get_steps(run(1).id, 0, 9, MUCH)
    with pytest.raises(StoreUnusableError, match="damaged"):
        await store.commit(Writes(new_steps={(run(1).id, 99): step(99)}))


async def test_a_log_is_damaged_only_if_whole_transactions_follow(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE numbers (n)")
    for number in range(20):
        database.execute("INSERT INTO numbers VALUES (?)", (number,))
    whole = (tmp_path / "a.db-wal").read_bytes()
    database.close()
    frame = 24 + 4096
    log = tmp_path / "log"
    assert sqlite_log.damage(log) == ""
    for cut in (0, 20, 32, 100, 32 + frame * 5, len(whole) - 7, len(whole)):
        log.write_bytes(whole[:cut])
        assert sqlite_log.damage(log) == "", "a crash may cut it off anywhere"
    for at, what in ((3, "the header"), (40, "page 1 "), (32 + frame * 3 + 2000, "page 4 "), (len(whole) - 9, "")):
        log.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert sqlite_log.damage(log).startswith(what)
        assert bool(sqlite_log.damage(log)) == bool(what)


@pytest.mark.parametrize("main_file", ["absent", "empty"])
async def test_a_log_without_its_database_is_refused_and_left_alone(
    store: SQLiteStore, path: Path, main_file: str
) -> None:
    process = writer(path, "write")
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    kill(process)
    log = Path(f"{path}-wal")
    before = content(log)
    os.unlink(path)
    if main_file == "empty":
        shutil.copy(os.devnull, path)
    with pytest.raises(StoreUnusableError, match="missing or empty, though its log"):
        await store.open()
    assert content(log) == before


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusableError, match="is a directory"):
        await SQLiteStore(tmp_path).open()


async def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusableError, match="can't be made"):
        await SQLiteStore(tmp_path / "file" / "store.db").open()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder that everybody can reach, and stop being root: root may write anywhere."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield made
    for inner in made.iterdir():
        inner.chmod(0o700)
    os.seteuid(before)
    shutil.rmtree(made)


async def test_a_file_that_may_not_be_written_is_refused(folder: Path) -> None:
    await filled(folder / "store.db", 1)
    (folder / "store.db").chmod(0o400)
    with pytest.raises(StoreUnusableError, match="read-only"):
        await SQLiteStore(folder / "store.db").open()


async def test_a_file_whose_log_may_not_be_written_is_refused(folder: Path) -> None:
    await filled(folder / "mine" / "store.db", 1)
    (folder / "mine").chmod(0o500)
    with pytest.raises(StoreUnusableError, match=r"read-only|can't be opened"):
        await SQLiteStore(folder / "mine" / "store.db").open()


async def test_a_folder_that_may_not_be_written_is_refused(folder: Path) -> None:
    await filled(folder / "warm up.db", 1)
    (folder / "mine").mkdir(0o500)
    with pytest.raises(StoreUnusableError, match="can't be made: Permission denied"):
        await SQLiteStore(folder / "mine" / "store.db").open()
    with pytest.raises(StoreUnusableError, match="can't be made"):
        await SQLiteStore(folder / "mine" / "deeper" / "store.db").open()


async def test_a_store_that_another_process_has_is_refused_until_that_ends(store: SQLiteStore, path: Path) -> None:
    with writer(path, "hold") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreUnusableError, match=r"another executor has .*store\.db open; stop it or use another"):
            await store.open()
        process.communicate("")
        assert process.returncode == 0
    assert (await store.open()).epoch == 2


async def test_a_store_that_this_process_has_is_refused(store: SQLiteStore, path: Path) -> None:
    await store.open()
    with pytest.raises(StoreUnusableError, match="another executor has"):
        await SQLiteStore(path).open()
    await store.commit(new(run(1)))
    with pytest.raises(StoreError, match="open already"):
        await store.open()


def kill(process: subprocess.Popen[str]) -> str:
    """Kill a process, and give the rest of what it has said."""
    with process:
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        return process.stdout.read()  # communicate() would miss what readline() has read ahead


async def test_a_killed_process_leaves_whole_transactions_and_all_that_were_acknowledged(
    store: SQLiteStore, path: Path
) -> None:
    acknowledged, epoch = 0, 0
    for lines in (1, 2, 5, 30):
        process = writer(path, "write")
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        said += kill(process).splitlines()
        acknowledged = max(int(line) for line in said if line.strip())
        opened = await store.open()
        assert opened.epoch > epoch + 1, "the killed process had raised it too"
        epoch = opened.epoch
        runs = await store.list_runs(RunFilter(), "", 100_000, MUCH)
        assert opened.last_position == len(runs)
        assert acknowledged <= len(runs) <= acknowledged + 1
        assert {one.id for one in runs} == {run(number).id for number in range(1, len(runs) + 1)}
        for one in runs:
            assert sum((await store.count_steps([one.id]))[one.id].values()) == STEPS
        await store.close()


def can_mount() -> tuple[str, ...] | None:
    """Give the command under which a process may mount what only it sees; None if that is not allowed here."""
    for prefix in (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount")):
        command = [*prefix, "mount", "-t", "tmpfs", "none", "/mnt"]
        if shutil.which("unshare") and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return prefix
    return None


def test_a_full_disk_loses_nothing_acknowledged_and_the_store_can_be_opened_again(tmp_path: Path) -> None:
    prefix = can_mount()
    if prefix is None:  # a limit of the process then stands in for the disk
        output, _ = writer(tmp_path / "store.db", "fill", "").communicate()
        assert "failed" in output
    else:
        fill = 'mount -t tmpfs -o size=6m none "$0" && head -c 2000000 /dev/zero > "$0/ballast" && exec "$@"'
        shell = (*prefix, "sh", "-c", fill, str(tmp_path))
        output, _ = writer(tmp_path / "store.db", "fill", str(tmp_path / "ballast"), prefix=shell).communicate()
        assert "database or disk is full" in output
    check_filled(output)


def test_an_io_error_loses_nothing_acknowledged_and_the_store_can_be_opened_again(tmp_path: Path) -> None:
    output, _ = writer(tmp_path / "store.db", "fill", "").communicate()
    assert "disk I/O error" in output
    check_filled(output)


def check_filled(output: str) -> None:
    words = output.splitlines()[-1].replace(",", "").split()
    acknowledged, found, whole = int(words[1]), int(words[3]), words[5]
    assert 0 < acknowledged < 1000
    assert acknowledged <= found <= acknowledged + 1
    assert whole == "True"


async def test_an_empty_file_becomes_a_store_of_the_newest_version(store: SQLiteStore, path: Path) -> None:
    shutil.copy(os.devnull, path)
    assert (await store.open()).epoch == 1
    version = await store._call(lambda connection: connection.execute("PRAGMA user_version").fetchone())
    assert version == (len(sqlite_open.migrations()),)


async def test_a_newer_schema_is_refused_and_left_alone(store: SQLiteStore, path: Path) -> None:
    await filled(path, 1)
    known = len(sqlite_open.migrations())
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {known + 2}")
    database.close()
    with pytest.raises(
        StoreUnusableError, match=f"schema version {known + 2}, this Stepwire knows {known}: run a newer"
    ):
        await store.open()
    database = sqlite3.connect(path)
    assert database.execute("SELECT epoch FROM store").fetchone() == (1,)
    database.close()


async def test_an_older_schema_is_brought_up_to_date_with_all_that_it_holds(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(path, 3)
    scripts = (*sqlite_open.migrations(), "ALTER TABLE runs ADD COLUMN note TEXT; UPDATE runs SET note = id")
    monkeypatch.setattr(sqlite_open, "migrations", lambda: scripts)
    await store.open()
    notes = await store._call(lambda connection: connection.execute("SELECT note FROM runs ORDER BY id").fetchall())
    assert notes == [(run(number).id,) for number in (1, 2, 3)]


async def test_events_from_before_tokens_reach_all_apps(store: SQLiteStore, path: Path) -> None:
    database = sqlite3.connect(path)
    sqlite_open.migrate(database, 1, sqlite_open.migrations()[0])
    database.execute("INSERT INTO events VALUES (1, 'e', 'paid', 1.5, 1.5, '', '', 'd', '', x'00')")
    database.commit()
    database.close()
    assert (await store.open()).last_position == 1
    (old,) = (await store.known_events([((), "e")], 0.0)).values()
    assert old.reaches("shop")


async def test_waits_from_before_they_knew_their_app_get_that_of_their_run(store: SQLiteStore, path: Path) -> None:
    database = sqlite3.connect(path)
    for version, script in enumerate(sqlite_open.migrations()[:4], 1):
        sqlite_open.migrate(database, version, script)
    database.execute("INSERT INTO events VALUES (1, 'e', 'n', 1.5, 1.5, '', '', 'd', '', x'00', '')")
    database.execute("INSERT INTO functions VALUES ('shop', 'f', 'v', 1.5, '[]', NULL, NULL)")
    for id_, app in (("r1", "shop"), ("r2", "bank")):
        database.execute(
            "INSERT INTO runs VALUES (?, 2, NULL, ?, 'f', 'v', 1, 1.5, 1.5, NULL, NULL, 1, NULL, 0, '', NULL, NULL,"
            " 0, '', NULL, NULL)",
            (id_, app),
        )
        database.execute("INSERT INTO waits VALUES (?, 'w', 0, 1, 'paid', '[]', '[]')", (id_,))
    database.commit()
    database.close()
    assert [each.served_at for each in (await store.open()).functions] == [0.0], "it is not known"
    assert await store.wait_apps("paid") == ["bank", "shop"]
    for id_, app in (("r1", "shop"), ("r2", "bank")):
        assert await store.find_waits("paid", app, "[]", "[]", None, 9) == [
            Wait("paid", "[]", "[]", id_, StepKey("w", 0), 1, app)
        ]


async def test_a_migration_that_fails_changes_nothing(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(path, 1)
    with monkeypatch.context() as patch:
        scripts = (*sqlite_open.migrations(), "CREATE TABLE half (done); INSERT INTO nowhere VALUES (1)")
        patch.setattr(sqlite_open, "migrations", lambda: scripts)
        with pytest.raises(StoreError, match="nowhere"):
            await store.open()
    assert (await store.open()).epoch == 2
    tables = await store._call(lambda connection: connection.execute("SELECT name FROM sqlite_master").fetchall())
    assert ("half",) not in tables


def test_a_batch_that_fails_is_rolled_back_at_once(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    sqlite_open.prepare(connection, path)
    with pytest.raises(StoreError, match="1 of 1 rows to change are not in the store"):
        execute(connection, changes(Writes(events=[event(1)], steps={(run(1).id, 1): step(1)})))
    execute(connection, changes(new(run(1))))
    connection.close()


async def test_a_batch_of_any_size_is_written_whole(store: SQLiteStore) -> None:
    await store.open()
    count = sum(SIZES) + SIZES[0] + 3
    steps = [step(number) for number in range(1, count + 1)]
    await store.commit(new(run(1), steps=steps))
    for each in steps:
        each.worker = f"worker of {each.number}"
    await store.commit(Writes(steps={(run(1).id, each.number): each for each in steps}))
    (loaded,) = await store.load_runs([run(1).id])
    assert [each.worker for each in loaded.steps.values()] == [f"worker of {n}" for n in range(1, count + 1)]


async def test_a_text_that_is_not_unicode_fails_its_batch(store: SQLiteStore) -> None:
    await store.open()
    with pytest.raises(StoreError, match="surrogates"):
        await store.commit(new(run(1), steps=[step(1, key=StepKey("\ud800", 0))]))
    await store.close()
    await store.open()
    assert await store.list_runs(RunFilter(), "", 9, MUCH) == []


async def test_looking_up_waits_costs_no_more_when_there_are_many(store: SQLiteStore) -> None:
    await store.open()
    the_run = run(1)
    writes = new(the_run)
    writes.new_waits = waits_by_key(
        *[wait(the_run, number, paths=f"[{number % 3}]", match=str(number)) for number in range(20_000)]
    )
    await store.commit(writes)

    def work(connection: sqlite3.Connection) -> tuple[int, list[str], int]:
        """Count hundreds of operations of SQLite's machine."""
        hundreds = 0

        def count() -> None:
            nonlocal hundreds
            hundreds += 1

        connection.set_progress_handler(count, 100)
        paths = sqlite_open.ask(connection, questions.wait_paths("paid", "shop", None, 9))
        found = len(sqlite_open.ask(connection, questions.find_waits("paid", "shop", "[1]", "1", None, 9)))
        connection.set_progress_handler(None, 100)
        return hundreds, paths, found

    hundreds, paths, found = await store._call(work)
    assert (sorted(paths), found) == (["[0]", "[1]", "[2]"], 1)
    assert hundreds < 10
