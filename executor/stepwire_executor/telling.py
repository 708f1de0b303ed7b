"""Tells waits of new events: those of one name and one app in their order, one after the other; apps beside each other.

An app whose waits take long is behind alone. What it has still to be told of is held in memory up to a bound, and then
read from the store again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from functools import partial

from stepwire_core.commands import Wait
from stepwire_core.inputs import EventMatched, FoundEvent, Input
from stepwire_core.model import Event, StepKey
from stepwire_executor.event_index import PAGE, PAGE_BYTES, EventIndex, found_event
from stepwire_executor.store import Store

MOST_HELD_BYTES = 16 << 20
"""Of events that an app has still to be told of."""
EVENT_BYTES = 500
"""What an event takes in memory beside its data, roughly."""

Begin = Callable[..., None]
"""Has a search with arguments run beside the loop."""


class Backlog:
    """Events of one name that an app's waits have still to be told of, in order."""

    def __init__(self) -> None:
        self.held: list[Event] = []
        self.pin: int | None = None
        """Up to this position, this one not included, waits were told; behind what is held more is to be read."""
        self.read_to = self.last = 0
        """What is to be read lies behind the first of these, and up to the second."""


class Telling:
    """See the module. `submit` takes what it finds; `caught_up` returns once that is decided."""

    def __init__(
        self,
        store: Store,
        index: EventIndex,
        begin: Begin,
        submit: Callable[[Input], None],
        caught_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._index = index
        self._begin = begin
        self._submit = submit
        self._caught_up = caught_up
        self._arrived: dict[str, list[Event]] = {}
        """New events by name, which have still to come into backlogs."""
        self._backlogs: dict[tuple[str, str], Backlog] = {}
        """By name and app."""
        self._held_bytes: Counter[str] = Counter()
        """Of the backlogs of each app."""
        self._untold: dict[int, int] = {}
        """Positions of events that waits were not told of, in order, and how many backlogs have them."""
        self._newest = 0
        self._recovering = False

    @property
    def told(self) -> int:
        """Up to this position waits were told of all events; what they were told was submitted before."""
        return next(iter(self._untold), self._newest + 1) - 1

    def start(self, told: int, last: int) -> None:
        """Begin afresh: waits were told up to a position, and the last event is at another; see `recover`."""
        self._newest = last
        self._recovering = True
        self._keep(told + 1)

    def tell(self, events: Sequence[Event]) -> None:
        """Tell the steps that wait for them of new events, which are durable."""
        for event in events:
            self._newest = event.position
            self._keep(event.position)
            queue = self._arrived.get(event.name)
            if queue is not None:
                queue.append(event)
                continue
            self._arrived[event.name] = [event]
            if not self._recovering:
                self._begin(self._sort, event.name)

    async def recover(self, told: int, last: int) -> None:
        """Have waits told again of the events that they may not have been told of; new ones come behind these.

        What new waits may have missed is looked up as their runs come into memory: no run sleeps before that.
        """
        name = ""
        while names := await self._store.wait_names(name, PAGE):
            for name in names:
                for app in await self._store.wait_apps(name):
                    after = await self._store.find_positions(name, app, told, 1)
                    if not after or after[0] > last:
                        continue
                    backlog = self._backlog(name, app)
                    backlog.pin, backlog.read_to, backlog.last = told + 1, told, last
                    self._keep(told + 1)
        self._recovering = False
        for name in self._arrived:
            self._begin(self._sort, name)
        self._release(told + 1)

    def _keep(self, position: int) -> None:
        self._untold[position] = self._untold.get(position, 0) + 1

    def _release(self, position: int) -> None:
        self._untold[position] -= 1
        if not self._untold[position]:
            del self._untold[position]

    async def _sort(self, name: str) -> None:
        """Put the events with a name into the backlogs of the apps that wait for it and that they reach."""
        while events := self._arrived[name]:
            self._arrived[name] = []
            apps = await self._index.read(",".join(events[0].apps), partial(self._store.wait_apps, name))
            for event in events:
                for app in apps:
                    if event.reaches(app):
                        self._add(self._backlog(name, app), app, event)
                self._release(event.position)
                if len(apps) > 1:
                    await asyncio.sleep(0)  # others have a turn
        del self._arrived[name]

    def _backlog(self, name: str, app: str) -> Backlog:
        """Give what an app has still to be told of, with somebody who tells it."""
        backlog = self._backlogs.get((name, app))
        if backlog is None:
            backlog = self._backlogs[name, app] = Backlog()
            self._begin(self._tell, name, app, backlog)
        return backlog

    def _add(self, backlog: Backlog, app: str, event: Event) -> None:
        size = len(event.data) + EVENT_BYTES
        held = self._held_bytes[app]
        if backlog.pin is None and (not held or held + size <= MOST_HELD_BYTES):
            backlog.held.append(event)
            self._held_bytes[app] += size
            self._keep(event.position)
        elif backlog.pin is None:
            backlog.pin, backlog.read_to = event.position, event.position - 1
            self._keep(event.position)
        backlog.last = event.position

    async def _tell(self, name: str, app: str, backlog: Backlog) -> None:
        """Tell an app's waits of the events with a name until there are no more."""
        while backlog.held or backlog.pin is not None:
            if backlog.held:
                events, backlog.held = backlog.held, []
                await self._find_waits(name, app, events)
                for event in events:
                    self._release(event.position)
                    self._held_bytes[app] -= len(event.data) + EVENT_BYTES
            else:
                await self._read_on(name, app, backlog)
        del self._backlogs[name, app]
        if not self._held_bytes[app]:
            del self._held_bytes[app]

    async def _read_on(self, name: str, app: str, backlog: Backlog) -> None:
        """Tell of the next page of events that were too many to be held."""
        last = backlog.last
        ask = partial(self._store.find_events, name, app, backlog.read_to, PAGE, PAGE_BYTES)
        events = [event for event in await self._index.read(app, ask) if event.position <= last]
        await self._find_waits(name, app, events)
        backlog.read_to = events[-1].position if events else last
        if backlog.read_to >= backlog.last and backlog.pin is not None:
            self._release(backlog.pin)
            backlog.pin = None

    async def _find_waits(self, name: str, app: str, events: Sequence[Event]) -> None:
        """Tell the runs of an app of which a wait fits, each once of an event."""
        first = await self._paths(name, app, None) if events else []
        for event in events if first else ():
            paths, matches = first, await self._index.values(event, app, first, keep=True)
            while len(paths) == PAGE:
                paths = await self._paths(name, app, paths[-1])
                matches |= await self._index.values(event, app, paths, keep=True)
            told: set[str] = set()
            found: FoundEvent | None = None  # of a large event nobody wants a copy for each wait
            for of_paths, match in matches.items():
                async for wait in self._waits(name, app, of_paths, match, told):
                    if wait.since >= event.position or wait.run_id in told:
                        continue
                    found = found or found_event(event, matches)
                    if found is None:
                        break
                    told.add(wait.run_id)
                    self._submit(EventMatched(wait.run_id, name, found))

    async def _paths(self, name: str, app: str, after: str | None) -> list[str]:
        return await self._index.read(app, partial(self._store.wait_paths, name, app, after, PAGE))

    async def _waits(self, name: str, app: str, paths: str, match: str, told: Set[str]) -> AsyncIterator[Wait]:
        """Give the waits with these values; what was made of a page is decided before the next is read.

        Of a run that was told of the event no more are read: it may have twenty thousand.
        """
        after: tuple[str, StepKey | None] | None = None
        while waits := await self._index.read(
            app, partial(self._store.find_waits, name, app, paths, match, after, PAGE)
        ):
            for wait in waits:
                yield wait
            if len(waits) < PAGE:
                return
            last = waits[-1]
            after = last.run_id, None if last.run_id in told else last.key
            await self._caught_up()
