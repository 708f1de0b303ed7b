"""What is looked up beside the engine's loop: waits for a new event, events for a new wait, what a crash cut off.

What they find comes in as inputs, after the commit of what they are about, so that one of both sides sees the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from stepwire_executor import matching
from stepwire_executor.core.commands import Wait
from stepwire_executor.core.inputs import ChildEnded, EventMatched, Input, RunCancelled, SleepersWoken
from stepwire_executor.core.model import Event, Run, StepKey
from stepwire_executor.core.state import State
from stepwire_executor.store import Store, StoreError

EVERY_RUN, FOR_EVER = 1 << 31, 1e12
PAGE = 500
"""Rows read at a time where there may be many."""


class Engine(Protocol):
    """What they need of the engine."""

    @property
    def state(self) -> State:
        """The state in memory."""

    def submit(self, input_: Input) -> None:
        """Queue an input."""

    def wake(self) -> None:
        """Have the loop look at `failure`."""

    async def caught_up(self) -> None:
        """Return once everything that was submitted is decided and durable, or the store has failed."""


class Searches:
    """See the module. `failure`: how one of them has failed; the engine then begins anew."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: StoreError | None = None

    async def stop(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def begin(self, search: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Look something up beside the loop; what it finds comes in as inputs. `recover` finds what was cut off."""
        task = asyncio.ensure_future(self._guarded(search, *arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, search: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await search(*arguments)
        except StoreError as error:
            self.failure = error  # what it would have found is looked for again when the engine begins anew
            self._engine.wake()

    async def find_waits(self, events: Sequence[Event]) -> None:
        """Find the steps that wait for new events."""
        by_name: dict[str, list[Event]] = {}
        for event in events:
            by_name.setdefault(event.name, []).append(event)
        for name, group in by_name.items():
            for paths in await self._store.wait_paths(name):
                for event in group:
                    match = matching.match_event(paths, event)
                    if match is not None:
                        await self._end_waits(event, paths, match)

    async def _end_waits(self, event: Event, paths: str, match: str) -> None:
        done: set[tuple[str, StepKey]] = set()
        limit = PAGE
        while True:
            waits = await self._store.find_waits(event.name, paths, match, limit)
            new = [wait for wait in waits if wait.since < event.position and (wait.run_id, wait.key) not in done]
            full = len(waits) == limit
            for wait in new:
                done.add((wait.run_id, wait.key))
                if await self._reaches(event, wait.run_id):
                    self._engine.submit(EventMatched(wait.run_id, wait.key, matching.event_output(event)))
                else:
                    limit += 1  # it stays, and will be found again
            if not new or not full:
                return
            await self._engine.caught_up()

    async def find_event(self, wait: Wait) -> None:
        """Find the first event that a new wait may have missed."""
        after = wait.since
        while events := await self._store.find_events(wait.event_name, after, PAGE):
            for event in events:
                matches = matching.match_event(wait.paths, event) == wait.match
                if matches and await self._reaches(event, wait.run_id):
                    self._engine.submit(EventMatched(wait.run_id, wait.key, matching.event_output(event)))
                    return
            after = events[-1].position

    async def _reaches(self, event: Event, run_id: str) -> bool:
        """Say whether an event is meant for a run's app."""
        if not event.apps:
            return True
        hot = self._engine.state.runs.get(run_id)
        run = hot.run if hot is not None else await self._store.get_run(run_id)
        return run is not None and event.reaches(run.app)

    async def recover(self) -> None:
        """Do what follow-ups a crash may have cut off: ends of children, of orphans, and events for waits."""
        seen: set[str] = set()
        while children := [run for run in await self._store.ended_children(PAGE) if run.id not in seen]:
            for child in children:
                seen.add(child.id)
                self._engine.submit(end_of_child(child))
            await self._engine.caught_up()
        while orphans := [run_id for run_id in await self._store.orphans(PAGE) if run_id not in seen]:
            for run_id in orphans:
                seen.add(run_id)
                self._engine.submit(RunCancelled(run_id, "its parent ended"))
            await self._engine.caught_up()
        after: tuple[str, StepKey] | None = None
        while waits := await self._store.waits(after, PAGE):
            for wait in waits:
                await self.find_event(wait)
            after = (waits[-1].run_id, waits[-1].key)

    async def wake_sleepers(self) -> None:
        """Wake all runs that sleep until some time of day, which now comes later: the clock was set back.

        They go back to sleep, with their timeouts in the new time of day.
        """
        ids = await self._store.due_runs(FOR_EVER, EVERY_RUN)
        for at in range(0, len(ids), PAGE):
            self._engine.submit(SleepersWoken(ids[at : at + PAGE]))
            await self._engine.caught_up()


def end_of_child(child: Run) -> ChildEnded:
    """Tell a parent how the run ended that it invoked."""
    assert child.parent_key is not None
    return ChildEnded(child.parent_run_id, child.parent_key, child.state, child.output, child.failure)
