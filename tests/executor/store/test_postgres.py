"""What only a database of several executors can do: change its owner, fail over, be foreign, refuse, or be gone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from stepwire_core.commands import Writes
from stepwire_core.model import Function, FunctionOptions
from stepwire_executor.store import (
    Opened,
    Removal,
    RunFilter,
    StoreAwayError,
    StoreError,
    StoreTakenError,
    StoreUnusableError,
    postgres_open,
    postgres_sql,
)
from stepwire_executor.store.postgres import PostgresStore
from stepwire_executor.store.postgres_session import connect
from stepwire_executor.store.postgres_sql import escaped, unescaped
from tests.contract.store_rows import HARD, MUCH, new, run, step, wait, waits_by_key, waits_of
from tests.postgres import Cluster

TAKEOVER_SECONDS = 0.6


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.url(cluster.database())


def made(url: str, takeover_after: float = TAKEOVER_SECONDS) -> PostgresStore:
    return PostgresStore(url, "the database", takeover_after)


@asynccontextmanager
async def stores(url: str, count: int, takeover_after: float = TAKEOVER_SECONDS) -> AsyncIterator[list[PostgresStore]]:
    all_of_them = [made(url, takeover_after) for _ in range(count)]
    try:
        yield all_of_them
    finally:
        for store in all_of_them:
            await store.close()


async def taken(store: PostgresStore, within: float = 10.0) -> tuple[Opened, float]:
    """Stand by until the store is had; gives how long that took."""
    begun = time.monotonic()
    while True:
        try:
            return await store.open(), time.monotonic() - begun
        except StoreTakenError:
            assert time.monotonic() - begun < within
            await asyncio.sleep(0.02)


def silence(store: PostgresStore) -> None:
    """Let it give no more signs of life, as if its process was stopped; its connections stay."""
    assert store._beating is not None
    store._beating.cancel()


def database(url: str) -> str:
    return url.rpartition("/")[2]


async def test_a_second_executor_stands_by_and_is_told_who_has_the_store(url: str) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        for _ in range(3):
            with pytest.raises(StoreTakenError, match=f"standby: executor {first.holder} has the store"):
                await second.open()
        await first.commit(new(run(1)))


async def test_a_standby_stands_by_for_as_long_as_the_owner_lives(url: str) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        end = time.monotonic() + 4 * TAKEOVER_SECONDS
        while time.monotonic() < end:
            with pytest.raises(StoreTakenError):
                await second.open()
            await asyncio.sleep(0.02)
        await first.confirm()


async def test_a_store_that_was_closed_is_taken_at_once(url: str) -> None:
    async with stores(url, 2, takeover_after=60.0) as (first, second):
        epoch = (await first.open()).epoch
        await first.commit(new(run(1)))
        with pytest.raises(StoreTakenError):
            await second.open()
        await first.close()
        opened = await second.open()
        assert (opened.epoch, opened.last_position) == (epoch + 1, 1)


async def test_a_store_that_is_closed_while_it_is_opened_belongs_to_nobody(url: str) -> None:
    for milliseconds in range(0, 40, 2):  # not to wait for something, but to strike at different instants
        async with stores(url, 2, takeover_after=60) as (first, second):
            opening = asyncio.ensure_future(first.open())
            await asyncio.sleep(milliseconds / 1000)
            await first.close()
            await asyncio.gather(opening, return_exceptions=True)
            assert (await second.open()).epoch >= 1


async def test_an_owner_that_gives_no_sign_of_life_is_replaced_and_writes_nothing_more(url: str) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        await first.commit(new(run(1), steps=[step(1)]))
        silence(first)
        _, seconds = await taken(second)
        assert TAKEOVER_SECONDS <= seconds < TAKEOVER_SECONDS + 1
        with pytest.raises(StoreTakenError, match="another executor has taken the store over"):
            await first.commit(new(run(2)))
        with pytest.raises(StoreTakenError):
            await first.next_wake(0.0)
        assert [one.id for one in await second.list_runs(RunFilter(), "", 9, MUCH)] == [run(1).id]
        await first.close()
        with pytest.raises(StoreTakenError, match=second.holder):
            await first.open()


@pytest.mark.parametrize("kind", range(3))
async def test_nothing_of_any_kind_is_written_by_an_owner_that_was_replaced(url: str, kind: int) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        await first.commit(new(run(1), steps=[step(1)]))
        waiting = Writes(new_waits=waits_by_key(wait(run(1), 1)))
        await first.commit(waiting)
        silence(first)
        await taken(second)
        late = step(1)
        late.output = b"late"
        batches = [
            Writes(ended_waits=dict.fromkeys(waiting.new_waits)),
            Writes(steps={(run(1).id, 1): late}),
            Writes(new_steps={(run(1).id, 2): step(2)}),
        ]
        with pytest.raises(StoreTakenError):
            await first.commit(batches[kind])
        assert len(await waits_of(second)) == 1
        assert [one.output for one in await second.get_steps(run(1).id, 0, 9, MUCH)] == [None]


async def test_nothing_is_removed_by_an_owner_that_was_replaced(url: str) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        await first.commit(new(run(1), steps=[step(1)]))
        silence(first)
        await taken(second)
        with pytest.raises(StoreTakenError):
            await first.remove(Removal([(run(1).id, 1)], [run(1).id], [1]))
        assert len(await second.get_steps(run(1).id, 0, 9, MUCH)) == 1
        await second.remove(Removal([(run(1).id, 1)], [run(1).id], [1]))
        assert await second.get_run(run(1).id) is None


async def test_an_owner_that_was_stopped_asks_before_it_acts(url: str) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        await first.confirm()
        silence(first)
        await taken(second)
        with pytest.raises(StoreTakenError):
            await first.confirm()


async def test_signs_of_life_are_given_while_nothing_is_written(cluster: Cluster, url: str) -> None:
    async with stores(url, 1) as (store,):
        await store.open()

        def beat() -> int:
            return int(cluster.sql("SELECT beat FROM stepwire.store", database(url)))

        before = beat()
        await eventually(lambda: beat() >= before + 2)
        await store.confirm()


async def eventually(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110 - the database tells nobody
        await asyncio.sleep(0.02)


async def test_an_owner_whose_connections_end_is_replaced_sooner(cluster: Cluster, url: str) -> None:
    async with stores(url, 2, takeover_after=30.0) as (first, second):
        await first.open()
        with pytest.raises(StoreTakenError):
            await second.open()
        silence(first)
        assert first._writer is not None
        first._writer.drop()
        _, seconds = await taken(second)
        assert 0.9 < seconds < 5


async def test_an_owner_whose_connections_end_can_have_the_store_again_at_once(cluster: Cluster, url: str) -> None:
    async with stores(url, 1, takeover_after=30.0) as (store,):
        first = await store.open()
        await store.commit(new(run(1)))
        cluster.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database(url)}'")
        with pytest.raises(StoreAwayError, match="the database can't be reached or was lost"):
            await store.commit(new(run(2)))
        with pytest.raises(StoreAwayError, match="close it and open it again"):
            await store.get_run(run(1).id)
        await store.close()
        assert (await store.open()).epoch == first.epoch + 1
        assert await store.get_run(run(1).id) is not None


async def test_an_idle_owner_learns_that_its_connections_have_ended(cluster: Cluster, url: str) -> None:
    async with stores(url, 1, takeover_after=30.0) as (store,):
        await store.open()
        cluster.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database(url)}'")
        await eventually(lambda: store._failure is not None)
        with pytest.raises(StoreAwayError):
            await store.confirm()


@pytest.mark.parametrize("number", range(3))
async def test_of_several_that_take_over_at_once_one_wins(url: str, number: int) -> None:
    async with stores(url, 6) as everyone:
        first, *others = everyone
        await first.open()
        silence(first)
        await first._beat()  # the last one; what was on its way has come before it
        for other in others:
            with pytest.raises(StoreTakenError):
                await other.open()
        await asyncio.sleep(TAKEOVER_SECONDS + 0.1)
        barrier = asyncio.Barrier(len(others))

        async def claim(store: PostgresStore) -> int:
            await barrier.wait()
            try:
                return (await store.open()).epoch
            except StoreTakenError:
                return 0

        epochs = await asyncio.gather(*map(claim, others))
        assert sorted(epochs) == [0] * (len(others) - 1) + [2]
        winner = others[epochs.index(2)]
        await winner.commit(new(run(1)))


async def test_many_may_make_the_schema_at_once(url: str) -> None:
    async with stores(url, 6) as everyone:
        outcomes = await asyncio.gather(*(store.open() for store in everyone), return_exceptions=True)
        assert [type(each) for each in outcomes].count(Opened) == 1, outcomes
        assert all(isinstance(each, Opened | StoreTakenError) for each in outcomes), outcomes


async def test_a_commit_that_is_under_way_keeps_others_from_taking_over(cluster: Cluster, url: str) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        await first.commit(new(run(1)))
        blocker = await connect(url, "the database", {})
        await blocker.script("BEGIN; SELECT FROM runs FOR UPDATE")
        silence(first)
        batch = new(run(2))
        batch.runs[run(1).id] = run(1)
        committing = asyncio.create_task(first.commit(batch))
        standing_by = asyncio.create_task(taken(second))
        await asyncio.sleep(2 * TAKEOVER_SECONDS)
        assert not committing.done()
        assert not standing_by.done()
        await blocker.script("ROLLBACK")
        await committing
        opened, _ = await standing_by
        assert opened.last_position == 2
        await blocker.close()


async def test_a_commit_that_comes_too_late_writes_nothing(url: str) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        blocker = await connect(url, "the database", {})
        await blocker.script("BEGIN; LOCK TABLE runs IN EXCLUSIVE MODE")
        silence(first)
        committing = asyncio.create_task(first.commit(new(run(1))))
        await taken(second)
        assert not committing.done()
        await blocker.close()
        with pytest.raises(StoreTakenError):
            await committing
        assert await second.get_run(run(1).id) is None


async def test_a_process_that_stops_while_it_takes_over_keeps_nobody_out(url: str) -> None:
    async with stores(url, 2) as (first, second):
        await first.open()
        await first.close()
        session = await first._connect()
        await session.script("BEGIN; UPDATE store SET epoch = epoch + 1")
        _, seconds = await taken(second)
        assert seconds >= TAKEOVER_SECONDS / 2
        session.drop()


async def test_a_schema_of_something_else_is_refused_and_left_alone(cluster: Cluster, url: str) -> None:
    cluster.sql("CREATE SCHEMA stepwire; CREATE TABLE stepwire.diary (entry text)", database(url))
    with pytest.raises(StoreUnusableError, match="the database has a schema stepwire that is of something else"):
        await made(url).open()
    tables = "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'stepwire'"
    assert cluster.sql(tables, database(url)) == "diary"


async def test_other_tables_of_the_database_are_no_hindrance(cluster: Cluster, url: str) -> None:
    cluster.sql("CREATE TABLE runs (mine text); CREATE TABLE store (mine text)", database(url))
    async with stores(url, 1) as (store,):
        await store.open()
        await store.commit(new(run(1)))
    assert cluster.sql("SELECT count(*) FROM public.runs", database(url)) == "0"


async def test_a_newer_schema_is_refused_and_left_alone(cluster: Cluster, url: str) -> None:
    async with stores(url, 1) as (store,):
        await store.open()
    known = len(postgres_open.migrations())
    cluster.sql("UPDATE stepwire.store SET version = version + 2", database(url))
    with pytest.raises(
        StoreUnusableError, match=f"schema version {known + 2}, this Stepwire knows {known}: run a newer"
    ):
        await made(url).open()
    assert cluster.sql("SELECT epoch FROM stepwire.store", database(url)) == "1"


def with_migration(patch: pytest.MonkeyPatch, script: str) -> None:
    scripts = (*postgres_open.migrations(), script)
    patch.setattr(postgres_open, "migrations", lambda: scripts)


async def test_an_older_schema_is_brought_up_to_date_by_the_one_that_takes_over(
    cluster: Cluster, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stores(url, 2) as (old, newer):
        await old.open()
        await old.commit(new(run(1)))
        with monkeypatch.context() as patch:
            with_migration(patch, "ALTER TABLE runs ADD COLUMN note TEXT; UPDATE runs SET note = id")
            with pytest.raises(StoreTakenError):
                await newer.open()
            await old.commit(new(run(2)))
            await old.close()
            await newer.open()
        notes = cluster.sql("SELECT string_agg(note, ',' ORDER BY id) FROM stepwire.runs", database(url))
        assert notes == f"{run(1).id},{run(2).id}"
        with pytest.raises(StoreUnusableError, match="run a newer Stepwire"):
            await old.open()


BEFORE_APPS_OF_WAITS = """
SET search_path TO stepwire;
DROP INDEX waits_match;
ALTER TABLE waits DROP COLUMN app;
CREATE INDEX waits_match ON waits (event_name, paths, match, run_id, step_id, step_index);
ALTER TABLE functions DROP COLUMN served_at;
DROP INDEX events_reach;
CREATE INDEX events_name ON events (name, position);
UPDATE store SET version = 4;
"""


async def test_waits_from_before_they_knew_their_app_get_that_of_their_run(cluster: Cluster, url: str) -> None:
    ours, theirs = run(1), run(2, app="other")
    writes = new(ours, theirs)
    writes.new_waits = waits_by_key(wait(ours, 1), wait(theirs, 1))
    function = Function("shop", FunctionOptions("f"), "v", 1.5, 2.5)
    writes.functions = [function]
    async with stores(url, 1) as (store,):
        await store.open()
        await store.commit(writes)
        await store.close()
        cluster.sql(BEFORE_APPS_OF_WAITS, database(url))
        assert (await store.open()).functions == [replace(function, served_at=0.0)]
        assert await store.wait_apps("paid") == ["other", "shop"]
        for each in (ours, theirs):
            assert await store.find_waits("paid", each.app, '["id"]', "[1]", None, 9) == [wait(each, 1)]


async def test_a_migration_that_fails_changes_nothing(
    cluster: Cluster, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stores(url, 1) as (store,):
        await store.open()
        await store.close()
        with monkeypatch.context() as patch:
            with_migration(patch, "CREATE TABLE half (done TEXT); INSERT INTO nowhere VALUES (1)")
            with pytest.raises(StoreError, match="nowhere"):
                await store.open()
        assert (await store.open()).epoch == 2
    assert cluster.sql("SELECT to_regclass('stepwire.half') IS NULL", database(url)) == "t"


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"/test_": "/no_such_"}, StoreUnusableError, 'database "no_such_.*" does not exist.*--store'),
        ({"stepwire@": "nobody@"}, StoreUnusableError, 'role "nobody" does not exist'),
        ({"?": "?sslmode=require&"}, StoreError, "the database"),
    ],
)
async def test_what_the_server_refuses_is_said(
    url: str, change: dict[str, str], kind: type[StoreError], reason: str
) -> None:
    url += "?"
    for old, other in change.items():
        url = url.replace(old, other)
    with pytest.raises(kind, match=reason):
        await made(url).open()


async def test_a_server_that_is_not_there_is_away() -> None:
    begun = time.monotonic()
    with pytest.raises(StoreAwayError, match="the database can't be reached"):
        await made("postgresql://u@127.0.0.1:1/stepwire").open()
    assert time.monotonic() - begun < 5


async def test_a_server_that_says_nothing_is_away() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(StoreAwayError, match="no connection within 1 s"):
            await made(f"postgresql://u@127.0.0.1:{deaf.getsockname()[1]}/stepwire").open()


async def test_a_database_of_another_encoding_is_refused(cluster: Cluster) -> None:
    cluster.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreUnusableError, match="has the encoding LATIN1: create the database with ENCODING 'UTF8'"):
        await made(cluster.url("latin")).open()


async def test_too_many_connections_are_waited_out(cluster: Cluster, url: str) -> None:
    cluster.sql(f"ALTER DATABASE {database(url)} CONNECTION LIMIT 1")
    cluster.sql("CREATE ROLE plain LOGIN")
    cluster.sql("GRANT CREATE ON DATABASE " + database(url) + " TO plain")
    limited = url.replace("stepwire@", "plain@")
    async with stores(limited, 1) as (store,):
        with pytest.raises(StoreAwayError, match="too many connections"):
            await store.open()
        cluster.sql(f"ALTER DATABASE {database(url)} CONNECTION LIMIT 2")
        await store.open()
        await store.commit(new(run(1)))


async def test_a_statement_without_an_answer_costs_the_connection_and_not_more(cluster: Cluster, url: str) -> None:
    session = await connect(url, "the database", {})
    blocker = await connect(url, "the database", {})
    await blocker.rows("SELECT pg_advisory_lock(1)")
    with pytest.raises(StoreAwayError, match=r"the database gave no answer within 0\.3 s"):
        await session.rows("SELECT pg_advisory_lock(1)", seconds=0.3)
    assert session.lost
    await blocker.close()


@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_is_ended_while_it_is_idle_is_away_at_any_moment(
    cluster: Cluster, url: str, turns: int
) -> None:
    session = await connect(url, "the database", {})
    ((backend,),) = await session.rows("SELECT pg_backend_pid()")
    cluster.sql(f"SELECT pg_terminate_backend({backend}, 10000)")  # what it says of its end waits in the socket
    for _ in range(turns):
        await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(StoreAwayError, match="can't be reached or was lost"):
            await session.rows("SELECT 1")
    assert session.lost


async def test_a_text_that_is_not_unicode_fails_its_batch(url: str) -> None:
    async with stores(url, 1) as (store,):
        await store.open()
        with pytest.raises(StoreError, match="surrogates"):
            await store.commit(new(run(1, cancel_reason="\ud800")))
        await store.close()
        await store.open()
        assert await store.list_runs(RunFilter(), "", 9, MUCH) == []


TEXTS = ["", "\0", "\1", "\2", "\0\0", "\0\1", "\1\0", "\1\1", "\1\2", "\2\1", "a\0b", "a\1b", "ab", HARD, "\0\1\2" * 3]


def test_every_text_comes_back_and_their_order_stays() -> None:
    assert [unescaped(escaped(text)) for text in TEXTS] == TEXTS
    assert not any("\0" in escaped(text) for text in TEXTS)
    assert [unescaped(text) for text in sorted(map(escaped, TEXTS))] == sorted(TEXTS)


def test_what_only_postgresql_is_to_do_is_a_comment_of_a_migration() -> None:
    script = "-- A table.\n-- PostgreSQL: SET a = 1;\nCREATE TABLE t (a TEXT, n INTEGER) WITHOUT ROWID;"
    wanted = '-- A table.\nSET a = 1;\nCREATE TABLE t (a text COLLATE "C", n bigint);'
    assert postgres_sql.translated(script) == wanted


def test_questions_are_translated() -> None:
    assert postgres_sql.asked("SELECT a FROM t INDEXED BY i WHERE +r.b = ? AND c = ?") == (
        "SELECT a FROM t WHERE (r.b || '') = $1 AND c = $2"
    )


async def work(store: PostgresStore, ask: Callable[[], Awaitable[object]], table: str) -> int:
    """Give how many rows of a table, dead ones not counted, were fetched for a question, by any way."""
    assert store._reader is not None
    count = f"""SELECT pg_stat_force_next_flush(), coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
        FROM pg_stat_user_tables WHERE relname = '{table}' AND schemaname = 'stepwire'"""
    await store._reader.rows("SELECT pg_stat_force_next_flush()")
    [(_, before)] = await store._reader.rows(count)
    await ask()
    await store._reader.rows("SELECT pg_stat_force_next_flush()")
    [(_, after)] = await store._reader.rows(count)
    return int(after) - int(before)


async def test_looking_up_waits_and_steps_costs_no_more_when_there_are_many(url: str) -> None:
    async with stores(url, 1, takeover_after=30.0) as (store,):
        await store.open()
        the_run = run(1)
        writes = new(the_run, *(run(number) for number in range(2, 2000)), steps=[step(n) for n in range(1, 5000)])
        writes.new_waits = waits_by_key(*[wait(the_run, n, paths=f"[{n % 3}]", match=str(n)) for n in range(5000)])
        await store.commit(writes)
        assert await work(store, lambda: store.find_waits("paid", "shop", "[1]", "1", None, 9), "waits") <= 2
        assert await work(store, lambda: store.get_steps(the_run.id, 4990, 5, MUCH), "steps") <= 10
        assert await work(store, lambda: store.list_runs(RunFilter(app="shop"), "", 10, MUCH), "runs") <= 40
        assert await work(store, lambda: store.hot_runs("", 10), "runs") <= 20
        changed = step(4000)
        changed.output = b"x"
        assert await work(store, lambda: store.commit(Writes(steps={(the_run.id, 4000): changed})), "steps") <= 10
        assert await store.wait_paths("paid", "shop", None, 9) == ["[0]", "[1]", "[2]"]


async def test_a_page_of_an_app_costs_what_is_on_it_whatever_the_planner_has_learned(url: str) -> None:
    async with stores(url, 1, takeover_after=30.0) as (store,):
        await store.open()
        rare = run(1, app="rare", function_id="seldom")
        often = [run(n, app=f"app-{n % 2}", function_id=f"f-{n % 3}") for n in range(2, 10_000)]
        await store.commit(new(rare, *often))
        assert store._writer is not None
        await store._writer.rows("ANALYZE")
        for where in (RunFilter(app="none"), RunFilter(app="rare"), RunFilter(function_id="seldom")):
            assert await work(store, lambda where=where: store.list_runs(where, "", 10, MUCH), "runs") <= 10
