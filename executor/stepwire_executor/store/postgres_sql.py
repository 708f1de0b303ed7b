"""PostgreSQL's words: translated scripts and questions, a commit as one statement, and texts that can't be stored.

Knows nothing of connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from stepwire_core.model import Event, EventKey, Run, Step, StepState
from stepwire_executor.store import questions, rows
from stepwire_executor.store.changes import Change, Kind, Verb
from stepwire_executor.store.questions import Question
from stepwire_executor.store.schema import migrations

TYPES = {"INTEGER": "bigint", "REAL": "double precision", "TEXT": "text", "BLOB": "bytea"}
COLUMN = re.compile(r"^ +(\w+) (INTEGER|REAL|TEXT|BLOB)\b|ADD COLUMN (\w+) (INTEGER|REAL|TEXT|BLOB)\b", re.MULTILINE)

OWNER = """
ALTER TABLE store
    ADD COLUMN version bigint NOT NULL DEFAULT 0,
    ADD COLUMN beat bigint NOT NULL DEFAULT 0,
    ADD COLUMN holder text NOT NULL DEFAULT '',
    ADD COLUMN released boolean NOT NULL DEFAULT true
"""
"""What the table `store` has here besides the epoch: the schema's version, and who owns the store."""

MINE = "mine AS (UPDATE store SET beat = beat + 1 WHERE epoch = $1 RETURNING 1)"
"""With what every commit begins. There is no such row if another executor has taken the store."""


def translated(script: str) -> str:
    """Translate a migration. Texts are compared as SQLite does it, by their bytes.

    What only PostgreSQL is to do is a comment that begins with "PostgreSQL:".
    """
    script = script.replace(" WITHOUT ROWID", "").replace("-- PostgreSQL: ", "")
    return re.sub(r"\b(INTEGER|REAL|TEXT|BLOB)\b", lambda word: _declared(word[1]), script)


def _declared(type_: str) -> str:
    return f'{TYPES[type_]} COLLATE "C"' if type_ == "TEXT" else TYPES[type_]


@cache
def types() -> dict[str, str]:
    """Give the type of each column; those of one name have one type in all tables."""
    found: dict[str, str] = {}
    for script in migrations():
        for name, type_, added, its_type in COLUMN.findall(script):
            wanted = TYPES[type_ or its_type]
            assert found.setdefault(name or added, wanted) == wanted, f"column {name or added} has two types"
    return found


@cache
def asked(sql: str) -> str:
    """Translate a question. The planner needs few hints, and has others than SQLite's: "+" keeps an index unused."""
    sql = re.sub(r" INDEXED BY \w+", "", sql).replace("CROSS JOIN", "JOIN")
    sql = re.sub(r"\+(r\.\w+)", r"(\1 || '')", sql)
    count = 0

    def numbered(_: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"${count}"

    return re.sub(r"\?", numbered, sql)


def escaped(text: str) -> str:
    r"""Write a text without NUL, which PostgreSQL can't hold: \0 becomes \1\1, and \1 becomes \1\2. Order stays."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1\2").replace("\0", "\1\1")
    return text


def unescaped(text: str) -> str:
    """Read what `escaped` wrote."""
    return text.replace("\1\1", "\0").replace("\1\2", "\1") if "\1" in text else text


def stored(values: Iterable[Any]) -> list[Any]:
    """Give values as they are stored or asked for."""
    return [escaped(value) if type(value) is str else value for value in values]


def loaded(found: Iterable[Sequence[Any]]) -> Iterator[rows.Row]:
    """Give rows as they were before they were stored."""
    for row in found:
        yield tuple([unescaped(value) if type(value) is str else value for value in row])


@cache
def commit_sql(kinds: tuple[Kind, ...]) -> str:
    """Give the statement that commits changes of these kinds: one round trip, and whole or nothing by itself.

    Its parameters are the epoch and then an array for each column of each kind. It gives 1, or 0 if the store was
    taken. The division by zero takes everything back when a row to be changed is not there.
    """
    parts, checks, at = [MINE], [], 2
    for number, kind in enumerate(kinds):
        arrays = ", ".join(f"${at + n}::{types()[name]}[]" for n, name in enumerate(kind.columns))
        columns = ", ".join(kind.columns)
        source = f"mine, unnest({arrays}) AS new ({columns})"
        parts.append(f"part{number} AS ({_part(kind, columns, source)} RETURNING 1)")
        if kind.verb is not Verb.REMOVE:
            checks.append(f"(SELECT count(*) FROM part{number}) = cardinality(${at})")
        at += len(kind.columns)
    taken = "SELECT count(*) FROM mine"
    right = " AND ".join(checks) or "true"
    return f"WITH {', '.join(parts)} SELECT ({taken}) / CASE WHEN ({taken}) = 0 OR ({right}) THEN 1 ELSE 0 END"


def _part(kind: Kind, columns: str, source: str) -> str:
    found = " AND ".join(f"{kind.table}.{name} = new.{name}" for name in kind.key)
    ours = ", ".join(f"new.{name}" for name in kind.columns)
    if kind.verb is Verb.REMOVE:
        return f"DELETE FROM {kind.table} USING {source} WHERE {found}"
    changing = [name for name in kind.columns if name not in kind.key]
    if kind.verb is Verb.CHANGE:
        news = ", ".join(f"{name} = new.{name}" for name in changing)
        return f"UPDATE {kind.table} SET {news} FROM {source} WHERE {found}"
    insert = f"INSERT INTO {kind.table} ({columns}) SELECT {ours} FROM {source}"
    if kind.verb is Verb.ADD:
        return insert
    news = ", ".join(f"{name} = excluded.{name}" for name in changing)
    return f"{insert} ON CONFLICT ({', '.join(kind.key)}) DO UPDATE SET {news}"


def commit_statement(batch: Sequence[Change]) -> tuple[str, list[Any]]:
    """Give the statement for a batch, "" for nothing, and its parameters but for the epoch."""
    if not batch:
        return "", []
    arrays = [stored(column) for _, its_rows in batch for column in zip(*its_rows, strict=True)]
    return commit_sql(tuple(kind for kind, _ in batch)), arrays


def open_runs(run_ids: Sequence[str]) -> Question[dict[str, Run]]:
    """Ask for those of these runs that have not ended, without their steps."""
    where = f"r.id = ANY(?::text[]) AND {questions.unfinished('r.')}"
    sql = f"{questions.RUN_AND_EVENT} {questions.ITS_EVENT} WHERE {where}"

    def read(found: Iterable[rows.Row]) -> dict[str, Run]:
        runs = (questions.to_run(row) for row in found)
        return {run.id: run for run in runs}

    return Question(sql, (stored(run_ids),), read)


def steps_of(run_ids: Sequence[str]) -> Question[dict[str, list[Step]]]:
    """Ask for all steps of runs, by run, in the order of their numbers."""
    sql = f"SELECT run_id, {questions.STEP} FROM steps WHERE run_id = ANY(?::text[]) ORDER BY run_id, number"

    def read(found: Iterable[rows.Row]) -> dict[str, list[Step]]:
        steps: dict[str, list[Step]] = {}
        for run_id, *row in found:
            steps.setdefault(run_id, []).append(rows.to_step(row))
        return steps

    return Question(sql, (stored(run_ids),), read)


def known_events(keys: Sequence[EventKey], since: float) -> Question[dict[EventKey, Event]]:
    """See Store.known_events."""
    asked = "JOIN unnest(?::text[], ?::text[]) AS asked(id, apps) ON asked.id = e.id AND asked.apps = e.apps"
    order = "ORDER BY e.id, e.apps, e.position DESC"
    newest = f"SELECT DISTINCT ON (e.id, e.apps) {questions.KNOWN_EVENT} FROM events e"
    sql = f"{newest} {asked} WHERE e.received_at >= ? {order}"

    def read(found: Iterable[rows.Row]) -> dict[EventKey, Event]:
        events = (rows.to_event(row) for row in found)
        return {event.key: event for event in events}

    once = list(dict.fromkeys(keys))
    values = stored([id_ for _, id_ in once]), stored([rows.dump_apps(apps) for apps, _ in once]), since
    return Question(sql, values, read)


def count_steps(run_ids: Sequence[str]) -> Question[dict[str, dict[StepState, int]]]:
    """See Store.count_steps."""
    sql = "SELECT run_id, state, count(*) FROM steps WHERE run_id = ANY(?::text[]) GROUP BY run_id, state"

    def read(found: Iterable[rows.Row]) -> dict[str, dict[StepState, int]]:
        counts: dict[str, dict[StepState, int]] = {}
        for run_id, state, count in found:
            counts.setdefault(run_id, {})[StepState(state)] = count
        return counts

    return Question(sql, (stored(run_ids),), read)
