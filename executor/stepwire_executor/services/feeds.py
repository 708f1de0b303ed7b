"""What is told to those who watch runs: each change of a run is found and written once, however many watch it.

A feed follows one run for all its watchers. Its log says which step looks new since when; a watcher is a place in that
log, so that one who reads slowly, or not at all, misses what has changed again meanwhile and costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

import grpc

from stepwire_core.model import Run, Step
from stepwire_core.queued import is_over
from stepwire_executor.access import EVERYBODY
from stepwire_executor.frames import varint
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services import shown
from stepwire_executor.services.errors import StatusError
from stepwire_executor.services.pages import ANSWER_BYTES, PAGE_BYTES
from stepwire_executor.store import Store
from stepwire_proto.v1 import run_pb2

MOST_WATCHERS, MOST_WATCHERS_A_RUN = 1_000, 100
"""Of all runs, and of each. Beyond the first a token is refused that has more than its share."""
GATHER_SECONDS = 0.1
REST = 4
"""A feed rests so many times as long as it and its watchers have worked, for each feed that there is: all of them
together leave the loop to others for most of the time."""
WRITE_SECONDS = 0.0002
"""What gRPC takes for a message of ours, roughly: it is not seen where it is made."""
STEPS_A_MESSAGE = 500
STEPS_A_READ = 500
COMPARED, WRITTEN = 1, 25
"""What it costs to compare a step with how it looked before, and to write how it looks now."""
COST_A_TURN = 5_000
"""After so much others have a turn: some three milliseconds."""
MOST_KEPT_BYTES = 128 << 20
"""Of what feeds know of steps. Beyond that a token that has more than its share watches no more, and failures are
kept in brief."""
LARGE_STEP, KNOWN_BYTES = 1_024, 500
"""Size from which on a failure is worth to be shortened, and what a step takes besides its message."""
LARGE_RUN = 64 * 1024
"""A run that is larger is told whole at the beginning and the end only."""
_STEP = b"\x12"
"""Field 2 of WatchRunResponse, length-delimited."""

Look = tuple[object, ...]


class Show(Protocol):
    """Writes a run; not `whole` without what may be large."""

    def __call__(self, run: Run, *, whole: bool) -> Awaitable[run_pb2.Run]:
        """See the class."""


class Feeds:
    """The feeds of all runs that are watched. `show` writes a run."""

    def __init__(self, engine: EngineHandle, store: Store, show: Show) -> None:
        self.engine = engine
        self.store = store
        self.show = show
        self.kept_bytes = 0
        self.turn = asyncio.Lock()
        """Who has it makes a message: others have the loop between any two, however many watch."""
        self._feeds: dict[str, Feed] = {}
        self._watchers = 0
        self._watched: defaultdict[str, Counter[Feed]] = defaultdict(Counter)
        """What each token watches, and how often; also feeds that are forgotten."""

    def __len__(self) -> int:
        return len(self._feeds)

    @contextmanager
    def watching(self, run_id: str, token: str = "") -> Iterator[Watcher]:
        """Watch a run, as somebody with a token of this name. Raises StatusError if too many do."""
        feed = self._feeds.get(run_id)
        if feed is not None and feed.watchers >= MOST_WATCHERS_A_RUN:
            raise too_many(f"of run {run_id} {MOST_WATCHERS_A_RUN} watches are open, the most that it may have")
        its = self._watched.get(token, Counter[Feed]())
        tokens = len(self._watched) + (token not in self._watched)
        if is_over(self._watchers, its.total(), 1, MOST_WATCHERS, tokens):
            most = f"of {MOST_WATCHERS:,} that all may have, {its.total():,} with this token"
            raise too_many(f"{self._watchers:,} watches of runs are open, {most}")
        kept = sum(each.kept_bytes for each in its)
        if feed is None and is_over(self.kept_bytes, kept, 0, MOST_KEPT_BYTES, tokens):
            most = f"over {MOST_KEPT_BYTES}, {kept} for this token"
            raise too_many(f"the runs that are watched take {self.kept_bytes} bytes, {most}")
        if feed is None:
            feed = self._feeds[run_id] = Feed(self, run_id)
        feed.watchers += 1
        self._watchers += 1
        self._watched[token][feed] += 1
        try:
            yield Watcher(self, feed)
        finally:
            self._leave(feed, token)

    def _leave(self, feed: Feed, token: str) -> None:
        its = self._watched[token]
        its[feed] -= 1
        if not its[feed]:
            del its[feed]
        if not its:
            del self._watched[token]
        self._watchers -= 1
        feed.watchers -= 1
        if not feed.watchers:
            feed.close()
            self.forget(feed)

    def forget(self, feed: Feed) -> None:
        """Have those who come from now on begin anew."""
        if self._feeds.get(feed.run_id) is feed:
            del self._feeds[feed.run_id]


def too_many(what: str) -> StatusError:
    """Say that nobody more may watch."""
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{what}: use WaitRun or GetRun, or end others first")


class Feed:
    """One run, as those see it who watch it."""

    def __init__(self, feeds: Feeds, run_id: str) -> None:
        self.run_id = run_id
        self.watchers = 0
        self.kept_bytes = 0
        self.run: Run | None = None
        self.ended = False
        self.failure: Exception | None = None
        self.brief = run_pb2.Run()
        """The run; of a large one without what is large."""
        self.whole = self.unended = run_pb2.Run()
        """Once it has ended: all of it, and what is told of it before the last message."""
        self.version = 0
        """Grows with each change that was told."""
        self.told = 0
        """Up to this place the log is told: behind it a look at the steps may be under way."""
        self.news = asyncio.Event()
        self.worked = 0.0
        """Seconds since it rested last."""
        self._feeds = feeds
        self._engine = feeds.engine
        self._looks: dict[int, Look] = {}
        self._shown: dict[int, bytes] = {}
        """Steps by number, each as a part of a message."""
        self._latest: dict[int, int] = {}
        """The place in the log of each step."""
        self._places: list[int] = []
        self._numbers: list[int] = []
        """The log: places in their order, and the steps that they are of. A step's earlier places are worth nothing."""
        self._event = run_pb2.Run().event
        """What started a large run."""
        self._is_large = False
        self._source: Run | None = None
        self._steps = 0
        """How many steps of the source have been looked at."""
        self._open: dict[int, Step] = {}
        """Those that may still change, by number."""
        self._task = asyncio.ensure_future(self._follow())

    def close(self) -> None:
        """Follow the run no more."""
        self._task.cancel()
        self._feeds.kept_bytes -= self.kept_bytes
        self.kept_bytes = 0
        self._shown = {}

    async def _follow(self) -> None:
        changes = self._engine.changes(self.run_id)
        try:
            async for ended in changes:
                await self._look(ended)
                if self.ended:
                    return
                await asyncio.sleep(max(GATHER_SECONDS, self.worked * REST * len(self._feeds)))
                self.worked = 0.0
        except Exception as error:
            self.failure = error
            self._tell()
        finally:
            self._feeds.forget(self)
            await changes.aclose()  # type: ignore[attr-defined]  # it is a generator

    def _tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()

    # What has changed.

    async def _look(self, ended: Run | None) -> None:
        """Find what has changed, as it is durable, and tell it."""
        while True:
            run = ended or await self._find()
            has_ended = run.state.ended  # nothing changes any more
            await self._look_at_steps(run)
            if has_ended or not run.state.ended:
                break
        brief = whole = await self._feeds.show(run, whole=has_ended or not self._is_large)
        if not whole.payloads_omitted and (self._is_large or whole.ByteSize() > LARGE_RUN):
            self._is_large, self._event = True, whole.event
            brief = shown.without_payloads(whole)
        if self.version and brief == self.brief and self.told == last_of(self._places) and not has_ended:
            return
        self.run, self.brief, self.ended = run, brief, has_ended
        if has_ended:
            self.whole, self.unended = whole, unended(brief)
        self.told = last_of(self._places)
        self.version += 1
        self._forget_old_places()
        self._tell()

    async def _find(self) -> Run:
        await self._engine.wait_durable()
        loaded = self._engine.state.runs.get(self.run_id)
        return EVERYBODY.check_run(
            self.run_id, loaded.run if loaded is not None else await self._feeds.store.get_run(self.run_id)
        )

    async def _look_at_steps(self, run: Run) -> None:
        """Look at what may have changed, in parts between which others have a turn; each part is durable."""
        if run.steps or run.id in self._engine.state.runs:
            if run is not self._source:
                self._source, self._steps, self._open = run, 0, {}
            new = list(islice(run.steps.values(), self._steps, None))
            self._steps += len(new)
            await self._compare(run, [*self._open.values(), *new])
            return
        self._source, self._open = None, {}
        after = 0
        while steps := await self._feeds.store.get_steps(run.id, after, STEPS_A_READ, PAGE_BYTES, outputs=False):
            await self._compare(run, steps, keep=False)
            after = steps[-1].number

    async def _compare(self, run: Run, steps: Sequence[Step], *, keep: bool = True) -> None:
        begun, cost, moved = time.perf_counter(), 0, self._engine.now().moved
        for step in steps:
            if cost >= COST_A_TURN:
                self.worked += time.perf_counter() - begun
                await asyncio.sleep(0)
                await self._engine.wait_durable()
                begun, cost = time.perf_counter(), 0
            cost += COMPARED
            state = shown.state_of(step, run)
            look = state, step.attempt, step.fence, step.sequence, step.worker
            if state.ended:
                self._open.pop(step.number, None)
            elif keep:
                self._open[step.number] = step
            if self._looks.get(step.number) != look:
                cost += WRITTEN
                self._looks[step.number] = look
                self._write(step, run, moved)
        self.worked += time.perf_counter() - begun

    def _write(self, step: Step, run: Run, moved: float) -> None:
        message = shown.show_step(step, run, moved=moved)
        data = message.SerializeToString()
        if len(data) > LARGE_STEP and self._feeds.kept_bytes > MOST_KEPT_BYTES and step.failure is not None:
            message.failure.CopyFrom(shown.in_brief(step.failure))
            data = message.SerializeToString()
        data = _STEP + varint(len(data)) + data
        before = self._shown.get(step.number)
        more = len(data) + (KNOWN_BYTES if before is None else -len(before))
        self.kept_bytes += more
        self._feeds.kept_bytes += more
        self._shown[step.number] = data
        place = self._latest[step.number] = last_of(self._places) + 1
        self._places.append(place)
        self._numbers.append(step.number)

    def _forget_old_places(self) -> None:
        if len(self._places) > 2 * len(self._latest) + STEPS_A_MESSAGE:
            kept = sorted((place, number) for number, place in self._latest.items())
            self._places = [place for place, _ in kept]
            self._numbers = [number for _, number in kept]

    # What is told.

    def first(self) -> run_pb2.Run:
        """Give the run as it is now, with its event, to who has not seen it."""
        if not self._is_large:
            return self.brief
        whole = run_pb2.Run()
        whole.CopyFrom(self.brief)
        whole.event.CopyFrom(self._event)
        whole.payloads_omitted = False
        return whole

    def part(self, after: int) -> tuple[list[bytes], int]:
        """Give steps from behind a place in the log, and the place up to which these are all that are new."""
        steps: list[bytes] = []
        room = PAGE_BYTES
        at = bisect_right(self._places, after)
        for place, number in zip(islice(self._places, at, None), islice(self._numbers, at, None), strict=True):
            if place > self.told or room <= 0 or len(steps) >= STEPS_A_MESSAGE:
                return steps, after
            after = place
            if self._latest[number] == place:
                steps.append(self._shown[number])
                room -= len(steps[-1])
        return steps, self.told


class Watcher:
    """One who watches a run."""

    def __init__(self, feeds: Feeds, feed: Feed) -> None:
        self.feed = feed
        self._feeds = feeds
        self._place = 0
        self._version = 0
        self._has_begun = self._has_ended = False

    async def next(self) -> run_pb2.WatchRunResponse | None:
        """Wait for what is new, and give it in a message; None after the last one. Raises how the feed has failed."""
        feed = self.feed
        if self._has_ended:
            return None
        while self._version == feed.version:
            if feed.failure is not None:
                raise feed.failure
            await feed.news.wait()
        async with self._feeds.turn:
            await asyncio.sleep(0)
            begun = time.perf_counter()
            message = self._make()
            feed.worked += time.perf_counter() - begun + WRITE_SECONDS
        return message

    def _make(self) -> run_pb2.WatchRunResponse:
        feed = self.feed
        steps, self._place = feed.part(self._place)
        if feed.ended:
            # What ends it comes last, and alone if it would be too large together with steps.
            fits = not steps or sum(map(len, steps)) + feed.whole.ByteSize() <= ANSWER_BYTES
            self._has_ended = self._place >= feed.told and fits
            run = feed.whole if self._has_ended else feed.unended
        else:
            run = feed.brief if self._has_begun else feed.first()
            if self._place >= feed.told:
                self._version = feed.version
        self._has_begun = True
        message = run_pb2.WatchRunResponse.FromString(b"".join(steps))
        message.run.CopyFrom(run)
        return message


def last_of(places: Sequence[int]) -> int:
    """Give the last place of a log, 0 of an empty one."""
    return places[-1] if places else 0


def unended(message: run_pb2.Run) -> run_pb2.Run:
    """Keep the run's end for the last message."""
    copy = run_pb2.Run()
    copy.CopyFrom(message)
    copy.state = run_pb2.RUN_STATE_RUNNING
    copy.ClearField("ended_at")
    return copy
