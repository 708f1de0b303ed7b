"""How rows become statements of SQLite: few, as whoever executes one lets others run meanwhile and waits for its turn.

A statement for each row would take a hundred times as long while the loop is busy. What many rows share is given once:
SQLite takes 0.2 us for each value, and most columns of steps that are written together are alike.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any

from stepwire_executor.store import rows
from stepwire_executor.store.changes import Kind, Verb

SIZES = (256, 64, 16, 4, 1)
"""Rows that one statement may have."""
SHARING = 16
"""Rows of the smallest statement for which it is looked at what they share."""
MOST_FORMS = 8
"""Sets of columns that vary, of each kind of rows, for which statements are made."""
CACHED_STATEMENTS = 256
"""More than the statements of all kinds, forms and sizes that there are."""
MOST_BYTES = 1 << 20
BLOBS = {"data", "input", "output"}
"""Columns whose values may be large."""

Columns = tuple[int, ...]
"""Some of a kind's columns, by their places."""
_forms: dict[Kind, list[Columns]] = {}


def write(connection: sqlite3.Connection, kind: Kind, values: Sequence[rows.Row]) -> int:
    """Write rows of a kind, with as few statements as there are sizes for; gives how many were written."""
    written = 0
    whole = all_of(kind)
    for part in parts(kind, values):
        varying, shared, own = parted(kind, part) if len(part) >= SHARING else (whole, [], part)
        at = 0
        for size in SIZES:
            if size < SHARING:
                varying, shared, own = whole, [], part
            while len(part) - at >= size:
                parameters = [*shared, *chain.from_iterable(own[at : at + size])]
                written += connection.execute(sql_of(kind, size, varying), parameters).rowcount
                at += size
    return written


@cache
def all_of(kind: Kind) -> Columns:
    """Give all columns."""
    return tuple(range(len(kind.columns)))


@cache
def blobs_of(kind: Kind) -> Columns:
    """Give the columns whose values may be large."""
    return tuple(number for number, name in enumerate(kind.columns) if name in BLOBS)


def parts(kind: Kind, values: Sequence[rows.Row]) -> Iterator[Sequence[rows.Row]]:
    """Cut rows into parts of about `MOST_BYTES`: SQLite copies all values of a statement before it writes them."""
    blobs = blobs_of(kind) if len(values) > 1 else ()
    begun = size = 0
    for number, row in enumerate(values if blobs else (), 1):
        size += sum(len(row[blob] or b"") for blob in blobs)
        if size > MOST_BYTES:
            yield values[begun:number]
            begun, size = number, 0
    if begun < len(values):
        yield values[begun:]


def parted(kind: Kind, part: Sequence[rows.Row]) -> tuple[Columns, list[Any], Sequence[rows.Row]]:
    """Part rows into what they share and what they don't: which columns vary, the others' values, the rows' own."""
    columns = list(zip(*part, strict=True))
    vary = {number for number, column in enumerate(columns) if column.count(column[0]) < len(column)}
    varying = form(kind, vary or {0})
    shared = [column[0] for number, column in enumerate(columns) if number not in varying]
    return varying, shared, list(zip(*[columns[number] for number in varying], strict=True))


def form(kind: Kind, vary: set[int]) -> Columns:
    """Give the columns that a statement takes for each row, some more perhaps than those that vary.

    So there are few statements, however rows differ: making one takes longer than it saves the first time.
    """
    known = _forms.setdefault(kind, [])
    wanted = tuple(sorted(vary))
    if wanted not in known:
        if len(known) < MOST_FORMS:
            known.append(wanted)
        else:
            return min((each for each in (*known, all_of(kind)) if vary.issubset(each)), key=len)
    return wanted


@lru_cache(CACHED_STATEMENTS)
def sql_of(kind: Kind, count: int, varying: Columns) -> str:
    """Give the statement for so many rows of a kind, of which only some columns vary.

    Its parameters are first what the rows share, then for each row what varies. A change of several knows their columns
    by SQLite's own names.
    """
    shared = [name for number, name in enumerate(kind.columns) if number not in varying]
    own = [kind.columns[number] for number in varying]
    once = {name: f"?{number}" for number, name in enumerate(shared, 1)}
    numbers = iter(range(len(shared) + 1, len(shared) + 1 + count * len(own)))
    each = [{name: f"?{next(numbers)}" for name in own} for _ in range(count)]
    if kind.verb is Verb.CHANGE:
        named = once | {name: f"new.column{number}" for number, name in enumerate(own, 1)}
        changes = ", ".join(f"{name} = {named[name]}" for name in kind.columns if name not in kind.key)
        same = " AND ".join(f"{kind.table}.{name} = {named[name]}" for name in kind.key)
        values = ", ".join(f"({', '.join(row.values())})" for row in each)
        return f"UPDATE {kind.table} SET {changes} FROM (VALUES {values}) AS new WHERE {same}"
    if kind.verb is Verb.REMOVE:
        found = (" AND ".join(f"{name} = {value}" for name, value in (once | row).items()) for row in each)
        return f"DELETE FROM {kind.table} WHERE {' OR '.join(f'({one})' for one in found)}"
    values = ", ".join(f"({', '.join((once | row).values())})" for row in each)
    verb = "REPLACE" if kind.verb is Verb.PUT else "INSERT"
    return f"{verb} INTO {kind.table} ({', '.join(shared + own)}) VALUES {values}"
