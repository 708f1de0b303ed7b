"""What is looked up beside the engine's loop: waits for a new event, events for a new wait, what a crash cut off.

What they find comes in as inputs, after the commit of what they are about, so that one of both sides sees the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

from stepwire_core.commands import FindEvents
from stepwire_core.inputs import ChildEnded, EventsLookedUp, FoundEvent, Input, RunCancelled, SleepersWoken
from stepwire_core.model import Event, Run
from stepwire_executor.event_index import PAGE, PAGE_BYTES, EventIndex, found_event
from stepwire_executor.store import Opened, Store
from stepwire_executor.telling import Telling

RECOVERY_REST = 1.0
"""Seconds between two looks for what faults of ours have cut off."""
EVERY_RUN, FOR_EVER = 1 << 31, 1e12
LOOKED_UP_AT_ONCE, LARGE_BYTES = 8, 64 * 1024
"""Look-ups of an app at once, each of which reads pages of a megabyte; and what one finds that is more than little."""


class Engine(Protocol):
    """What they need of the engine."""

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
        self.failure: Exception | None = None
        self._index = EventIndex(store)
        self._looking: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """Look-ups of events for new waits, by app."""
        self._recovers = self._recover_wanted = False
        self._telling = self._new_telling()

    def _new_telling(self) -> Telling:
        engine = self._engine
        return Telling(self._store, self._index, lambda *what: self.begin(*what), engine.submit, engine.caught_up)

    @property
    def told(self) -> int:
        """Up to this position waits were told of all events; what they were told was submitted before."""
        return self._telling.told

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
        except Exception as error:
            self.failure = error  # what it would have found is looked for again when the engine begins anew
            self._engine.wake()

    def tell(self, events: Sequence[Event]) -> None:
        """Tell the steps that wait for them of new events, which are durable."""
        self._telling.tell(events)

    async def find_events(self, wanted: FindEvents) -> None:
        """Find the first events that waits of a run may have missed, when it is the turn of its app's look-up."""
        turns = self._looking.setdefault(wanted.app, asyncio.Semaphore(LOOKED_UP_AT_ONCE))
        async with turns:
            if await self._find_events(wanted) > LARGE_BYTES:
                await self._engine.caught_up()  # not more than these are held until they are decided

    async def _find_events(self, wanted: FindEvents) -> int:
        """Find events, and give the bytes of their data."""
        positions: set[int] = set()
        ends, more = [], False
        for each in wanted.wanted:
            found, end = await self._index.find(wanted.app, wanted.event_name, each, wanted.taken)
            positions.update(found)
            ends.append(found[-1] if end is None else end)
            more |= end is None
        looked_to = min(ends)
        """Behind this there may be an event that comes before one that was found."""
        events: list[FoundEvent] = []
        size = 0
        for position in sorted(position for position in positions if position <= looked_to):
            event = await self._index.event_at(wanted.app, wanted.event_name, position)
            if event is None:
                continue
            found_one = found_event(event, await self._index.values(event, wanted.app, wanted.paths))
            if found_one is None:
                continue
            events.append(found_one)
            size += len(event.data)
            if size >= PAGE_BYTES:
                looked_to, more = position, True
                break
        self._engine.submit(EventsLookedUp(wanted.run_id, wanted.event_name, wanted.number, events, looked_to, more))
        return size

    def start(self, opened: Opened) -> None:
        """Begin afresh with a store that has been opened: first with what a crash may have cut off."""
        self.failure = None
        self._recovers = self._recover_wanted = False
        self._index = EventIndex(self._store)
        self._telling = self._new_telling()
        self._telling.start(opened.told, opened.last_position)
        self.begin(self._begin_with, opened)

    async def _begin_with(self, opened: Opened) -> None:
        await self._telling.recover(opened.told, opened.last_position)
        await self.recover()

    def recover_again(self) -> None:
        """Look again for ends of children that their parents have not heard of, and for orphans; once at a time."""
        self._recover_wanted = True
        if not self._recovers:
            self._recovers = True
            self.begin(self._recover_while_wanted)

    async def _recover_while_wanted(self) -> None:
        while self._recover_wanted:
            self._recover_wanted = False
            await self.recover()
            await asyncio.sleep(RECOVERY_REST)  # it looks at every unfinished run
        self._recovers = False

    async def recover(self) -> None:
        """Do what follow-ups a crash may have cut off: of the ends of children, and of orphans."""
        seen: set[str] = set()
        while children := [run for run in await self._store.ended_children(PAGE, PAGE_BYTES) if run.id not in seen]:
            for child in children:
                seen.add(child.id)
                self._engine.submit(end_of_child(child))
            await self._engine.caught_up()
        while orphans := [run_id for run_id in await self._store.orphans(PAGE) if run_id not in seen]:
            for run_id in orphans:
                seen.add(run_id)
                self._engine.submit(RunCancelled(run_id, "its parent ended"))
            await self._engine.caught_up()

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
    return ChildEnded(child.parent_run_id, child.parent_key, child.state, child.output, child.failure, child.id)
