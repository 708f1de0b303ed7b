"""What is asked of a database: each look-up of the store as data, an SQL text and how its rows are read.

The text is SQLite's, `INDEXED BY` included; `postgres_sql.py` translates it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, TypeVar

from stepwire_core import ids
from stepwire_core.commands import Wait
from stepwire_core.model import (
    Event,
    EventKey,
    FailedAttempt,
    Function,
    Run,
    RunState,
    Step,
    StepKey,
    StepState,
)
from stepwire_executor.store import AgedEvent, AgedRun, RunFilter, rows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """An SQL text with a "?" for each of its values, and what to make of the rows."""

    sql: str
    values: Sequence[Any]
    read: Callable[[Iterable[rows.Row]], T]


def columns(names: Sequence[str], table: str = "", without: Collection[str] = ()) -> str:
    """Name columns for a SELECT; of those that are left out nothing is read, and their values come as None."""
    return ", ".join("NULL" if name in without else f"{table}{name}" for name in names)


def distinct(column: str, table: str, where: str = "", *, behind: str = "", limited: bool = False) -> str:
    """Select the values of an indexed column in their order, of rows for which `where` holds; from some value on.

    It jumps from each value to the next in the index, so that a million equal ones cost one step. It ends by itself
    after so many, if `limited`: SQLite would find all of them before it heeded a LIMIT.
    """
    first = " AND ".join(filter(None, (where, behind)))
    following = " AND ".join(filter(None, (where, f"{column} > found.value")))
    return (
        f"WITH RECURSIVE found (value, place) AS (SELECT min({column}), 1 FROM {table}"
        f"{' WHERE ' * bool(first)}{first} UNION ALL "
        f"SELECT (SELECT min({column}) FROM {table} WHERE {following}), place + 1 FROM found "
        f"WHERE value IS NOT NULL{' AND place < ?' * limited}) SELECT value FROM found WHERE value IS NOT NULL"
    )


def within(key: str, sized: str, order: str = "") -> str:
    """Select how many bytes come before each row, out of rows with a `key` and a `size`.

    So what is large is measured without being read.
    """
    return f"SELECT {key}, sum(size) OVER (ORDER BY {key}{order}) - size AS ahead FROM ({sized}) AS sized"


def unfinished(run: str = "") -> str:
    """Say that a run has not ended; word for word as the migrations' indexes, which are used only then."""
    return f"{run}state < {RunState.SUCCEEDED:d}"


def has_ended(run: str = "") -> str:
    """Say that a run has ended."""
    return f"{run}state >= {RunState.SUCCEEDED:d}"


def without_success(run: str = "") -> str:
    """Say that a run has ended without success; as the index `runs_failed`."""
    return f"{run}state > {RunState.SUCCEEDED:d}"


def waiting(step: str = "") -> str:
    """Say that a step waits; as the index `steps_child`."""
    return f"{step}state = {StepState.WAITING:d}"


EVENT = columns(rows.EVENT, "e.")
KNOWN_EVENT = columns(rows.EVENT, "e.", {"data"})
RUN = columns(rows.RUN, "r.")
STEP = columns(rows.STEP)
WAIT = ", ".join(rows.WAIT)
RUN_AND_EVENT = f"SELECT {EVENT}, {RUN} FROM runs r"
ITS_NAME = columns(rows.EVENT, "e.", {"data", "run_ids", "apps"})
"""What a list tells of a run's event: the rest may be a megabyte for each run, or lies behind that.

SQLite gets to a column by way of all pages of the one before.
"""
FAILURE_SIZE = "coalesce(length(r.failure), 0)"
ITS_EVENT = "CROSS JOIN events e ON e.position = r.event_position"
EVENT_WIDTH = len(rows.EVENT)

ENDED_CHILDREN = f"""
SELECT r.id, coalesce(length(r.output), 0) + coalesce(length(r.failure), 0) AS size FROM runs r WHERE r.id IN (
    SELECT child.id FROM steps s INDEXED BY steps_child
    CROSS JOIN runs child ON child.id = s.child_run_id
    CROSS JOIN runs parent ON parent.id = s.run_id
    WHERE {waiting("s.")} AND s.child_run_id <> '' AND {has_ended("child.")} AND {unfinished("parent.")}
) ORDER BY r.id LIMIT ?
"""

ORPHANS = f"""
SELECT r.id FROM runs r INDEXED BY runs_unfinished
WHERE {unfinished("r.")} AND r.parent_run_id <> '' AND NOT EXISTS (
    SELECT 1 FROM steps s INDEXED BY steps_child
    CROSS JOIN runs parent ON parent.id = s.run_id
    WHERE s.child_run_id = r.id AND s.child_run_id <> '' AND {waiting("s.")} AND {unfinished("parent.")}
) ORDER BY r.id || '' LIMIT ?
"""
"""A step that invokes waits until it ends, so a child that no step waits for has been given up.

By the id itself PostgreSQL would go through all runs in the order that is wanted.
"""

AGED_EVENTS = f"""
SELECT e.position, e.received_at, e.position = (SELECT max(position) FROM events), r.id, r.state, r.ended_at,
    r.parent_run_id <> '' AND EXISTS (
        SELECT 1 FROM steps s INDEXED BY steps_child
        CROSS JOIN runs parent ON parent.id = s.run_id
        WHERE s.child_run_id = r.id AND s.child_run_id <> '' AND {waiting("s.")} AND {unfinished("parent.")}
    ),
    (SELECT max(number) FROM steps WHERE run_id = r.id)
FROM (SELECT position, received_at FROM events WHERE position > ? ORDER BY position LIMIT ?) AS e
LEFT JOIN runs r INDEXED BY runs_event ON r.event_position = e.position
ORDER BY e.position, r.id
"""

STEPS_SIZED = """
SELECT number, length(input) + coalesce(length(failure), 0){} AS size
FROM steps WHERE run_id = ? AND number > ? ORDER BY number LIMIT ?
"""
"""With room for what weighs besides."""

MOST_PARTS = 100
"""Of a UNION; SQLite's own limit is 500, https://www.sqlite.org/limits.html."""

ATTEMPTS_WITHIN = """
SELECT DISTINCT step_number, coalesce(sum(length(failure)) OVER (
    ORDER BY step_number RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
), 0) AS ahead
FROM failed_attempts WHERE run_id = ? AND step_number BETWEEN ? AND ?
"""
"""How many bytes of failures come before each step's own."""


def to_run(row: rows.Row) -> Run:
    """Read a run beside its event."""
    return rows.to_run(row[EVENT_WIDTH:], rows.to_event(row[:EVENT_WIDTH]))


def _first_run(found: Iterable[rows.Row]) -> Run | None:
    return next(map(to_run, found), None)


def _runs(found: Iterable[rows.Row]) -> list[Run]:
    return [to_run(row) for row in found]


def _ids(found: Iterable[rows.Row]) -> list[str]:
    return [id_ for (id_,) in found]


def _steps(found: Iterable[rows.Row]) -> list[Step]:
    return [rows.to_step(row) for row in found]


def _events(found: Iterable[rows.Row]) -> list[Event]:
    return [rows.to_event(row) for row in found]


def _waits(found: Iterable[rows.Row]) -> list[Wait]:
    return [rows.to_wait(row) for row in found]


def _number(found: Iterable[rows.Row]) -> int:
    ((number,),) = found
    return int(number)


def _time(found: Iterable[rows.Row]) -> float | None:
    ((time,),) = found
    return None if time is None else float(time)


def functions() -> Question[list[Function]]:
    """Ask for all functions, by app and id."""
    sql = f"SELECT {', '.join(rows.FUNCTION)} FROM functions ORDER BY app, function_id"
    return Question(sql, (), lambda found: [rows.to_function(row) for row in found])


def last_position() -> Question[int]:
    """Ask for the newest event's position; 0 if there is none."""
    return Question("SELECT coalesce(max(position), 0) FROM events", (), _number)


def get_run(run_id: str) -> Question[Run | None]:
    """See Store.get_run."""
    return Question(f"{RUN_AND_EVENT} {ITS_EVENT} WHERE r.id = ?", (run_id,), _first_run)


def all_steps(run_id: str) -> Question[list[Step]]:
    """Ask for a run's steps in the order of their numbers."""
    return Question(f"SELECT {STEP} FROM steps WHERE run_id = ? ORDER BY number", (run_id,), _steps)


def get_steps(
    run_id: str, after_number: int, limit: int, most_bytes: int, *, outputs: bool = True
) -> Question[list[Step]]:
    """See Store.get_steps."""
    sized = within("number", STEPS_SIZED.format(" + coalesce(length(output), 0)" if outputs else ""))
    found = columns(rows.STEP, "s.", () if outputs else {"output", "event_position"})
    sql = f"SELECT {found} FROM ({sized}) AS page CROSS JOIN steps s ON s.run_id = ? AND s.number = page.number"
    values = (run_id, after_number, limit, run_id, most_bytes)
    return Question(f"{sql} WHERE page.ahead < ? ORDER BY s.number", values, _steps)


def hot_runs(after: str, limit: int) -> Question[list[str]]:
    """See Store.hot_runs."""
    where = f"{unfinished()} AND wake_at = 0 AND id > ?"
    sql = f"SELECT id FROM runs INDEXED BY runs_open WHERE {where} ORDER BY id LIMIT ?"
    return Question(sql, (after, limit), _ids)


def unfinished_functions(after: str, limit: int) -> Question[list[tuple[str, str, str]]]:
    """See Store.unfinished_functions."""
    where = f"{unfinished()} AND id > ?"
    sql = f"SELECT id, app, function_id FROM runs INDEXED BY runs_unfinished WHERE {where} ORDER BY id LIMIT ?"
    return Question(sql, (after, limit), lambda found: [(id_, app, function_id) for id_, app, function_id in found])


def due_runs(until: float, limit: int) -> Question[list[str]]:
    """See Store.due_runs."""
    where = f"{unfinished()} AND wake_at > 0 AND wake_at <= ?"
    sql = f"SELECT id FROM runs INDEXED BY runs_open WHERE {where} ORDER BY wake_at, id LIMIT ?"
    return Question(sql, (until, limit), _ids)


def next_wake(after: float) -> Question[float | None]:
    """See Store.next_wake."""
    sql = f"SELECT min(wake_at) FROM runs INDEXED BY runs_open WHERE {unfinished()} AND wake_at > ?"
    return Question(sql, (after,), _time)


def known_event(key: EventKey, since: float) -> Question[list[Event]]:
    """Ask for the newest event with a key; see Store.known_events."""
    apps, id_ = key
    where = "id = ? AND apps = ? AND received_at >= ?"
    sql = f"SELECT {KNOWN_EVENT} FROM events e WHERE {where} ORDER BY position DESC LIMIT 1"
    return Question(sql, (id_, rows.dump_apps(apps), since), _events)


def event_scopes() -> Question[set[tuple[str, ...]]]:
    """Ask whom events reach: each set of apps once."""
    return Question(distinct("apps", "events"), (), lambda found: {rows.to_apps(apps) for (apps,) in found})


def find_events(
    scopes: Sequence[Sequence[str]], name: str, after: int, limit: int, most_bytes: int
) -> Question[list[Event]]:
    """See Store.find_events; `scopes` are the sets of apps whose events reach the app, one at least."""
    its, values = _page_of_events("position, length(data) AS size", scopes, name, after, limit)
    sql = f"SELECT {EVENT} FROM ({within('position', its)}) AS page CROSS JOIN events e ON e.position = page.position"
    return Question(f"{sql} WHERE page.ahead < ? ORDER BY e.position", [*values, most_bytes], _events)


def find_positions(scopes: Sequence[Sequence[str]], name: str, after: int, limit: int) -> Question[list[int]]:
    """See Store.find_positions; and `find_events` for `scopes`."""
    its, values = _page_of_events("position", scopes, name, after, limit)
    return Question(its, values, lambda found: [position for (position,) in found])


def _page_of_events(
    what: str, scopes: Sequence[Sequence[str]], name: str, after: int, limit: int
) -> tuple[str, list[Any]]:
    """Select a page of events by one range of the index for each set of apps, with the values."""
    order = "ORDER BY position LIMIT ?"
    one = f"SELECT {what} FROM events INDEXED BY events_reach WHERE apps = ? AND name = ? AND position > ? {order}"
    parts = [(one, [rows.dump_apps(apps), name, after, limit]) for apps in scopes]
    while len(parts) > 1:
        joined = []
        for at in range(0, len(parts), MOST_PARTS):
            group = parts[at : at + MOST_PARTS]
            each = " UNION ALL ".join(f"SELECT * FROM ({sql}) AS part{number}" for number, (sql, _) in enumerate(group))
            values = [value for _, its in group for value in its]
            joined.append((f"SELECT * FROM ({each}) AS parts {order}", [*values, limit]))
        parts = joined
    return parts[0]


def told() -> Question[int]:
    """Ask up to which event all waits were told."""
    return Question("SELECT coalesce(max(position), 0) FROM marks WHERE name = ?", (rows.TOLD,), _number)


def wait_names(after: str, limit: int) -> Question[list[str]]:
    """See Store.wait_names."""
    return Question(distinct("event_name", "waits", behind="event_name > ?", limited=True), (after, limit), _ids)


def aged_events(after: int, limit: int) -> Question[list[AgedEvent]]:
    """See Store.aged_events."""

    def read(found: Iterable[rows.Row]) -> list[AgedEvent]:
        events: list[AgedEvent] = []
        for event, its_runs in groupby(found, key=lambda row: tuple(row[:3])):
            position, received_at, newest = event
            runs = [
                AgedRun(id_, ended_at if RunState(state).ended else None, bool(awaited), steps or 0)
                for *_, id_, state, ended_at, awaited, steps in its_runs
                if id_ is not None
            ]
            events.append(AgedEvent(position, received_at, bool(newest), runs))
        return events

    return Question(AGED_EVENTS, (after, limit), read)


def wait_apps(event_name: str) -> Question[list[str]]:
    """See Store.wait_apps."""
    return Question(distinct("app", "waits", "event_name = ?"), (event_name, event_name), _ids)


def wait_paths(event_name: str, app: str, after: str | None, limit: int) -> Question[list[str]]:
    """See Store.wait_paths."""
    behind = "" if after is None else "paths > ?"
    sql = distinct("paths", "waits", "event_name = ? AND app = ?", behind=behind, limited=True)
    start = () if after is None else (after,)
    return Question(sql, (event_name, app, *start, event_name, app, limit), _ids)


def find_waits(
    event_name: str, app: str, paths: str, match: str, after: tuple[str, StepKey | None] | None, limit: int
) -> Question[list[Wait]]:
    """See Store.find_waits."""
    where = "event_name = ? AND app = ? AND paths = ? AND match = ?"
    start: tuple[Any, ...] = ()
    match after:
        case (run_id, None):
            where, start = f"{where} AND run_id > ?", (run_id,)
        case (run_id, key):
            where, start = f"{where} AND (run_id, step_id, step_index) > (?, ?, ?)", (run_id, *key)
    sql = f"SELECT {WAIT} FROM waits WHERE {where} ORDER BY run_id, step_id, step_index LIMIT ?"
    return Question(sql, (event_name, app, paths, match, *start, limit), _waits)


def ended_children(limit: int, most_bytes: int) -> Question[list[Run]]:
    """See Store.ended_children."""
    sql = f"SELECT {ITS_NAME}, {RUN} FROM ({within('id', ENDED_CHILDREN)}) AS page CROSS JOIN runs r ON r.id = page.id"
    return Question(f"{sql} {ITS_EVENT} WHERE page.ahead < ? ORDER BY r.id", (limit, most_bytes), _runs)


def orphans(limit: int) -> Question[list[str]]:
    """See Store.orphans."""
    return Question(ORPHANS, (limit,), _ids)


def get_failed_attempts(
    run_id: str, first_number: int, last_number: int, most_bytes: int
) -> Question[list[FailedAttempt]]:
    """See Store.get_failed_attempts."""
    found, its = columns(rows.FAILED_ATTEMPT, "a."), "a.run_id = ? AND a.step_number = page.step_number"
    sql = f"SELECT {found} FROM ({ATTEMPTS_WITHIN}) AS page CROSS JOIN failed_attempts a ON {its}"
    order = "WHERE page.ahead < ? ORDER BY a.step_number, a.number, a.fence"
    values = (run_id, first_number, last_number, run_id, most_bytes)
    return Question(f"{sql} {order}", values, lambda found: [rows.to_failed_attempt(row) for row in found])


def count_steps(run_id: str) -> Question[dict[StepState, int]]:
    """Ask for the number of a run's steps by state."""
    sql = "SELECT state, count(*) FROM steps WHERE run_id = ? GROUP BY state"
    return Question(sql, (run_id,), lambda found: {StepState(state): count for state, count in found})


def list_runs(where: RunFilter, before_id: str, limit: int, most_bytes: int) -> Question[list[Run]]:
    """See Store.list_runs."""
    texts: list[str] = []
    values: list[Any] = []
    for index, implied in _indices(where):
        conditions = _conditions(where, before_id, by_app=index.endswith(("runs_app", "runs_function")))
        wanted = " AND ".join([implied, *(condition for condition, _ in conditions)])
        texts.append(
            f"SELECT r.id, {FAILURE_SIZE} AS size FROM runs r {index} WHERE {wanted} ORDER BY r.id DESC LIMIT ?"
        )
        values += [value for _, given in conditions for value in given]
        values.append(limit)
    page = texts[0]
    if len(texts) > 1:
        each = " UNION ALL ".join(f"SELECT id, size FROM ({text}) AS part{number}" for number, text in enumerate(texts))
        page = f"SELECT id, size FROM ({each}) AS parts ORDER BY id DESC LIMIT ?"
        values.append(limit)
    run = columns(rows.RUN, "r.", {"output"})
    found = f"({within('id', page, ' DESC')}) AS page CROSS JOIN runs r ON r.id = page.id"
    sql = f"SELECT {ITS_NAME}, {run} FROM {found} {ITS_EVENT}"
    return Question(f"{sql} WHERE page.ahead < ? ORDER BY r.id DESC", [*values, most_bytes], _runs)


def _conditions(where: RunFilter, before_id: str, *, by_app: bool) -> list[tuple[str, Sequence[Any]]]:
    """Give what must hold of a run, with the values; `by_app` says whether an index is meant to look its app up."""
    conditions: list[tuple[str, Sequence[Any]]] = []
    if before_id:
        conditions.append(("r.id < ?", (before_id,)))
    if where.app:
        column = "r.app" if by_app else "+r.app"  # "+": an app has too many runs to look for it by another index
        conditions.append((f"{column} = ?", (where.app,)))
    if where.function_id:
        conditions.append(("r.function_id = ?", (where.function_id,)))
    if where.states:
        states = sorted({int(state) for state in where.states})
        conditions.append((f"r.state IN ({', '.join('?' * len(states))})", states))
    if where.event_id:
        conditions.append(("r.event_position IN (SELECT position FROM events WHERE id = ?)", (where.event_id,)))
    if where.parent_run_id:
        conditions.append(("r.parent_run_id = ?", (where.parent_run_id,)))
    # An id begins with the millisecond of its run's creation: the index goes straight to a time.
    if where.created_after is not None:
        conditions.append(("r.id >= ?", (ids.first_run_id(where.created_after),)))
        conditions.append(("r.created_at >= ?", (where.created_after,)))
    if where.created_before is not None:
        conditions.append(("r.id < ?", (ids.first_run_id(where.created_before + 0.002),)))
        conditions.append(("r.created_at < ?", (where.created_before,)))
    return conditions


def _indices(where: RunFilter) -> Sequence[tuple[str, str]]:
    """Choose the index that leaves the fewest runs to look at, and the condition that a partial one asks for.

    There are no statistics for SQLite to choose by, and it must not walk through all succeeded runs for a failed one.
    Of several each gives a page of its own.
    """
    states = set(where.states)
    if where.parent_run_id:
        return [("INDEXED BY runs_parent", "r.parent_run_id <> ''")]
    if where.event_id:
        return [("INDEXED BY runs_event", "true")]
    if states and RunState.SUCCEEDED not in states:
        going = [("INDEXED BY runs_unfinished", unfinished("r."))] * any(not state.ended for state in states)
        failed = [("INDEXED BY runs_failed", without_success("r."))] * any(state.ended for state in states)
        return going + failed
    if where.app:
        return [(f"INDEXED BY {'runs_function' if where.function_id else 'runs_app'}", "true")]
    if where.function_id:
        return [("INDEXED BY runs_function_id", "true")]
    return [("", "true")]
