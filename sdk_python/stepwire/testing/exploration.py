"""`explore`: one function under many schedules, which must all lead to the same end."""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stepwire.app import App, Function
from stepwire.testing import plans
from stepwire.testing.code import make_threads
from stepwire.testing.differences import ScheduleError, describe
from stepwire.testing.plans import CRASH, LOST, TWICE, Chooser, Orders, Plan
from stepwire.testing.runner import START, Incoming, blocking, resolve
from stepwire.testing.substitutes import Failing, Substitutes
from stepwire.testing.trials import Case, Projection, Trial, outcome

MOST_SHRINKS = 300
"""Runs that shrinking one schedule may take."""


@dataclass(frozen=True)
class Exploration:
    """What was tried. Nothing differed: that would have been raised.

    `orders` counts the distinct orders in which steps were recorded, `crashes` how often a worker was lost, `repeats`
    how often code ran again because its report was lost, `duplicates` what arrived twice, and `outcomes` the distinct
    ends, of which `same=…` may allow several. `exhaustive` says whether each order of completion was tried.
    """

    schedules: int
    orders: int
    crashes: int
    repeats: int
    duplicates: int
    outcomes: int
    exhaustive: bool
    seconds: float = field(compare=False)

    def __repr__(self) -> str:
        counts = [
            _count(self.schedules, "schedule"),
            f"{'all ' if self.exhaustive else ''}{_count(self.orders, 'order')} of completion",
            _count(self.crashes, "crash", "crashes"),
            _count(self.repeats, "repeated attempt"),
            _count(self.duplicates, "duplicate"),
            _count(self.outcomes, "outcome"),
        ]
        return f"<Exploration: {', '.join(counts)}; {self.seconds:.1f} s>"


def explore(
    function: Function | Callable[..., Any] | str,
    data: Any = None,
    *,
    schedules: int = 500,
    seed: int = 0,
    same: Projection | None = outcome,
    expect: Projection | None = None,
    before: Callable[[], Any] | None = None,
    schedule: str | None = None,
    app: App | None = None,
    event_name: str = "",
    replace: Mapping[str, Any] | None = None,
    fail: Mapping[str, Failing] | None = None,
    invoke: Mapping[str, Any] | None = None,
    events: Sequence[Incoming] = (),
    now: datetime = START,
) -> Exploration:
    """Run a function under many schedules, and see that it ends the same way under each.

    The first schedule is the plain one: steps are recorded in the order of their beginning, and nothing goes wrong. The
    others are what production may bring about. They change the order in which steps complete (where there are few
    orders, each is tried); the worker is lost after a result was recorded, so that the body is replayed in
    another one and attempts in flight run again; the report of an attempt is lost, so that its code runs again though
    it had ended; results and events arrive twice.

    Code of steps really runs, in each schedule and **more than once in those with crashes and lost reports**: a
    step is recorded once, but runs at least once. What it changes elsewhere must be put back by `before`, which is
    called before each schedule and may be async. A step that really takes long takes long in each schedule: `replace`
    it. Bodies log under the plain schedule only.

    `same` gives of a TestRun what must be equal under all schedules: by default its `outcome`, output or error. A
    function that takes whatever comes first may rightly end in several ways: `same=lambda run: sorted(run.output)`, or
    `same=None` to compare nothing. `same=lambda run: (run.output, ledger)` also compares what steps did elsewhere.
    `expect` is a condition that each TestRun must meet: it returns something false or raises AssertionError if not.

    `schedules` is how many are tried, all drawn from `seed`. `schedule` is the text of one that a ScheduleError has
    shown: only this one is tried. Everything else is as in `run`.

    Raises ScheduleError, which shows the smallest schedule found that makes a difference; NonDeterminismError,
    StuckError and SubstituteError as `run` does, if that happens under the plain schedule already.
    """
    __tracebackhide__ = True  # pytest shows the test's own line then
    coroutine = aexplore(
        function,
        data,
        schedules=schedules,
        seed=seed,
        same=same,
        expect=expect,
        before=before,
        schedule=schedule,
        app=app,
        event_name=event_name,
        replace=replace,
        fail=fail,
        invoke=invoke,
        events=events,
        now=now,
    )
    try:
        return blocking(coroutine)
    except ScheduleError as error:
        raise error.with_traceback(None) from error.__cause__


async def aexplore(
    function: Function | Callable[..., Any] | str,
    data: Any = None,
    *,
    schedules: int = 500,
    seed: int = 0,
    same: Projection | None = outcome,
    expect: Projection | None = None,
    before: Callable[[], Any] | None = None,
    schedule: str | None = None,
    app: App | None = None,
    event_name: str = "",
    replace: Mapping[str, Any] | None = None,
    fail: Mapping[str, Failing] | None = None,
    invoke: Mapping[str, Any] | None = None,
    events: Sequence[Incoming] = (),
    now: datetime = START,
) -> Exploration:
    """Do as `explore` does, on the running loop: async step code can use what belongs to it."""
    __tracebackhide__ = True
    app, function = resolve(function, app)
    wanted = None if schedule is None else plans.read(schedule)
    threads = make_threads()
    case = Case(
        app=app,
        function=function,
        data=data,
        event_name=event_name,
        events=tuple(events),
        now=now.timestamp(),
        seed=seed,
        substitutes=Substitutes(replace or {}, fail or {}, invoke or {}),
        same=same,
        expect=expect,
        before=before,
        threads=threads,
    )
    try:
        return await Explorer(case, seed, schedules).go(wanted)
    except ScheduleError as error:
        raise error.with_traceback(None) from error.__cause__
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


class Explorer:
    """Tries schedules of a case until one differs from the first."""

    def __init__(self, case: Case, seed: int, schedules: int) -> None:
        self._case = case
        self._seed = seed
        self._schedules = max(schedules, 1)
        self._orders = Orders()
        self._ways: set[tuple[str, ...]] = set()
        self._ends: set[object] = set()
        self._faults: list[str] = []

    async def go(self, wanted: Plan | None) -> Exploration:
        """Try them all, or the wanted one. Raises ScheduleError for the first that differs."""
        began = time.perf_counter()
        first = await self._case.trial(self._orders.chooser(), is_first=True)
        if first.broken is not None:
            raise first.broken
        self._note(first)
        if first.complaint:
            raise ScheduleError(describe(self._case, first, first, (), "the plain schedule"), "")
        tried = 1
        async for trial in self._trials(first, wanted):
            tried += 1
            self._note(trial)
            if self._case.differs(first, trial):
                await self._fail(first, trial, wanted, tried)
        return Exploration(
            schedules=tried,
            orders=len(self._ways),
            crashes=self._faults.count(CRASH),
            repeats=self._faults.count(LOST),
            duplicates=self._faults.count(TWICE),
            outcomes=len(self._ends),
            exhaustive=self._orders.exhausted,
            seconds=time.perf_counter() - began,
        )

    async def _trials(self, first: Trial, wanted: Plan | None) -> AsyncIterator[Trial]:
        """Run schedules: the given one; or the simple ones, then each order if there are few, then drawn ones."""
        if wanted is not None:
            yield await self._case.trial(plans.following(wanted))
            return
        left = self._schedules - 1
        for chooser in self._simple(first)[:left]:
            left -= 1
            yield await self._case.trial(chooser)
        self._orders.went(first.history.widths, first.history.picked)
        if math.prod(first.history.widths) <= self._schedules // 2:
            for _ in range(min(left, self._schedules // 2)):
                if self._orders.exhausted:
                    break
                left -= 1
                trial = await self._case.trial(self._orders.chooser())
                self._orders.went(trial.history.widths, trial.history.picked)
                yield trial
        for number in range(left):
            yield await self._case.trial(plans.drawn(random.Random(f"{self._seed}/{number}")))

    def _simple(self, first: Trial) -> Sequence[Chooser]:
        """Give schedules of one idea: the plain one again, all reversed, each fault everywhere, and at each step."""
        never, always = plans.never, plans.always
        everywhere = [
            Chooser(plans.first, never, never, never),
            Chooser(plans.last, never, never, never),
            Chooser(plans.first, always, never, never),
            Chooser(plans.first, never, always, never),
            Chooser(plans.first, never, never, always),
            Chooser(plans.last, always, always, always),
        ]
        single = [
            plans.following((plans.Token(verb, label),)) for label in first.history.recorded for verb in (CRASH, LOST)
        ]
        return [*everywhere, *single[: self._schedules // 4]]

    def _note(self, trial: Trial) -> None:
        self._ways.add(tuple(trial.history.recorded))
        self._ends.add(trial.kind())
        self._faults += [verb for verb, _ in trial.history.faults]

    async def _fail(self, first: Trial, trial: Trial, wanted: Plan | None, number: int) -> None:
        """Shrink the schedule of a trial that differs, and raise the error that shows it."""

        async def still_differs(plan: Plan) -> bool:
            nonlocal trial
            other = await self._case.trial(plans.following(plan))
            if self._case.differs(first, other):
                trial = other
                return True
            return False

        if wanted is None:
            plan = await plans.shrink(trial.history.plan(), still_differs, MOST_SHRINKS)
            name = f"schedule {number}, shrunk to {_count(len(plan), 'change')}" if plan else f"schedule {number}"
        else:
            plan, name = wanted, "the given schedule"
        raise ScheduleError(describe(self._case, first, trial, plan, name), plans.write(plan)) from trial.broken


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"
