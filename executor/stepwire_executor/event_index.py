"""Where events lie that have given values at given paths: what was read for one wait is not read again for the next.

Events are read in pages of bounded size and parsed in slices, between which the loop has its turns; both go in turn
over the apps that have something looked up. What is kept are positions only, so many at the most; what does not fit is
read again, that of the app first which has the most kept.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from functools import partial
from hashlib import blake2b
from typing import Any, TypeVar

from stepwire_core.commands import Wanted
from stepwire_core.inputs import FoundEvent
from stepwire_core.model import Event
from stepwire_executor import matching
from stepwire_executor.sharing import AppTurns
from stepwire_executor.store import Store

Found = TypeVar("Found")

log = logging.getLogger("stepwire.executor")

PAGE, PAGE_BYTES = 500, 1 << 20
"""Events, and bytes of their data, that are read at a time; one event may be larger."""
SLICE, SLICE_BYTES = 50, 1 << 16
"""Events, and bytes, that are parsed before others have a turn: half a millisecond or so."""
PATHS = 100
"""Sets of paths with which an event is compared before others have a turn."""
MOST_POSITIONS = 200_000
"""How many positions are kept of all names and paths together."""
PART = 20
"""What a name with paths counts for, beside its positions: for many of them nothing may be found."""
MOST_READS = 8
"""Questions that the store has before it at a time: so many of others, at most, come before an app's."""
MOST_DATA, MOST_DATA_BYTES = 8, 1 << 16
"""Of events whose data is kept as it was parsed for one app, since another one may be told of them next: it takes
twenty times as much. One event may be larger."""
LONGEST_MATCH = 64


class Part:
    """What was read of the events of one name, for the paths of some waits: all behind `start`, up to `end`."""

    def __init__(self, at: int) -> None:
        self.start = self.end = at
        self.positions: dict[str, list[int]] = {}
        self.size = 0
        self.lock = asyncio.Lock()
        """Who reads for it; others find what was read when they have it."""
        self.users = 0
        """How many have the lock, or wait for it."""

    def clear(self, at: int) -> None:
        """Forget everything, and begin anew behind a position."""
        self.start = self.end = at
        self.positions = {}
        self.size = 0

    def add(self, match: str, position: int) -> None:
        """Note an event behind all others."""
        self.positions.setdefault(short(match), []).append(position)
        self.size += 1

    def put_before(self, other: Part) -> None:
        """Take in what was read of the events up to the first one here."""
        for match, positions in other.positions.items():
            positions.extend(self.positions.get(match, ()))
            self.positions[match] = positions
        self.start = other.start
        self.size += other.size


class Hits:
    """The events that somebody wants, as they are found: in order, and so many at the most."""

    def __init__(self, wanted: Wanted, taken: AbstractSet[int]) -> None:
        self._wanted = wanted
        self._taken = taken
        self.positions: list[int] = []

    @property
    def full(self) -> bool:
        """Whether nothing more is wanted."""
        return len(self.positions) >= self._wanted.most

    def meet(self, match: str | None, position: int) -> None:
        """Look at an event."""
        if match == self._wanted.match:
            self.offer((position,))

    def offer(self, positions: Iterable[int]) -> None:
        """Look at events that have the values; later ones than before."""
        for position in positions:
            if self.full:
                return
            if position > self._wanted.after and position not in self._taken:
                self.positions.append(position)


class EventIndex:
    """See the module."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts: OrderedDict[tuple[str, str, str], Part] = OrderedDict()
        """By app, name and paths, the least recently used first."""
        self._size = 0
        self._sizes: Counter[str] = Counter()
        """By app."""
        self._data: OrderedDict[int, Any] = OrderedDict()
        """Data of events by position, the last that was parsed last."""
        self._reading = AppTurns(MOST_READS)
        self._comparing = AppTurns(1)
        """One compares at a time: ten that did would have the loop ten times as long between two turns of others."""
        self._compared = self._compared_bytes = 0
        """Since others had a turn."""

    async def read(self, app: str, ask: Callable[[], Awaitable[Found]]) -> Found:
        """Ask the store something for an app, when it has its turn."""
        async with self._reading.of(app):
            return await ask()

    async def find(self, app: str, name: str, wanted: Wanted, taken: AbstractSet[int]) -> tuple[list[int], int | None]:
        """Find events with a name that are wanted and not taken, the earliest first.

        Gives their positions, and the position of the last event that there was if it has looked at all; None if it has
        found as many as are wanted. Events that do not reach the app are none of them.
        """
        hits = Hits(wanted, taken)
        if wanted.paths == matching.NO_PATHS:
            end = await self._find_any(app, name, wanted.after, hits)
        else:
            end = await self._find_matching(app, name, wanted, hits)
        return hits.positions, None if hits.full else end

    async def _find_any(self, app: str, name: str, after: int, hits: Hits) -> int:
        while page := await self.read(app, partial(self._store.find_positions, name, app, after, PAGE)):
            hits.offer(page)
            after = page[-1]
            if hits.full or len(page) < PAGE:
                break
        return after

    async def _find_matching(self, app: str, name: str, wanted: Wanted, hits: Hits) -> int:
        key = app, name, wanted.paths
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part(wanted.after)
            self._count(app, PART)
        self._parts.move_to_end(key)
        part.users += 1
        try:
            async with part.lock:
                self._make_room(app, part)
                return await self._find_in(part, app, name, wanted, hits)
        finally:
            part.users -= 1

    async def _find_in(self, part: Part, app: str, name: str, wanted: Wanted, hits: Hits) -> int:
        if part.start == part.end:
            part.start = part.end = wanted.after
        if wanted.after < part.start:
            await self._read_before(part, app, name, wanted, hits)
        known = part.positions.get(short(wanted.match), [])
        hits.offer(known[bisect_right(known, wanted.after) :])
        while not hits.full and (page := await self._read(app, name, wanted.paths, part.end)):
            for position, match in page:
                hits.meet(match, position)
                if match is not None:
                    part.add(match, position)
                    self._count(app, 1)
            part.end = page[-1][0]
            self._make_room(app, part)
        return max(part.end, wanted.after)

    async def _read_before(self, part: Part, app: str, name: str, wanted: Wanted, hits: Hits) -> None:
        """Look at the events from what is wanted up to what is known, and take them in if there is room for them."""
        before, keep = Part(wanted.after), True
        while before.end < part.start and (keep or not hits.full):
            page = await self._read(app, name, wanted.paths, before.end)
            for position, match in page:
                if position <= part.start:
                    hits.meet(match, position)
                    if match is not None and keep:
                        before.add(match, position)
            before.end = page[-1][0] if page else part.start
            if before.size > MOST_POSITIONS // 2:
                before.clear(before.end)
                keep = False
        if keep:
            part.put_before(before)
            self._count(app, before.size)
            self._make_room(app, part)

    async def _read(self, app: str, name: str, paths: str, after: int) -> list[tuple[int, str | None]]:
        """Read the next page of events: their positions, and their values at some paths."""
        page = await self.read(app, partial(self._store.find_events, name, app, after, PAGE, PAGE_BYTES))
        found: list[tuple[int, str | None]] = []
        for event in page:
            values = await self.values(event, app, (paths,))
            found.append((event.position, values.get(paths)))
        return found

    async def values(self, event: Event, app: str, all_paths: Sequence[str], *, keep: bool = False) -> dict[str, str]:
        """Give an event's values for each of some paths; now and then others have a turn meanwhile.

        `keep`: others will ask for the same event soon.
        """
        found: dict[str, str] = {}
        try:
            async with self._turn(app, len(event.data)):
                data = matching.NO_JSON if list(all_paths) == [matching.NO_PATHS] else self._parsed(event, keep=keep)
            for at in range(0, len(all_paths), PATHS):
                async with self._turn(app, SLICE_BYTES if at else 0):
                    found |= matching.matches_of(all_paths[at : at + PATHS], data)
        except Exception:
            log.exception("event %s can't be compared with waits, a bug in Stepwire: none gets it", event.id)
        return found

    def _parsed(self, event: Event, *, keep: bool) -> Any:
        if event.position in self._data:
            return self._data[event.position][1]
        data = matching.data_of(event)
        if keep:
            self._data[event.position] = len(event.data), data
            sizes = [size for size, _ in self._data.values()]
            while len(sizes) > 1 and (len(sizes) > MOST_DATA or sum(sizes) > MOST_DATA_BYTES):
                self._data.popitem(last=False)
                del sizes[0]
        return data

    @asynccontextmanager
    async def _turn(self, app: str, size: int) -> AsyncIterator[None]:
        """Compare something, with the loop for oneself; others have had their turn before if it was enough."""
        async with self._comparing.of(app):
            self._compared += 1
            self._compared_bytes += size
            if self._compared >= SLICE or self._compared_bytes >= SLICE_BYTES:
                self._compared = self._compared_bytes = 0
                await asyncio.sleep(0)
            yield

    def _count(self, app: str, positions: int) -> None:
        self._size += positions
        self._sizes[app] += positions
        if not self._sizes[app]:
            del self._sizes[app]

    def _make_room(self, app: str, present: Part) -> None:
        """Forget what was not used for long, the most of the app that has the most, and what is used if need be."""
        if self._size <= MOST_POSITIONS:
            return
        greedy = max(self._sizes, key=self._sizes.__getitem__, default=app)
        for key, part in sorted(self._parts.items(), key=lambda each: each[0][0] != greedy):
            if self._size <= MOST_POSITIONS:
                return
            if not part.users or part is present:
                self._count(key[0], -part.size)
                if part is present:
                    part.clear(part.end)
                else:
                    self._count(key[0], -PART)
                    del self._parts[key]

    async def event_at(self, app: str, name: str, position: int) -> Event | None:
        """Read an event that reaches an app; None if it was removed."""
        found = await self.read(app, partial(self._store.find_events, name, app, position - 1, 1, 1))
        return found[0] if found and found[0].position == position else None


def found_event(event: Event, matches: Mapping[str, str]) -> FoundEvent | None:
    """Give an event as waits are given it; None if that fails, so that no other event is kept from those who wait."""
    try:
        return FoundEvent(event.position, matching.event_output(event), matches)
    except Exception:
        log.exception("event %s can't be given to waits, a bug in Stepwire: none gets it", event.id)
        return None


def short(match: str) -> str:
    """Give what a match is kept as: long ones by their hash."""
    return match if len(match) <= LONGEST_MATCH else blake2b(match.encode(), digest_size=16).hexdigest()
