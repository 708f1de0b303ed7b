"""Removes runs that ended long ago, with all that was theirs, in small transactions beside the work.

It goes along the events in their order, so that it has seen every older run when it comes to an event: what began
later can't have a smaller position. What it reads can't become wrong before it acts: an ended run stays ended, and
nobody who was told is told again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stepwire_executor.housekeeping import again_and_again
from stepwire_executor.loading import EVENT_ID_WINDOW
from stepwire_executor.ports import EngineHandle
from stepwire_executor.store import AgedEvent, AgedRun, Removal, Store

log = logging.getLogger("stepwire.executor")

EVENTS_A_LOOK = 200
ROWS_A_REMOVAL = 200
"""Events, runs and steps that go in one transaction: a few milliseconds."""
LEAST_PAUSE = 0.02
PAUSE_FACTOR = 4.0
"""How many times as long as the store was busy it is left alone: a slow one is not to do this only."""
LONGEST_REST = 600.0
"""Seconds between two sweeps; of a short retention a tenth."""
SHORTEST_REST = 1.0
FIRST_REST = 10.0
"""An executor that has just started has more to do."""


class Horizon(NamedTuple):
    """What is old, in Unix seconds: runs that ended before the first, events that were received before the second."""

    ended: float
    received: float


class Batch:
    """What is gathered for one transaction."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int]] = []
        self.runs: list[str] = []
        self.events: list[int] = []

    def __len__(self) -> int:
        return len(self.steps) + len(self.runs) + len(self.events)

    def taken(self) -> Removal:
        """Give what was gathered, and begin anew."""
        removal = Removal(self.steps, self.runs, self.events)
        self.steps, self.runs, self.events = [], [], []
        return removal


class Sweep:
    """One way along the events; pure. `look` is given pages of them, in order."""

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon
        self._unfinished = False
        """Whether a run was met that has not ended: it may yet wait for any event that is younger than its own."""

    def look(self, events: Sequence[AgedEvent]) -> Iterator[Removal]:
        """Give what to remove, in this order.

        A run goes in one transaction with its steps, but for one that is larger than a transaction should be: of that
        the last steps go first, and the run itself at the end.
        """
        batch = Batch()
        for event in events:
            old = [run for run in event.runs if self._is_old(run)]
            for run in old:
                if batch and len(batch) + run.steps >= ROWS_A_REMOVAL:
                    yield batch.taken()
                for number in range(run.steps, 0, -1):
                    batch.steps.append((run.id, number))
                    if len(batch) == ROWS_A_REMOVAL:
                        yield batch.taken()
                batch.runs.append(run.id)
            if len(old) == len(event.runs) and self._is_needless(event):
                batch.events.append(event.position)
            self._unfinished |= any(run.ended_at is None for run in event.runs)
            if len(batch) >= ROWS_A_REMOVAL:
                yield batch.taken()
        if batch:
            yield batch.taken()

    def is_over(self, events: Sequence[AgedEvent]) -> bool:
        """Say whether behind these events there are only such as have started nothing that is old."""
        return all(event.received_at >= self._horizon.ended for event in events)

    def _is_old(self, run: AgedRun) -> bool:
        return run.ended_at is not None and run.ended_at < self._horizon.ended and not run.awaited

    def _is_needless(self, event: AgedEvent) -> bool:
        """Say whether nobody needs an event without runs. The newest stays: positions go on from it after a restart."""
        return event.received_at < self._horizon.received and not event.newest and not self._unfinished


class Retention:
    """Sweeps again and again, while the engine works. `seconds` is how long runs are kept after their end."""

    def __init__(self, engine: EngineHandle, store: Store, seconds: float) -> None:
        self._engine = engine
        self._store = store
        self._seconds = seconds
        self._rest = min(LONGEST_REST, max(SHORTEST_REST, seconds / 10))

    async def run(self) -> None:
        """Run as long as the executor."""
        await again_and_again("removing old runs", self._sweep, min(FIRST_REST, self._rest), self._rest)

    async def _sweep(self) -> None:
        removed = await self.sweep()
        if removed:
            log.info("removed %d runs that ended more than %g s ago", removed, self._seconds)

    async def sweep(self) -> int:
        """Remove what is old now; gives the number of runs. Raises StoreError."""
        sweep, after, removed = Sweep(self._horizon()), 0, 0
        while not self._engine.failing:  # else the store is not ours, and the next sweep begins afresh
            begun = time.monotonic()
            events = await self._store.aged_events(after, EVENTS_A_LOOK)
            if sweep.is_over(events):
                break
            await self._leave_alone(begun)
            for removal in sweep.look(events):
                if self._engine.failing:
                    return removed
                begun = time.monotonic()
                await self._store.remove(removal)
                removed += len(removal.runs)
                await self._leave_alone(begun)
            after = events[-1].position
        return removed

    async def _leave_alone(self, begun: float) -> None:
        await asyncio.sleep(max(LEAST_PAUSE, PAUSE_FACTOR * (time.monotonic() - begun)))

    def _horizon(self) -> Horizon:
        """Give what is old. A clock that was set forward makes nothing older."""
        now = self._engine.now()
        present = min(now.wall, now.steady)
        return Horizon(present - self._seconds, present - max(self._seconds, EVENT_ID_WINDOW))
