"""Where the executor's state lies: a few methods and several real forms, which all pass one suite."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stepwire_core.commands import Wait, Writes
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


class StoreError(Exception):
    """The store failed.

    After a commit that raised this its outcome is unknown: act on nothing, open the store anew, load the state again.
    """


class StoreUnusableError(StoreError):
    """The store can't be opened, and trying again won't help: not a database, damaged, read-only, in use, too new."""


class StoreAwayError(StoreError):
    """The store can't be had just now, and may be later without anybody's doing: its database can't be reached."""


class StoreTakenError(StoreAwayError):
    """Another executor has the store; this one stands by."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What the store held when it was opened. `epoch` is greater than at every opening before; that is durable."""

    epoch: int
    functions: Sequence[Function]
    last_position: int
    """Position of the newest event; 0 if there is none."""
    told: int = 0
    """See Writes.told; 0 if nothing was written yet."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; all that is set must hold. Times in Unix seconds, `after` included, `before` not."""

    app: str = ""
    function_id: str = ""
    states: Sequence[RunState] = ()
    event_id: str = ""
    parent_run_id: str = ""
    created_after: float | None = None
    created_before: float | None = None


@dataclass(frozen=True, slots=True)
class AgedRun:
    """What tells whether a run may be removed."""

    id: str
    ended_at: float | None
    """Unix seconds; None while it has not ended."""
    awaited: bool
    """Whether a step of an unfinished run waits for it, and has still to be told how it ended."""
    steps: int
    """No step of it has a greater number."""


@dataclass(frozen=True, slots=True)
class AgedEvent:
    """What tells whether an event may be removed; `received_at` in Unix seconds."""

    position: int
    received_at: float
    newest: bool
    runs: Sequence[AgedRun]
    """Those that it started and that are still there, by id."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Rows to remove. Runs must have no steps left, and events no runs; what is not there is no fault."""

    steps: Sequence[tuple[str, int]] = ()
    """By run id and number; their failed attempts go with them."""
    runs: Sequence[str] = ()
    events: Sequence[int] = ()
    """By position."""


class Store(Protocol):
    """The executor's store. All methods may raise StoreError; none is called before `open` or after `close`."""

    async def open(self) -> Opened:
        """Bring the schema up to date, take the store for this process alone, and raise the epoch."""

    async def close(self) -> None:
        """Let go of everything; may be called again."""

    async def shrink(self) -> None:
        """Give back memory that is only kept so that reads are faster. Raises StoreError."""

    async def confirm(self) -> None:
        """Return if nobody else can have taken the store by now. Costs next to nothing; called before each decision."""

    def read_ahead(self, writes: Writes) -> Iterator[None]:
        """Read the rows of a large batch in pieces, between which others may have turns; `commit` takes it next.

        Nothing that is to be written may change before that.
        """

    def commit(self, writes: Writes) -> Awaitable[None]:
        """Write everything in one transaction, durable when that has been awaited. Reads the rows when it is called."""

    async def remove(self, removal: Removal) -> None:
        """Remove everything in one transaction, durable on return. After a failure nothing but `close` is of use."""

    async def aged_events(self, after: int, limit: int) -> list[AgedEvent]:
        """Give events with a greater position, in order, with the runs that each has started."""

    async def load_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """Give those of these runs that have not ended, whole, with their steps and journals."""

    async def hot_runs(self, after: str, limit: int) -> list[str]:
        """Give ids greater than `after`, in order, of runs that have not ended and whose `wake_at` is 0."""

    async def unfinished_functions(self, after: str, limit: int) -> list[tuple[str, str, str]]:
        """Give runs that have not ended, with ids greater than `after`, in order: id, app and function id."""

    async def due_runs(self, until: float, limit: int) -> list[str]:
        """Give ids of runs that have not ended with 0 < `wake_at` <= until, the earliest first."""

    async def next_wake(self, after: float) -> float | None:
        """Give the earliest `wake_at` greater than `after`, at least 0, of a run that has not ended."""

    async def known_events(self, keys: Sequence[EventKey], since: float) -> dict[EventKey, Event]:
        """Give the newest event for each of these keys that was received at or after `since`, without its data.

        `since` is in Unix seconds.
        """

    async def find_events(self, name: str, app: str, after: int, limit: int, most_bytes: int) -> list[Event]:
        """Give events with this name that reach an app, behind `after`, in order.

        No more come once they have `most_bytes` of data. Costs no more however many there are that reach others only.
        """

    async def find_positions(self, name: str, app: str, after: int, limit: int) -> list[int]:
        """Give the positions of events as `find_events` does; their data is not read."""

    async def wait_names(self, after: str, limit: int) -> list[str]:
        """Give the distinct event names greater than `after` that are waited for, in order."""

    async def wait_apps(self, event_name: str) -> list[str]:
        """Give the apps of the waits for this event, in order; costs little however many waits there are."""

    async def wait_paths(self, event_name: str, app: str, after: str | None, limit: int) -> list[str]:
        """Give the distinct `Wait.paths` of an app's waits for this event in order, from behind `after`.

        Costs little however many waits there are.
        """

    async def find_waits(
        self, event_name: str, app: str, paths: str, match: str, after: tuple[str, StepKey | None] | None, limit: int
    ) -> list[Wait]:
        """Give waits with exactly these values in the order of run id and step key, from behind `after`.

        Without a step key that is behind all waits of a run.
        """

    async def ended_children(self, limit: int, most_bytes: int) -> list[Run]:
        """Give ended runs whose parent's step still waits for them, and no more once they have `most_bytes`.

        They come without steps and without what their events hold (see `list_runs`); what weighs are outputs and
        failures, as stored.
        """

    async def orphans(self, limit: int) -> list[str]:
        """Give ids of runs that have not ended though their parent has, or though their parent's step has ended."""

    async def get_run(self, run_id: str) -> Run | None:
        """Give a run, ended or not, without its steps."""

    async def get_steps(
        self, run_id: str, after_number: int, limit: int, most_bytes: int, *, outputs: bool = True
    ) -> list[Step]:
        """Give a run's steps in the order of their numbers, from behind `after_number`, none once there are many bytes.

        What weighs are inputs, outputs and failures, as stored. Without `outputs` neither is `event_position` read.
        """

    async def get_failed_attempts(
        self, run_id: str, first_number: int, last_number: int, most_bytes: int
    ) -> list[FailedAttempt]:
        """Give the failed attempts of the steps with these numbers (both included), by step and attempt.

        All of a step or none, and of no further step once there are `most_bytes` of failures, as stored.
        """

    async def count_steps(self, run_ids: Sequence[str]) -> dict[str, dict[StepState, int]]:
        """Count the steps of each of these runs by state; a run without steps is left out."""

    async def list_runs(self, where: RunFilter, before_id: str, limit: int, most_bytes: int) -> list[Run]:
        """Give runs, newest (greatest id) first, with ids below `before_id` (empty: from the newest).

        They come without steps and outputs, and their events without data, what they started and whom they reach. There
        are no more once they have `most_bytes` of failures, as stored: nothing else of them is large.
        """
