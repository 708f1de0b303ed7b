"""What a batch needs of the store before it is decided: runs that sleep there, and events that were sent before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from stepwire_core.decide import SENDS, sent_events, touched_runs
from stepwire_core.inputs import Input, RunsLoaded
from stepwire_core.model import Now, Run
from stepwire_core.state import State
from stepwire_executor.event_index import PAGE
from stepwire_executor.store import Store

WAKE_AHEAD, WOKEN_TOGETHER = 4.0, 1.0
"""Seconds before a run is due from which on it is brought into memory, where a timer wakes it in time, and within which
others come with it: each such load waits for the commit that runs. Fewer than a run may sleep in memory anyway."""
EVENT_ID_WINDOW = 24 * 3600.0
"""Seconds for which an event's id makes it once only."""


class Loading:
    """See the module. It knows when the next run is due that sleeps in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next_wake: float | None = None

    async def begin(self) -> None:
        """Begin with a store that has been opened."""
        self._next_wake = await self._store.next_wake(0.0)

    def falls_asleep(self, run: Run) -> None:
        """Note that a run leaves the memory."""
        if run.wake_at is not None:
            self._next_wake = min(run.wake_at, self._next_wake or run.wake_at)

    def until_due(self, now: Now) -> float | None:
        """Give the seconds until a run is to be brought in; None if none sleeps until some time."""
        return None if self._next_wake is None else max(0.0, self._next_wake - WAKE_AHEAD - now.wall)

    async def load(
        self, batch: Sequence[Input], state: State, now: Now, make_durable: Callable[[], Awaitable[None]]
    ) -> list[Input]:
        """Return a batch with what it needs: runs that it is about, or that are due, and events that were sent before.

        `make_durable` is awaited before runs are read: what the store has is then what the state rests on.
        """
        missing = [run_id for run_id in touched_runs(batch) if run_id not in state.runs]
        due = self._next_wake is not None and self._next_wake <= now.wall + WAKE_AHEAD
        if missing or due:
            await make_durable()
        if due:
            until = now.wall + WAKE_AHEAD + WOKEN_TOGETHER
            sleepers = await self._store.due_runs(until, PAGE)
            missing += sleepers
            if len(sleepers) < PAGE:
                self._next_wake = await self._store.next_wake(until)
        loaded: list[Input] = []
        if missing:
            loaded.append(RunsLoaded(await self._store.load_runs(missing)))
        sent = sent_events(batch)
        if sent:
            known = await self._store.known_events(sent, now.wall - EVENT_ID_WINDOW)
            batch = [replace(each, known=known) if isinstance(each, SENDS) else each for each in batch]
        return [*loaded, *batch]
