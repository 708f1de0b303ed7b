"""What is read from SQLite: each query of the store as a function on a connection, for the store's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from stepwire_executor.core.commands import Wait
from stepwire_executor.core.model import (
    Event,
    FailedAttempt,
    Function,
    Run,
    RunState,
    Step,
    StepKey,
    StepState,
    restore,
)
from stepwire_executor.store import RunFilter, rows

EVENT = ", ".join(f"e.{name}" for name in rows.EVENT)
RUN = ", ".join(f"r.{name}" for name in rows.RUN)
STEP = ", ".join(rows.STEP)
WAIT = ", ".join(rows.WAIT)
RUN_AND_EVENT = f"SELECT {EVENT}, {RUN} FROM runs r"
ITS_EVENT = "CROSS JOIN events e ON e.position = r.event_position"
EVENT_WIDTH = len(rows.EVENT)

WAIT_PATHS = """
WITH RECURSIVE found (paths) AS (
    SELECT min(paths) FROM waits WHERE event_name = :event_name
    UNION ALL
    SELECT (SELECT min(paths) FROM waits WHERE event_name = :event_name AND paths > found.paths)
    FROM found WHERE paths IS NOT NULL
)
SELECT paths FROM found WHERE paths IS NOT NULL
"""
"""Jumps from each value to the next in the index, so that a million equal waits cost one step."""

ENDED_CHILDREN = f"""
{RUN_AND_EVENT} {ITS_EVENT} WHERE r.id IN (
    SELECT child.id FROM steps s INDEXED BY steps_child
    CROSS JOIN runs child ON child.id = s.child_run_id
    CROSS JOIN runs parent ON parent.id = s.run_id
    WHERE s.state = 3 AND s.child_run_id <> '' AND child.state >= 3 AND parent.state < 3
) ORDER BY r.id LIMIT ?
"""

ORPHANS = """
SELECT r.id FROM runs r INDEXED BY runs_open
WHERE r.state < 3 AND r.parent_run_id <> '' AND NOT EXISTS (
    SELECT 1 FROM steps s INDEXED BY steps_child
    CROSS JOIN runs parent ON parent.id = s.run_id
    WHERE s.child_run_id = r.id AND s.child_run_id <> '' AND s.state = 3 AND parent.state < 3
) ORDER BY r.id LIMIT ?
"""
"""A step that invokes waits until it ends, so a child that no step waits for has been given up."""

Connection = sqlite3.Connection


def functions(connection: Connection) -> list[Function]:
    """Give all functions, by app and id."""
    query = f"SELECT {', '.join(rows.FUNCTION)} FROM functions ORDER BY app, function_id"
    return [rows.to_function(row) for row in connection.execute(query)]


def last_position(connection: Connection) -> int:
    """Give the newest event's position; 0 if there is none."""
    (position,) = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    return int(position)


def _run(row: Sequence[Any]) -> Run:
    return rows.to_run(row[EVENT_WIDTH:], rows.to_event(row[:EVENT_WIDTH]))


def get_run(connection: Connection, run_id: str) -> Run | None:
    """See Store.get_run."""
    row = connection.execute(f"{RUN_AND_EVENT} {ITS_EVENT} WHERE r.id = ?", (run_id,)).fetchone()
    return _run(row) if row else None


def load_runs(connection: Connection, run_ids: Iterable[str]) -> list[Run]:
    """See Store.load_runs."""
    found = []
    for run_id in dict.fromkeys(run_ids):
        run = get_run(connection, run_id)
        if run is not None and not run.state.ended:
            found.append(restore(run, get_steps(connection, run_id, 0, -1)))
    return found


def get_steps(connection: Connection, run_id: str, after_number: int, limit: int) -> list[Step]:
    """See Store.get_steps; a negative limit means none."""
    query = f"SELECT {STEP} FROM steps WHERE run_id = ? AND number > ? ORDER BY number LIMIT ?"
    return [rows.to_step(row) for row in connection.execute(query, (run_id, after_number, limit))]


def hot_runs(connection: Connection, after: str, limit: int) -> list[str]:
    """See Store.hot_runs."""
    query = "SELECT id FROM runs INDEXED BY runs_open WHERE state < 3 AND wake_at = 0 AND id > ? ORDER BY id LIMIT ?"
    return [id_ for (id_,) in connection.execute(query, (after, limit))]


def due_runs(connection: Connection, until: float, limit: int) -> list[str]:
    """See Store.due_runs."""
    where = "state < 3 AND wake_at > 0 AND wake_at <= ?"
    query = f"SELECT id FROM runs INDEXED BY runs_open WHERE {where} ORDER BY wake_at, id LIMIT ?"
    return [id_ for (id_,) in connection.execute(query, (until, limit))]


def next_wake(connection: Connection) -> float | None:
    """See Store.next_wake."""
    query = "SELECT min(wake_at) FROM runs INDEXED BY runs_open WHERE state < 3 AND wake_at > 0"
    (wake_at,) = connection.execute(query).fetchone()
    return None if wake_at is None else float(wake_at)


def known_events(connection: Connection, event_ids: Iterable[str], since: float) -> dict[str, Event]:
    """See Store.known_events."""
    query = f"SELECT {EVENT} FROM events e WHERE id = ? AND received_at >= ? ORDER BY position DESC LIMIT 1"
    cursor = connection.cursor()
    found = {}
    for event_id in event_ids:
        row = cursor.execute(query, (event_id, since)).fetchone()
        if row:
            found[event_id] = rows.to_event(row)
    return found


def find_events(connection: Connection, name: str, after: int, limit: int) -> list[Event]:
    """See Store.find_events."""
    query = f"SELECT {EVENT} FROM events e WHERE name = ? AND position > ? ORDER BY position LIMIT ?"
    return [rows.to_event(row) for row in connection.execute(query, (name, after, limit))]


def wait_paths(connection: Connection, event_name: str) -> list[str]:
    """See Store.wait_paths."""
    return [paths for (paths,) in connection.execute(WAIT_PATHS, {"event_name": event_name})]


def find_waits(connection: Connection, event_name: str, paths: str, match: str, limit: int) -> list[Wait]:
    """See Store.find_waits."""
    where = "event_name = ? AND paths = ? AND match = ?"
    query = f"SELECT {WAIT} FROM waits WHERE {where} ORDER BY run_id, step_id, step_index LIMIT ?"
    return [rows.to_wait(row) for row in connection.execute(query, (event_name, paths, match, limit))]


def waits(connection: Connection, after: tuple[str, StepKey] | None, limit: int) -> list[Wait]:
    """See Store.waits."""
    start = ("", "", -1) if after is None else (after[0], *after[1])
    where = "(run_id, step_id, step_index) > (?, ?, ?)"
    query = f"SELECT {WAIT} FROM waits WHERE {where} ORDER BY run_id, step_id, step_index LIMIT ?"
    return [rows.to_wait(row) for row in connection.execute(query, (*start, limit))]


def ended_children(connection: Connection, limit: int) -> list[Run]:
    """See Store.ended_children."""
    return [_run(row) for row in connection.execute(ENDED_CHILDREN, (limit,))]


def orphans(connection: Connection, limit: int) -> list[str]:
    """See Store.orphans."""
    return [id_ for (id_,) in connection.execute(ORPHANS, (limit,))]


def get_failed_attempts(
    connection: Connection, run_id: str, first_number: int, last_number: int
) -> list[FailedAttempt]:
    """See Store.get_failed_attempts."""
    columns = ", ".join(rows.FAILED_ATTEMPT)
    where = "run_id = ? AND step_number BETWEEN ? AND ?"
    query = f"SELECT {columns} FROM failed_attempts WHERE {where} ORDER BY step_number, number, fence"
    return [rows.to_failed_attempt(row) for row in connection.execute(query, (run_id, first_number, last_number))]


def count_steps(connection: Connection, run_id: str) -> dict[StepState, int]:
    """See Store.count_steps."""
    query = "SELECT state, count(*) FROM steps WHERE run_id = ? GROUP BY state"
    return {StepState(state): count for state, count in connection.execute(query, (run_id,))}


def list_runs(connection: Connection, where: RunFilter, before_id: str, limit: int) -> list[Run]:
    """See Store.list_runs."""
    conditions: list[tuple[str, Sequence[Any]]] = []
    if before_id:
        conditions.append(("r.id < ?", (before_id,)))
    if where.app:
        column = "r.app" if where.function_id else "+r.app"  # "+": an app has too many runs to look for it by an index
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
    if where.created_after is not None:
        conditions.append(("r.created_at >= ?", (where.created_after,)))
    if where.created_before is not None:
        conditions.append(("r.created_at < ?", (where.created_before,)))
    index, implied = _index(where)
    wanted = " AND ".join([implied, *(condition for condition, _ in conditions)])
    ids = f"SELECT r.id FROM runs r {index} WHERE {wanted} ORDER BY r.id DESC LIMIT ?"
    query = f"{RUN_AND_EVENT} {ITS_EVENT} WHERE r.id IN ({ids}) ORDER BY r.id DESC"
    values = [value for _, given in conditions for value in given]
    return [_run(row) for row in connection.execute(query, (*values, limit))]


def _index(where: RunFilter) -> tuple[str, str]:
    """Choose the index that leaves the fewest runs to look at, and the condition that a partial one asks for.

    There are no statistics for SQLite to choose by, and it must not walk through all succeeded runs for a failed one.
    """
    states = set(where.states)
    if where.parent_run_id:
        return "INDEXED BY runs_parent", "r.parent_run_id <> ''"
    if where.event_id:
        return "INDEXED BY runs_event", "1"
    if states and states <= {RunState.FAILED, RunState.CANCELLED}:
        return "INDEXED BY runs_failed", "r.state > 3"
    if states and not any(state.ended for state in states):
        return "INDEXED BY runs_open", "r.state < 3"
    if where.app and where.function_id:
        return "INDEXED BY runs_function", "1"
    return "", "1"
