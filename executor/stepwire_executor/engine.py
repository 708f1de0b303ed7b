"""The engine loop: the only owner of the state. Takes what has arrived, decides it, commits, and then acts.

While a commit runs the next batch gathers; that is the group commit. It knows neither gRPC nor SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

from stepwire_executor import matching
from stepwire_executor.core.commands import Answer, Command, Decision, FindEvent, FindWaits, FollowUp, RunEnded, Wait
from stepwire_executor.core.decide import decide, sent_event_ids, touched_runs
from stepwire_executor.core.inputs import (
    ChildEnded,
    EventMatched,
    EventsSent,
    ExecutorDraining,
    Input,
    Reply,
    RunCancelled,
    RunsLoaded,
    SleepersWoken,
    StepsFound,
    Tick,
)
from stepwire_executor.core.model import Event, Limits, Now, Run, StepKey
from stepwire_executor.core.state import State
from stepwire_executor.history import History
from stepwire_executor.ports import Clock, Observer, Outbound
from stepwire_executor.store import Store, StoreError, StoreTakenError

log = logging.getLogger("stepwire.executor")

EVERY_RUN, FOR_EVER = 1 << 31, 1e12
SET_BACK_SECONDS = 1.0
"""A clock that was set back by less is none that anybody has set."""
PAGE = 500
"""Rows read at a time where there may be many."""
LONGEST_WAIT = 1.0
"""Seconds after which the clocks are looked at again; the wall clock may have been set."""
EVENT_ID_WINDOW = 24 * 3600.0
"""Seconds for which an event's id makes it once only."""
MOST_QUEUED = 20_000
"""Inputs in the queue from which on clients are asked to wait."""
REOPEN_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts to open a store that has failed; the last one is repeated."""
STANDBY_SECONDS = 0.25
"""How often a standby looks whether it may take the store over."""


class Change(asyncio.Event):
    """Set when a watched run has changed."""

    ended: Run | None = None
    """The run, once its end is durable."""


class Engine:
    """See the module; `ports.EngineHandle` is what others may use."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        clock: Clock,
        outbound: Outbound,
        observers: Sequence[Observer] = (),
        history: History | None = None,
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._outbound = outbound
        self._observers = observers
        self._history = history
        self._inbox: list[Input] = []
        self._wake = asyncio.Event()
        self._state = State(0, limits)
        self._next_wake: float | None = None
        self._asked: set[asyncio.Future[Any]] = set()
        self._watchers: dict[str, set[Change]] = {}
        self._commit: asyncio.Future[None] | None = None
        self._searches: set[asyncio.Task[None]] = set()
        self._failed_search: StoreError | None = None
        self._moved = 0.0
        """By how much the time of day had been set when the clock was last read."""
        self._busy = False
        self._awaiting_turn: list[asyncio.Future[None]] = []
        self.failing = True
        self._why: StoreError = StoreError("it has not been opened yet")
        self.draining = False
        self._stop = asyncio.Event()

    @property
    def state(self) -> State:
        """The state in memory; durable only right after `settled`."""
        return self._state

    def now(self) -> Now:
        """Read both clocks."""
        return self._clock()

    @property
    def overloaded(self) -> bool:
        """True while more is queued than the engine should be given."""
        return len(self._inbox) > MOST_QUEUED

    def submit(self, input_: Input) -> None:
        """Queue an input; inputs are decided in the order of their submission."""
        self._inbox.append(input_)
        self._wake.set()

    async def ask(self, make: Callable[[Reply], Input]) -> Any:
        """Submit the input that `make` builds around a reply token, and return the value of its Answer.

        Raises StoreError if the store fails before the answer is durable.
        """
        if self.failing:
            raise self.refusal()
        reply = asyncio.get_running_loop().create_future()
        self._asked.add(reply)
        try:
            self.submit(make(reply))
            return await reply
        finally:
            self._asked.discard(reply)

    async def settled(self) -> None:
        """Return at a point where all that `state` shows is durable. Raises StoreError if the store fails."""
        while self._commit is not None:
            await asyncio.wait([self._commit])
        if self.failing:
            raise self.refusal()

    async def changes(self, run_id: str) -> AsyncIterator[Run | None]:
        """Yield at once, and then after commits that changed the run (several may be one): the run, if it has ended."""
        change = Change()
        watchers = self._watchers.setdefault(run_id, set())
        watchers.add(change)
        try:
            while True:
                if self.failing:
                    raise self.refusal()
                change.clear()
                yield change.ended
                await change.wait()
        finally:
            watchers.discard(change)
            if not watchers and self._watchers.get(run_id) is watchers:
                del self._watchers[run_id]

    def refusal(self) -> StoreError:
        """Give the reason why nothing is accepted while `failing`."""
        return type(self._why)(str(self._why))

    async def start(self) -> None:
        """Open the store and load what has work. Raises StoreError; `run` then begins with trying again."""
        opened = await self._store.open()
        self._state = State(opened.epoch, self._limits, opened.functions, opened.last_position, self._clock().wall)
        self._state.draining = self.draining
        self._failed_search = None
        if self._history is not None:
            self._history.opened(opened.epoch, self._limits)
        self._inbox.clear()
        self._next_wake = await self._store.next_wake()
        after = ""
        count = 0
        while ids := await self._store.hot_runs(after, PAGE):
            self.submit(RunsLoaded(await self._store.load_runs(ids)))
            after = ids[-1]
            count += len(ids)
        self.failing = False
        log.info("epoch %d; %d runs to go on with", opened.epoch, count)
        self._search(self._recover)

    async def run(self) -> None:
        """Work until `stop`; when the store fails, forget everything and begin anew from what is durable."""
        if self.failing:
            await self._open_again()
        while not self._stop.is_set():
            try:
                await self._turn()
            except StoreError as error:
                log.error("the store failed: %s; nothing is accepted until it is back", error)
                await self._begin_anew(error)
            except Exception as error:
                log.exception("a decision failed, which is a bug in Stepwire; its inputs are dropped")
                await self._begin_anew(error)
            finally:
                self._busy = False
                turns, self._awaiting_turn = self._awaiting_turn, []
                for turn in turns:
                    if not turn.done():  # whoever waited for it may have been cancelled
                        turn.set_result(None)
        await self._store.close()  # it may just have been opened again

    async def drain(self) -> None:
        """Hand out nothing new, and return once all that was reported is durable."""
        self.draining = True
        self.submit(ExecutorDraining())
        await self._caught_up()

    async def stop(self) -> None:
        """End `run` after the turn that it is in, and close the store."""
        self._stop.set()
        self._wake.set()
        for task in self._searches:
            task.cancel()
        await asyncio.gather(*self._searches, return_exceptions=True)
        if self._commit is not None:
            await asyncio.wait([self._commit])
        await self._store.close()

    async def _turn(self) -> None:
        await self._gather()
        if self._stop.is_set():
            return
        if self._failed_search is not None:
            raise self._failed_search
        self._busy = True
        batch, self._inbox = self._inbox, []
        loaded = await self._load(batch)
        await self._store.confirm()
        decision = decide(self._state, [*loaded, *batch], self._clock())
        if decision.early:
            self._outbound.send(decision.early)
        if decision.writes:
            await self._durably(decision)
        self._act(decision)
        if self._next_wake is not None and self._next_wake <= self._clock().wall:
            self._next_wake = await self._store.next_wake()  # the run that it was of may have ended in its sleep
        for run in decision.retired:
            if run.wake_at is not None:
                self._next_wake = min(run.wake_at, self._next_wake or run.wake_at)

    async def _gather(self) -> None:
        """Wait until there is something to decide."""
        if self._inbox:
            await asyncio.sleep(0)
            return
        self._wake.clear()
        now = self._clock()
        delay = self._state.next_due(now)
        delay = LONGEST_WAIT if delay is None else min(delay, LONGEST_WAIT)
        if self._next_wake is not None:
            delay = min(delay, max(0.0, self._next_wake - now.wall))
        alarm = asyncio.get_running_loop().call_later(delay, self._wake.set)
        await self._wake.wait()
        alarm.cancel()
        self._inbox.append(Tick())

    async def _load(self, batch: Sequence[Input]) -> list[Input]:
        """Bring in what the batch needs from the store: sleeping runs, and events that were sent before."""
        now = self._clock()
        if now.moved < self._moved - SET_BACK_SECONDS:
            self._search(self._wake_sleepers)
        self._moved = now.moved
        wanted = {run_id for input_ in batch for run_id in touched_runs(input_)}
        missing = [run_id for run_id in wanted if run_id not in self._state.runs]
        if self._next_wake is not None and self._next_wake <= now.wall:
            missing += await self._store.due_runs(now.wall, PAGE)
        loaded: list[Input] = []
        if missing:
            loaded.append(RunsLoaded(await self._store.load_runs(missing)))
        event_ids = [event_id for input_ in batch for event_id in sent_event_ids(input_)]
        if event_ids:
            known = await self._store.known_events(event_ids, now.wall - EVENT_ID_WINDOW)
            for input_ in batch:
                if isinstance(input_, EventsSent | StepsFound):
                    input_.known = known
        return loaded

    async def _durably(self, decision: Decision) -> None:
        """Commit; meanwhile the state is ahead of the store, and `settled` waits."""
        self._commit = asyncio.ensure_future(self._store.commit(decision.writes))
        try:
            await asyncio.shield(self._commit)
        finally:
            self._commit = None
        await self._store.confirm()  # a process that was stopped in the commit may have been replaced since

    def _act(self, decision: Decision) -> None:
        """Carry out what the decision's writes have now made true."""
        if self._history is not None:
            self._history.decided(decision)
        outbound: list[Command] = []
        events: list[Event] = []
        for command in decision.commands:
            match command:
                case Answer(reply, value):
                    if isinstance(reply, asyncio.Future) and not reply.done():
                        reply.set_result(value)
                case FollowUp(input_):
                    self.submit(input_)
                case FindWaits(event):
                    events.append(event)
                case FindEvent(wait):
                    self._search(self._find_event, wait)
                case _:
                    outbound.append(command)
        if outbound:
            self._outbound.send(outbound)
        if events:
            self._search(self._find_waits, events)
        if decision.observations:
            self._tell_ends(decision)
            for observe in self._observers:
                observe(decision.observations)
        self._notify(decision.changed_runs)

    def _tell_ends(self, decision: Decision) -> None:
        """Give runs that have ended to those who wait for them, so that nobody has to look them up."""
        for observed in decision.observations if self._watchers else ():
            if isinstance(observed, RunEnded):
                for change in self._watchers.get(observed.run.id, ()):
                    change.ended = observed.run

    def _notify(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            for change in self._watchers.get(run_id, ()):
                change.set()

    def _search(self, search: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Look something up beside the loop; what it finds comes in as inputs. `_recover` finds what was cut off."""
        task = asyncio.ensure_future(self._guarded(search, *arguments))
        self._searches.add(task)
        task.add_done_callback(self._searches.discard)

    async def _guarded(self, search: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await search(*arguments)
        except StoreError as error:
            self._failed_search = error  # what it would have found is looked for again when the engine begins anew
            self._wake.set()

    async def _find_waits(self, events: Sequence[Event]) -> None:
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
                    self.submit(EventMatched(wait.run_id, wait.key, matching.event_output(event)))
                else:
                    limit += 1  # it stays, and will be found again
            if not new or not full:
                return
            await self._caught_up()

    async def _find_event(self, wait: Wait) -> None:
        """Find the first event that a new wait may have missed."""
        after = wait.since
        while events := await self._store.find_events(wait.event_name, after, PAGE):
            for event in events:
                matches = matching.match_event(wait.paths, event) == wait.match
                if matches and await self._reaches(event, wait.run_id):
                    self.submit(EventMatched(wait.run_id, wait.key, matching.event_output(event)))
                    return
            after = events[-1].position

    async def _reaches(self, event: Event, run_id: str) -> bool:
        """Say whether an event is meant for a run's app."""
        if not event.apps:
            return True
        hot = self._state.runs.get(run_id)
        run = hot.run if hot is not None else await self._store.get_run(run_id)
        return run is not None and event.reaches(run.app)

    async def _recover(self) -> None:
        """Do what follow-ups a crash may have cut off: ends of children, of orphans, and events for waits."""
        seen: set[str] = set()
        while children := [run for run in await self._store.ended_children(PAGE) if run.id not in seen]:
            for child in children:
                seen.add(child.id)
                self.submit(end_of_child(child))
            await self._caught_up()
        while orphans := [run_id for run_id in await self._store.orphans(PAGE) if run_id not in seen]:
            for run_id in orphans:
                seen.add(run_id)
                self.submit(RunCancelled(run_id, "its parent ended"))
            await self._caught_up()
        after: tuple[str, StepKey] | None = None
        while waits := await self._store.waits(after, PAGE):
            for wait in waits:
                await self._find_event(wait)
            after = (waits[-1].run_id, waits[-1].key)

    async def _wake_sleepers(self) -> None:
        """Wake all runs that sleep until some time of day, which now comes later: the clock was set back.

        They go back to sleep, with their timeouts in the new time of day.
        """
        ids = await self._store.due_runs(FOR_EVER, EVERY_RUN)
        for at in range(0, len(ids), PAGE):
            self.submit(SleepersWoken(ids[at : at + PAGE]))
            await self._caught_up()

    async def _caught_up(self) -> None:
        """Return once everything that was submitted is decided and durable, or the store has failed."""
        while (self._inbox or self._busy) and not self.failing:
            turn = asyncio.get_running_loop().create_future()
            self._awaiting_turn.append(turn)
            await turn

    async def _begin_anew(self, error: Exception) -> None:
        """After a failure: act on nothing, forget everything, open and load again until that works."""
        self.failing = True
        if self._history is not None:
            self._history.note("failed", error=str(error))
        self._outbound.close_all("UNAVAILABLE", "the executor has failed and begins anew; reconnect")
        self._why = error if isinstance(error, StoreError) else StoreError(str(error))
        for reply in self._asked:
            if not reply.done():
                reply.set_exception(self.refusal())
        self._notify(list(self._watchers))
        await self._store.close()
        await self._pause(REOPEN_DELAYS[0])
        await self._open_again()

    async def _open_again(self) -> None:
        """Open and load until that works; a standby is here until it may take the store over."""
        failures = 0
        while not self._stop.is_set():
            self._notify(list(self._watchers))
            try:
                await self.start()
            except StoreTakenError as taken:
                if str(taken) != str(self._why):
                    log.info("%s", taken)
                self._why, delay = taken, STANDBY_SECONDS
            except StoreError as again:
                log.warning("the store still fails: %s", again)
                self._why = again
                await self._store.close()
                failures = min(failures + 1, len(REOPEN_DELAYS) - 1)
                delay = REOPEN_DELAYS[failures]
            else:
                return
            await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not longer than until `stop`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)


def end_of_child(child: Run) -> ChildEnded:
    """Tell a parent how the run ended that it invoked."""
    assert child.parent_key is not None
    return ChildEnded(child.parent_run_id, child.parent_key, child.state, child.output, child.failure)
