"""The engine loop: the only owner of the state. Takes what has arrived, decides it, commits, and then acts.

While a commit runs, what arrives is decided into the next decision, whose commit begins when that one has ended; that
is the group commit. It knows neither gRPC nor SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from stepwire_core.commands import Answer, Command, Decision, FindEvents, FindWaits, FollowUp
from stepwire_core.containment import DecisionError
from stepwire_core.decide import pieces
from stepwire_core.inputs import ExecutorDraining, Input, Reply, RunsLoaded, Tick
from stepwire_core.model import Event, Limits, Now, Run
from stepwire_core.state import State
from stepwire_executor.event_index import PAGE
from stepwire_executor.history import History
from stepwire_executor.loading import Loading
from stepwire_executor.ports import Clock, Observer, Outbound
from stepwire_executor.searches import Searches
from stepwire_executor.store import Store, StoreError, StoreTakenError
from stepwire_executor.vitals import Vitals
from stepwire_executor.watchers import Watchers

log = logging.getLogger("stepwire.executor")

SET_BACK_SECONDS = 1.0
"""A clock that was set back by less is none that anybody has set."""
LONGEST_WAIT = 1.0
"""Seconds after which the clocks are looked at again; the wall clock may have been set."""
WORK_A_TURN = 250
"""Inputs, or events, steps and runs of large ones, that are decided before others have a turn: some five milliseconds.
With turns after fewer inputs, steps or commands a fan-out of 10,000 steps takes 5 % longer."""
COMMANDS_A_PIECE = 500
"""Commands that are carried out before others have a turn."""
MOST_QUEUED = 20_000
"""Inputs in the queue from which on clients are asked to wait."""
REOPEN_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts to open a store that has failed; the last one is repeated."""
STANDBY_SECONDS = 0.25
"""How often a standby looks whether it may take the store over."""


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
        secret: bytes | None = None,
        vitals: Vitals | None = None,
    ) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._outbound = outbound
        self._observers = observers
        self._history = history
        self._secret = os.urandom(32) if secret is None else secret
        self._inbox: list[Input] = []
        self._queued_at = 0.0
        """When the first of them was submitted, by the monotonic clock."""
        self._wake = asyncio.Event()
        self._state = State(0, limits)
        self._loading = Loading(store)
        self._asked: set[asyncio.Future[Any]] = set()
        self._watchers = Watchers()
        self._open: Decision | None = None
        """What was decided since the last commit began."""
        self._commit: asyncio.Future[None] | None = None
        """The commit that runs: of the oldest decision that is not sent."""
        self._waiting_durable: list[asyncio.Future[None]] = []
        """Who waits for a point where all is durable."""
        self.decisions = 0
        self._to_decide: list[asyncio.Future[None]] = []
        """Who waits for the next decision to begin."""
        self._searches = Searches(store, self)
        self._moved = 0.0
        """By how much the time of day had been set when the clock was last read."""
        self.failing = True
        self._why: StoreError = StoreError("it has not been opened yet")
        self.draining = False
        self.vitals = vitals or Vitals()
        self._stop = asyncio.Event()

    @property
    def state(self) -> State:
        """The state in memory; durable only right after `wait_durable`."""
        return self._state

    def now(self) -> Now:
        """Read both clocks."""
        return self._clock()

    @property
    def queued(self) -> tuple[int, float]:
        """How many inputs wait to be decided, and how many seconds the first of them has waited."""
        return len(self._inbox), time.monotonic() - self._queued_at if self._inbox else 0.0

    @property
    def watches(self) -> int:
        """How many watch runs, or wait for their ends."""
        return len(self._watchers)

    @property
    def overloaded(self) -> bool:
        """True while more is queued than the engine should be given."""
        return len(self._inbox) > MOST_QUEUED

    def submit(self, input_: Input) -> None:
        """Queue an input; inputs are decided in the order of their submission."""
        if not self._inbox:
            self._queued_at = time.monotonic()
            self.wake()
        self._inbox.append(input_)

    def wake(self) -> None:
        """Have the loop turn."""
        self._wake.set()

    async def ask(self, make: Callable[[Reply], Input]) -> Any:
        """Submit the input that `make` builds around a reply token, and return the value of its Answer.

        Raises StoreError if the store fails before the answer is durable, and DecisionError if a bug of ours keeps the
        input from being decided.
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

    async def decides(self) -> None:
        """Return once everything that was submitted is being decided, or the engine begins anew."""
        if self._inbox and not self.failing and not self._stop.is_set():
            begun = asyncio.get_running_loop().create_future()
            self._to_decide.append(begun)
            await begun

    async def wait_durable(self) -> None:
        """Return at a point where all that `state` shows is durable. Raises StoreError if the store fails."""
        while self._state.unsent and not self.failing and not self._stop.is_set():
            settled = asyncio.get_running_loop().create_future()
            self._waiting_durable.append(settled)
            await settled
        if self.failing:
            raise self.refusal()
        if self._state.unsent:  # the engine was stopped before all was durable
            raise StoreError("the executor stops; ask again")

    async def changes(self, run_id: str, *, end_only: bool = False) -> AsyncIterator[Run | None]:
        """Yield at once, and then after commits that changed the run (several may be one): the run, if it has ended.

        With `end_only` it yields once more when the run has ended, and not before.
        """
        changed, ended = asyncio.Event(), None

        def tell(run: Run | None) -> None:
            nonlocal ended
            ended = run or ended
            changed.set()

        unwatch = self._watchers.add(run_id, tell, end_only=end_only)
        try:
            while True:
                if self.failing:
                    raise self.refusal()
                changed.clear()
                yield ended
                await changed.wait()
        finally:
            unwatch()

    def watch_end(self, run_id: str, tell: Callable[[Run | None], None]) -> Callable[[], None]:
        """Have `tell` called with the run once its end is durable, and with None when the store fails.

        Gives what ends the watch.
        """
        return self._watchers.add(run_id, tell, end_only=True)

    def refusal(self) -> StoreError:
        """Give the reason why nothing is accepted while `failing`."""
        return type(self._why)(str(self._why))

    async def start(self) -> None:
        """Open the store and load what has work. Raises StoreError; `run` then begins with trying again."""
        opened = await self._store.open()
        self._state = State(
            opened.epoch, self._limits, opened.functions, opened.last_position, self._clock(), opened.told, self._secret
        )
        self._state.draining = self.draining
        if self._history is not None:
            self._history.opened(opened.epoch, self._limits)
        self._inbox.clear()
        await self._loading.begin()
        after = ""
        count = 0
        while ids := await self._store.hot_runs(after, PAGE):
            self.submit(RunsLoaded(await self._store.load_runs(ids)))
            after = ids[-1]
            count += len(ids)
        self.failing = False
        log.info("epoch %d; %d runs to go on with", opened.epoch, count)
        self._searches.start(opened)

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
                log.exception("a decision or a look-up failed, which is a bug in Stepwire; the engine begins anew")
                await self._begin_anew(error)
        await self._store.close()  # it may just have been opened again
        self._wake_all(self._waiting_durable)
        self._wake_all(self._to_decide)

    async def drain(self) -> None:
        """Hand out nothing new, and return once all that was reported is durable."""
        self.draining = True
        self.submit(ExecutorDraining())
        await self.caught_up()

    async def stop(self) -> None:
        """End `run` after the turn that it is in, and close the store."""
        self._stop.set()
        self.wake()
        await self._searches.stop()
        if self._commit is not None:
            await asyncio.wait([self._commit])
        await self._store.close()

    async def _turn(self) -> None:
        """Take one step on: with what has come, with the commit that has ended, or both."""
        await self._gather()
        if self._stop.is_set():
            return
        if self._searches.failure is not None:
            raise self._searches.failure
        if self._has_committed:
            await self._committed()
        if self._inbox and not self._waiting_durable:
            await self._decide()
        if self._open is not None and self._commit is None:
            await self._close_decision()
        if self._waiting_durable and not self._state.unsent:
            self._wake_all(self._waiting_durable)
            await asyncio.sleep(0)  # they look at the state now

    async def _decide(self) -> None:
        """Decide what has come, and send what need not wait for a commit."""
        self.vitals.waits.note(self.queued[1])
        batch, self._inbox = self._inbox, []
        self.decisions += 1
        self._wake_all(self._to_decide)
        self._state.told = self._searches.told  # what was submitted for these events is in this batch, or was before
        batch = await self._load(batch)
        await self._store.confirm()
        if self._open is None:
            self._open = self._state.begin()
        early, faults = len(self._open.early), len(self._open.faults)
        work = 0
        try:
            for size in pieces(self._state, batch, self._clock(), self._open):
                work += size
                if work >= WORK_A_TURN:
                    work = 0
                    await asyncio.sleep(0)
        finally:
            for fault in self._open.faults[faults:]:
                self.vitals.note_fault(fault)
        if len(self._open.early) > early:
            await self._send(self._open.early[early:])  # they are on their way before the commit is prepared

    async def _close_decision(self) -> None:
        """Begin the commit of what was decided; without anything to write it is carried out here and now."""
        decision, self._open = self._open, None
        assert decision is not None
        if decision.writes:
            for _ in self._store.read_ahead(decision.writes):
                await asyncio.sleep(0)
            began = time.monotonic()

            def done(_: object) -> None:
                self.vitals.commits.note(time.monotonic() - began)
                self.wake()

            self._commit = asyncio.ensure_future(self._store.commit(decision.writes))  # it has begun
            self._commit.add_done_callback(done)
        else:
            self._state.sent(decision)
            await self._act(decision)

    async def _committed(self) -> None:
        """Carry out the decision whose commit has ended; raises StoreError if that failed."""
        commit, self._commit = self._commit, None
        assert commit is not None
        commit.result()
        await self._store.confirm()  # a process that was stopped in the commit may have been replaced since
        decision = self._state.unsent[0]
        self._state.sent(decision)
        await self._act(decision)

    async def _make_durable(self) -> None:
        """Have all that was decided durable: what is read from the store now is what the state rests on."""
        while self._state.unsent:
            if self._commit is None:
                await self._close_decision()
            else:
                await asyncio.wait([self._commit])
                await self._committed()

    async def _gather(self) -> None:
        """Wait until there is something to decide, or the commit that runs has ended."""
        if self._commit is not None and self._waiting_durable:
            await asyncio.wait([self._commit])
        if self._inbox or self._has_committed:
            await asyncio.sleep(0)
            return
        self._wake.clear()
        now = self._clock()
        delay = self._state.next_delay(now)
        delay = LONGEST_WAIT if delay is None else min(delay, LONGEST_WAIT)
        due = self._loading.until_due(now)
        if due is not None:
            delay = min(delay, due)
        alarm = asyncio.get_running_loop().call_later(delay, self._wake.set)
        await self._wake.wait()
        alarm.cancel()
        if not self._inbox and not self._has_committed:
            self.submit(Tick())

    @property
    def _has_committed(self) -> bool:
        """Whether a commit has ended that was not told of."""
        return self._commit is not None and self._commit.done()

    async def _load(self, batch: Sequence[Input]) -> list[Input]:
        """Return a batch with what it needs from the store."""
        now = self._clock()
        if now.moved < self._moved - SET_BACK_SECONDS:
            self._searches.begin(self._searches.wake_sleepers)
        self._moved = now.moved
        return await self._loading.load(batch, self._state, now, self._make_durable)

    async def _send(self, commands: Sequence[Command]) -> None:
        """Send commands, with turns for others in between and at the end."""
        for at in range(0, len(commands), COMMANDS_A_PIECE):
            self._outbound.send(commands[at : at + COMMANDS_A_PIECE])
            await asyncio.sleep(0)

    async def _act(self, decision: Decision) -> None:
        """Carry out what the decision's writes have now made true."""
        if self._history is not None:
            self._history.decided(decision)
        outbound: list[Command] = []
        events: list[Event] = []
        for command in decision.commands:
            match command:
                case Answer(reply, value):
                    if isinstance(reply, asyncio.Future) and not reply.done():
                        if isinstance(value, DecisionError):
                            reply.set_exception(value)
                        else:
                            reply.set_result(value)
                case FollowUp(input_):
                    self.submit(input_)
                case FindWaits(event):
                    events.append(event)
                case FindEvents():
                    self._searches.begin(self._searches.find_events, command)
                case _:
                    outbound.append(command)
        if len(outbound) > COMMANDS_A_PIECE:
            await self._send(outbound)
        elif outbound:
            self._outbound.send(outbound)
        if events:
            self._searches.tell(events)
        if decision.faults:
            self._searches.recover_again()  # a child's end may have been among what was taken back
        if decision.observations:
            self._watchers.ended(decision.observations)
            for observe in self._observers:
                try:
                    observe(decision.observations)
                except Exception:  # what is decided does not depend on who looks on
                    self.vitals.faults += 1
                    log.exception("an observer has failed, a bug in Stepwire; what it was to observe is lost")
        self._watchers.changed(decision.changed_runs)
        for run in decision.unloaded:
            self._loading.falls_asleep(run)

    def _wake_all(self, waiting: list[asyncio.Future[None]]) -> None:
        for each in waiting:
            if not each.done():  # whoever waited for it may have been cancelled
                each.set_result(None)
        waiting.clear()

    async def caught_up(self) -> None:
        """Return once everything that was submitted is decided and durable, or the store has failed."""
        with contextlib.suppress(StoreError):
            await self.ask(Tick)

    async def _begin_anew(self, error: Exception) -> None:
        """After a failure: act on nothing, forget everything, open and load again until that works."""
        self.failing = True
        self.vitals.begun_anew += 1
        if self._history is not None:
            self._history.note("failed", error=str(error))
        self._outbound.close_all("UNAVAILABLE", "the executor has failed and begins anew; reconnect")
        await self._searches.stop()
        self._why = error if isinstance(error, StoreError) else StoreError(str(error))
        for reply in self._asked:
            if not reply.done():
                reply.set_exception(self.refusal())
        self._watchers.wake_all()
        self._wake_all(self._waiting_durable)
        self._wake_all(self._to_decide)
        if self._commit is not None:
            await asyncio.wait([self._commit])
            self._commit.exception()  # it is known, or will be found out when the store is opened
        self._open = self._commit = None
        await self._store.close()
        await self._pause(REOPEN_DELAYS[0])
        await self._open_again()

    async def _open_again(self) -> None:
        """Open and load until that works; a standby is here until it may take the store over."""
        failures = 0
        while not self._stop.is_set():
            self._watchers.wake_all()
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
