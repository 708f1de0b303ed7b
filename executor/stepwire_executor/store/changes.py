"""What a batch of writes changes in a database: table by table, as data, with all values read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

from stepwire_core.commands import Writes
from stepwire_executor.store import Removal, rows


class Verb(Enum):
    """What is done to rows."""

    ADD = auto()
    """Fails if the key is there."""
    PUT = auto()
    """Replaces the row with this key, if there is one."""
    CHANGE = auto()
    """Fails if the key is not there."""
    REMOVE = auto()
    """Removes the rows with this key, if there are any."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """Rows of a table that are treated alike. They have values for `columns`, and are found by those of `key`.

    Statements are kept by kind, so there is one object for each.
    """

    verb: Verb
    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()


EVENTS = Kind(Verb.ADD, "events", rows.EVENT)
RUNS = Kind(Verb.ADD, "runs", rows.RUN)
CHANGED_RUNS = Kind(Verb.CHANGE, "runs", rows.RUN_CHANGING + rows.RUN_KEY, rows.RUN_KEY)
STEPS = Kind(Verb.ADD, "steps", rows.STEP)
CHANGED_STEPS = Kind(Verb.CHANGE, "steps", rows.STEP_CHANGING + rows.STEP_KEY, rows.STEP_KEY)
FAILED_ATTEMPTS = Kind(Verb.ADD, "failed_attempts", rows.FAILED_ATTEMPT)
FUNCTIONS = Kind(Verb.PUT, "functions", rows.FUNCTION, rows.FUNCTION_KEY)
FORGOTTEN_FUNCTIONS = Kind(Verb.REMOVE, "functions", rows.FUNCTION_KEY, rows.FUNCTION_KEY)
WAITS = Kind(Verb.ADD, "waits", rows.WAIT)
ENDED_WAITS = Kind(Verb.REMOVE, "waits", rows.WAIT_KEY, rows.WAIT_KEY)
MARKS = Kind(Verb.PUT, "marks", rows.MARK, rows.MARK_KEY)
REMOVED_ATTEMPTS = Kind(Verb.REMOVE, "failed_attempts", rows.STEP_OF_ATTEMPT, rows.STEP_OF_ATTEMPT)
REMOVED_STEPS = Kind(Verb.REMOVE, "steps", rows.STEP_KEY, rows.STEP_KEY)
REMOVED_WAITS = Kind(Verb.REMOVE, "waits", rows.RUN_OF_WAIT, rows.RUN_OF_WAIT)
REMOVED_RUNS = Kind(Verb.REMOVE, "runs", rows.RUN_KEY, rows.RUN_KEY)
REMOVED_EVENTS = Kind(Verb.REMOVE, "events", rows.EVENT_KEY, rows.EVENT_KEY)

Change = tuple[Kind, list[rows.Row]]

ROWS_A_PIECE = 500
"""Some milliseconds' work."""


def changes(writes: Writes) -> list[Change]:
    """Give what to do, in this order. Later changes of runs and steps don't show in it."""
    return [(kind, found) for kind, its_rows in reading(writes) if (found := list(its_rows))]


def in_pieces(writes: Writes, found: list[Change]) -> Iterator[None]:
    """Add what to do to a list, as `changes` gives it, with a break after so many rows."""
    for kind, its_rows in reading(writes):
        read: list[rows.Row] = []
        while piece := list(islice(its_rows, ROWS_A_PIECE)):
            read += piece
            yield
        if read:
            found.append((kind, read))


def reading(writes: Writes) -> Iterator[tuple[Kind, Iterator[rows.Row]]]:
    """Give what to do, in this order, with rows that are read when they are taken. Most batches have few kinds."""
    new_runs, new_steps = writes.new_runs, writes.new_steps
    if writes.events:
        yield EVENTS, map(rows.from_event, writes.events)
    if new_runs:
        yield RUNS, map(rows.from_run, new_runs.values())
    if writes.runs:
        yield CHANGED_RUNS, (rows.run_changes(run) for id_, run in writes.runs.items() if id_ not in new_runs)
    if new_steps:
        yield STEPS, (rows.from_step(id_, step) for (id_, _), step in new_steps.items())
    if writes.steps:
        changed = writes.steps.items()
        yield CHANGED_STEPS, (rows.step_changes(at[0], step) for at, step in changed if at not in new_steps)
    if writes.failed_attempts:
        yield FAILED_ATTEMPTS, map(rows.from_failed_attempt, writes.failed_attempts)
    if writes.functions:
        functions = {function.key: function for function in writes.functions}
        yield FUNCTIONS, map(rows.from_function, functions.values())
    if writes.forgotten:
        yield FORGOTTEN_FUNCTIONS, iter(writes.forgotten)
    if writes.new_waits:
        yield WAITS, map(rows.from_wait, writes.new_waits.values())
    if writes.ended_waits:
        yield ENDED_WAITS, ((run_id, *key) for run_id, key in writes.ended_waits)
    if writes.told:
        yield MARKS, iter([(rows.TOLD, writes.told)])


def removals(removal: Removal) -> list[Change]:
    """Give what to remove, in this order: what refers to something goes before it."""
    steps, runs = [*removal.steps], [(id_,) for id_ in removal.runs]
    everything: Sequence[Change] = [
        (REMOVED_ATTEMPTS, [*steps]),
        (REMOVED_STEPS, [*steps]),
        (REMOVED_WAITS, [*runs]),
        (REMOVED_RUNS, [*runs]),
        (REMOVED_EVENTS, [(position,) for position in removal.events]),
    ]
    return [change for change in everything if change[1]]
