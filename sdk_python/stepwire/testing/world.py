"""The executor's part in one process, with a clock of its own: plans, attempts, retries, timers, events, child runs.

It owns what happens when. The code of steps really runs, on the asyncio loop that calls `World.execute`; time passes
only when nothing else can move, and then at once. Which of several finished steps is recorded next is the schedule's
choice, so that a test can try the orders that parallel workers could bring about.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from stepwire.body.code import run_body
from stepwire.errors import Failure, NestedStepError, StepwireError
from stepwire.payload import Payload
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import (
    Entry,
    Event,
    Expected,
    Planned,
    Raised,
    Retry,
    Returned,
    RunInfo,
    StepKey,
    TimedOut,
    Turn,
    target_name,
)
from stepwire.testing.code import Code
from stepwire.testing.events import release
from stepwire.testing.local import Finished, LocalRun, OpenStep, Outcome, Schedule, Seen, in_order, is_current
from stepwire.testing.records import StepRecord
from stepwire.testing.steps import begin, output_type
from stepwire.testing.substitutes import Substitutes
from stepwire.values import Values

if TYPE_CHECKING:
    from stepwire.app import App, Function

DEFAULT_RETRY = Retry()
PATIENCE_SECONDS = 1.0
"""How long code really runs at least before time passes for it: a loaded machine must not end a sleep too early."""


class StuckError(StepwireError):
    """A function in a test waits for something that does not come."""


class World:
    """See the module. `now` is its clock, in Unix seconds; `runs` are all runs, the first one being the test's."""

    def __init__(
        self,
        app: App,
        substitutes: Substitutes,
        *,
        now: float,
        seed: int = 0,
        schedule: Schedule = in_order,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        self.app = app
        self.substitutes = substitutes
        self.now = now
        self.runs: list[LocalRun] = []
        self.invoked: list[str] = []
        self.values = Values(app.codec)
        self.received: list[Event] = []
        self.event_ids: dict[str, Event] = {}
        """All events so far: one that comes again is none."""
        self.code = Code(threads)
        self._schedule = schedule
        self._seed = seed
        self._random = random.Random(seed)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timers_set = 0
        self._finished: list[Finished] = []
        self._woken = asyncio.Event()

    # What moves it.

    async def execute(self, function: Function, event: Event) -> LocalRun:
        """Run a function to its end. Raises StuckError if it waits for something that can't come."""
        run = self.create(function, event)
        try:
            while run.ended is None:
                await self._move()
        finally:
            for other in self.runs:
                if other.ended is None:
                    self.end(other, Raised(Failure("RunCancelledError", "the test's run has ended")))
            await self.code.close()
        return run

    async def _move(self) -> None:
        """Take something that has ended; without that wait for code that runs; without that let time pass."""
        await asyncio.sleep(0)
        self._finished = [each for each in self._finished if each.wanted]
        if self._finished:
            self._take(self._finished.pop(self._schedule(self._finished)))
        elif any(step.task is not None for run in self.runs for step in run.open.values()):
            await self._wait_for_code()
        elif self._timers:
            self._strike()
        else:
            raise StuckError(describe_stuck(self.runs))

    async def _wait_for_code(self) -> None:
        """Wait until code has ended; the next timer strikes if that really takes longer than the timer does."""
        self._woken.clear()
        patience = max(PATIENCE_SECONDS, self._timers[0][0] - self.now) if self._timers else None
        try:
            async with asyncio.timeout(patience):
                await self._woken.wait()
        except TimeoutError:
            self._strike()

    def _strike(self) -> None:
        """Let time pass until the next timer."""
        due, _, strike = heapq.heappop(self._timers)
        self.now = max(self.now, due)
        strike()

    def at(self, due: float, strike: Callable[[], None]) -> None:
        """Call something at a time of this world."""
        self._timers_set += 1
        heapq.heappush(self._timers, (due, self._timers_set, strike))

    def after(self, seconds: float, run: LocalRun, step: OpenStep, strike: Callable[[], None]) -> None:
        """Call something later, unless the step is in another turn by then."""
        turn = step.turn
        self.at(self.now + seconds, lambda: strike() if is_current(run, step, turn) else None)

    # Runs.

    def create(self, function: Function, event: Event, parent: tuple[LocalRun, OpenStep] | None = None) -> LocalRun:
        """Begin a run."""
        run_id = f"{parent[0].id}/{parent[1].planned.key}" if parent is not None else f"test-run-{self._seed}"
        run = LocalRun(run_id, function, event, self.now, parent, since=len(self.received))
        self.runs.append(run)
        self.event_ids[event.id] = event
        if function.run_timeout is not None:
            self.at(self.now + function.run_timeout, lambda: self._time_out(run))
        self._begin(run)
        return run

    def invocation(self, run: LocalRun, attempt: int) -> Invocation:
        """Make a new invocation of a run's body; it has not been started."""
        info = RunInfo(run.id, attempt, [run.event], run.created_at, self.app.name, run.function.id)
        invocation = Invocation(run.function, info, self.values, run_body)
        invocation.on_nested = functools.partial(_fail_nested, run)
        return invocation

    def _begin(self, run: LocalRun) -> None:
        """Start a run's body over what is recorded so far."""
        if run.ended is None:
            self._follow(run, self._invoke(run))

    def _invoke(self, run: LocalRun) -> Turn:
        """Give a run a new invocation over what is recorded so far."""
        run.invocation = self.invocation(run, run.attempt)
        known = [
            Expected(key, step.planned.kind, step.planned.source, target_name(step.planned.target, self.app.name))
            for key, step in run.open.items()
        ]
        return run.invocation.start(list(run.journal), known)

    def _follow(self, run: LocalRun, turn: Turn) -> None:
        """Do what a body asks for after it has run dry."""
        cancelled = () if turn.outcome is not None else tuple(turn.cancelled)
        run.seen.append(Seen(run.attempt, len(run.journal), tuple(turn.found), cancelled, turn.outcome))
        for key in cancelled:
            step = run.open.get(key)
            self.drop(run, key, "the function's body cancelled it")
            if step is not None:
                release(self, run, step)
        for planned in turn.found:
            self._plan(run, planned)
        if turn.outcome is not None:
            self._take_outcome(run, turn.outcome)

    def _take_outcome(self, run: LocalRun, outcome: Returned | Raised) -> None:
        """End a run, or try its body again after a while."""
        policy = run.function.retry or DEFAULT_RETRY
        if isinstance(outcome, Returned) or not outcome.failure.retryable or run.attempt > policy.retries:
            self.end(run, outcome)
            return
        if run.invocation is not None:
            run.invocation.close()
            run.invocation = None
        delay = self.delay(policy, run.attempt, outcome.failure)
        run.attempt += 1
        self.at(self.now + delay, lambda: self._begin(run))

    def end(self, run: LocalRun, outcome: Returned | Raised) -> None:
        """End a run: give up what is open, and tell its parent."""
        for key in list(run.open):
            self.drop(run, key, "the run has ended")
        if run.invocation is not None:
            run.invocation.close()
            run.invocation = None
        run.ended, run.ended_at = outcome, self.now
        if run.parent is not None:
            told = outcome.output if isinstance(outcome, Returned) else outcome.failure
            self.finish(*run.parent, told)

    def _time_out(self, run: LocalRun) -> None:
        if run.ended is None:
            limit = f"its function's timeout of {run.function.run_timeout:g} s (timeout=…)"
            message = f"run {run.id} of {run.function.id!r} took longer than {limit}"
            self.end(run, Raised(Failure("RunTimeoutError", message, retryable=False)))

    # Steps.

    def _plan(self, run: LocalRun, planned: Planned) -> None:
        key = planned.key
        record = run.records[key] = StepRecord(key.id, key.index, planned.kind, planned.source)
        step = run.open[key] = OpenStep(planned, record)
        if planned.step_timeout is not None:
            message = f"step {key} of run {run.id} took longer than its timeout of {planned.step_timeout:g} s"
            failure = Failure("StepTimeoutError", message, retryable=False)
            self.at(self.now + planned.step_timeout, lambda: self._fail_now(run, step, failure))
        begin(self, run, step)

    def _fail_now(self, run: LocalRun, step: OpenStep, failure: Failure) -> None:
        """End a step that has taken too long, whatever it is doing."""
        if run.ended is None and run.open.get(step.planned.key) is step and not step.over:
            stop(step, failure.message)
            self.finish(run, step, failure)

    def finish(self, run: LocalRun, step: OpenStep, outcome: Outcome) -> None:
        """Queue what a step, or an attempt at it, has come to; the schedule says when it is taken."""
        self._finished.append(Finished(run, step, step.turn, outcome))
        self._woken.set()

    def _take(self, finished: Finished) -> None:
        """Record a result, or plan the next attempt."""
        run, step, outcome = finished.run, finished.step, finished.outcome
        step.turn += 1
        step.task = None
        if isinstance(outcome, Failure):
            step.record.failure = outcome
            policy = step.planned.retry or run.function.retry or DEFAULT_RETRY
            if outcome.retryable and step.attempts and step.attempts <= policy.retries:
                delay = self.delay(policy, step.attempts, outcome)
                self.after(delay, run, step, lambda: begin(self, run, step))
                return
        self._record(run, step, outcome)

    def _record(self, run: LocalRun, step: OpenStep, outcome: Outcome) -> None:
        key = step.planned.key
        attempts = max(step.attempts, 1)
        planned = step.planned
        target = target_name(planned.target, self.app.name)
        entry = Entry(len(run.journal) + 1, key, planned.kind, outcome, self.now, attempts, planned.source, target)
        run.journal.append(entry)
        del run.open[key]
        if isinstance(outcome, Payload):
            step.record.ended = "succeeded"
            with contextlib.suppress(StepwireError):  # the body is told where it awaits the step
                step.record.output = self.values.decode(outcome, output_type(self, step), f"the output of step {key}")
        else:
            step.record.ended = "timed out" if isinstance(outcome, TimedOut) else "failed"
        self._tell(run, entry)

    def _tell(self, run: LocalRun, entry: Entry) -> None:
        """Give a run's body what was just recorded."""
        if run.invocation is not None:
            self._follow(run, run.invocation.resume([entry]))

    def drop(self, run: LocalRun, key: StepKey, reason: str) -> None:
        """Give up a step, with its code and its child run."""
        step = run.open.pop(key, None)
        if step is None:
            return
        step.record.ended = "cancelled"
        stop(step, reason)
        if step.child is not None and step.child.ended is None:
            self.end(step.child, Raised(Failure("RunCancelledError", f"its parent gave it up: {reason}")))

    def delay(self, policy: Retry, failures: int, failure: Failure) -> float:
        """Draw the delay in seconds before the next attempt."""
        if failure.retry_after is not None:
            return failure.retry_after
        ceiling = min(policy.maximum_interval, policy.initial_interval * policy.multiplier ** min(failures - 1, 64))
        return self._random.uniform(0, ceiling)


def stop(step: OpenStep, reason: str) -> None:
    """Tell a step's code, if it runs, that its result is no longer wanted."""
    step.turn += 1
    if step.context is not None:
        step.context.cancel(reason)
    if step.task is not None:
        step.task.cancel()
        step.task = None


def describe_stuck(runs: Sequence[LocalRun]) -> str:
    """Say what every unfinished run waits for."""
    lines = []
    for run in runs:
        if run.ended is None:
            waits = ", ".join(f"{step.planned.kind.name.lower()} {str(key)!r}" for key, step in run.open.items())
            lines.append(f"function {run.function.id!r} waits for {waits or 'nothing'}")
    return (
        f"{'; '.join(lines)}: nothing can move, and there is no time to pass. Give the events that it waits for in "
        "events=[(name, data), …], or a timeout to the wait"
    )


def _fail_nested(run: LocalRun, error: NestedStepError) -> None:
    """Have what runs of a run fail: its code has started a step, in a thread of its own."""
    for step in list(run.open.values()):
        if step.context is not None:
            step.context.nested = step.context.nested or error
