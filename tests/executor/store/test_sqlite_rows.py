"""How rows become statements: they are found by their keys, and written as they are, whatever they share."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from stepwire_executor.store import sqlite_open
from stepwire_executor.store.changes import (
    CHANGED_RUNS,
    CHANGED_STEPS,
    ENDED_WAITS,
    REMOVED_ATTEMPTS,
    REMOVED_EVENTS,
    REMOVED_RUNS,
    REMOVED_STEPS,
    REMOVED_WAITS,
    Kind,
    Verb,
)
from stepwire_executor.store.sqlite_rows import MOST_FORMS, SIZES, form, parts, sql_of, write

CHANGING = [CHANGED_RUNS, CHANGED_STEPS, ENDED_WAITS]
REMOVING = [REMOVED_ATTEMPTS, REMOVED_STEPS, REMOVED_WAITS, REMOVED_RUNS, REMOVED_EVENTS]


@pytest.mark.parametrize("kind", [*CHANGING, *REMOVING], ids=lambda kind: f"{kind.verb.name} {kind.table}")
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("varies", ["all", "one column of the key"])
def test_rows_that_change_are_found_by_their_key(tmp_path: Path, kind: Kind, count: int, varies: str) -> None:
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    sqlite_open.prepare(connection, tmp_path / "store.db")
    varying = tuple(range(len(kind.columns))) if varies == "all" else (kind.columns.index(kind.key[-1]),)
    parameters = [None] * (len(kind.columns) - len(varying) + count * len(varying))
    plan = connection.execute(f"EXPLAIN QUERY PLAN {sql_of(kind, count, varying)}", parameters)
    details = [row[-1] for row in plan]
    assert any(detail.startswith(f"SEARCH {kind.table} USING") for detail in details), details
    assert not any(detail.startswith(f"SCAN {kind.table}") for detail in details), details
    connection.close()


ADDED = Kind(Verb.ADD, "things", ("a", "b", "c", "d", "e"))
PUT = Kind(Verb.PUT, "things", ("e", "d", "c", "b", "a"))
CHANGED = Kind(Verb.CHANGE, "things", ("e", "c", "a", "b"), ("a", "b"))
REMOVED = Kind(Verb.REMOVE, "things", ("a", "b"), ("a", "b"))


@pytest.mark.parametrize("count", [1, 15, 16, 17, 100, 700])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_rows_share_each_is_written_as_it_is(count: int, seed: int) -> None:
    random = Random(seed)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE things (a INTEGER, b TEXT, c REAL, d BLOB, e TEXT, PRIMARY KEY (a, b))")
    texts = sorted(random.sample(["x", "y", "z"], random.randint(1, 3)))
    numbers = random.sample([None, 1.5, -2.0], random.randint(1, 3))
    blobs = random.sample([b"", b"z" * 9, None], random.randint(1, 3))
    keys = [(number, text) for number in range(count) for text in texts][:count]

    def values(key: tuple[int, str]) -> list[Any]:
        return [*key, random.choice(numbers), random.choice(blobs), random.choice(texts)]

    held = {key: values(key) for key in keys}
    assert write(connection, ADDED, list(held.values())) == count
    assert everything(connection) == list(held.values())

    for key in random.sample(keys, count // 2):
        held[key] = values(key)
    assert write(connection, PUT, [row[::-1] for row in held.values()]) == count
    assert everything(connection) == list(held.values())

    some = random.sample(keys, (count + 1) // 2)
    for key in some:
        held[key][2], held[key][4] = random.choice(numbers), random.choice(texts)
    assert write(connection, CHANGED, [(held[key][4], held[key][2], *key) for key in some]) == len(some)
    assert everything(connection) == list(held.values())

    assert write(connection, REMOVED, some) == len(some)
    assert everything(connection) == [row for key, row in held.items() if key not in some]
    connection.close()


def everything(connection: sqlite3.Connection) -> list[Sequence[Any]]:
    """Read the whole table."""
    return [list(row) for row in connection.execute("SELECT * FROM things ORDER BY a, b")]


def test_however_rows_differ_there_are_few_statements() -> None:
    kind = Kind(Verb.ADD, "of many forms", tuple("abcdefgh"))
    varying = [{at for at in range(8) if number >> at & 1} for number in range(1, 255)]
    made = {form(kind, vary) for vary in varying}
    assert len(made) == MOST_FORMS + 1
    for vary in varying:
        fitting = [len(each) for each in made if vary.issubset(each)]
        assert vary.issubset(form(kind, vary))
        assert len(form(kind, vary)) == min(fitting)


def test_large_values_are_in_memory_once_more_at_most_by_a_statement() -> None:
    values = [(b"x" * size, "run", 1) for size in (300_000, 300_000, 300_000, 300_000, 5_000_000, 10, 10)]
    kind = Kind(Verb.CHANGE, "steps", ("output", "run_id", "number"), ("run_id", "number"))
    assert [len(part) for part in parts(kind, values)] == [4, 1, 2]
    assert list(parts(ENDED_WAITS, [("run", "step", 0)] * 3)) == [[("run", "step", 0)] * 3]
    assert list(parts(kind, [])) == []
