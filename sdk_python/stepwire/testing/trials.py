"""Runs of one function under schedules: each in a fresh world, compared with the plain one, and put into words."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from stepwire.app import App, Function
from stepwire.errors import NonDeterminismError
from stepwire.failures import text_of, type_name
from stepwire.replay.model import Raised, Returned
from stepwire.testing.perturbed import History, PerturbedWorld, described
from stepwire.testing.plans import Chooser
from stepwire.testing.records import TestRun
from stepwire.testing.runner import Incoming, play, report
from stepwire.testing.substitutes import Substitutes
from stepwire.testing.world import StuckError

Projection = Callable[[TestRun], Any]


def outcome(run: TestRun) -> Any:
    """Give what must be the same of runs unless a test says otherwise: the output, or the error's type and message."""
    return run.output if run.error is None else (type_name(run.error), text_of(run.error))


@dataclass(frozen=True, slots=True)
class Trial:
    """One run under a schedule.

    Either `run` and `ended` are set, or `broken`: the run could not end, or did not replay. `seen` is what a projection
    gives of it, and `complaint` what the test's own condition says against it.
    """

    history: History
    run: TestRun | None = None
    ended: Returned | Raised | None = None
    broken: Exception | None = None
    seen: Any = None
    complaint: str = ""

    @property
    def failure(self) -> tuple[str, str] | None:
        """Type and message of what it failed with."""
        if self.broken is not None:
            return type(self.broken).__name__, str(self.broken)
        if isinstance(self.ended, Raised):
            return self.ended.failure.type, self.ended.failure.message
        return None

    def end(self) -> str:
        """Say how it ended."""
        if self.broken is not None:
            return f"{type(self.broken).__name__}: {self.broken}"
        return described(self.ended) if self.ended is not None else "did not end"

    def kind(self) -> object:
        """Give something that tells outcomes apart."""
        return self.failure or (self.ended.output.data if isinstance(self.ended, Returned) else None)


@dataclass(frozen=True)
class Case:
    """What is explored: a function, what it is started with, and what must be the same of its runs."""

    app: App
    function: Function
    data: Any
    event_name: str
    events: Sequence[Incoming]
    now: float
    seed: int
    substitutes: Substitutes
    same: Projection | None
    expect: Projection | None
    before: Callable[[], Any] | None
    threads: ThreadPoolExecutor
    slow: set[str] = field(default_factory=set)

    async def trial(self, chooser: Chooser, *, is_first: bool = False) -> Trial:
        """Run the function once. Raises SubstituteError if nothing of the `first` run has a replacement's name."""
        if self.before is not None:
            waiting = self.before()
            if inspect.isawaitable(waiting):
                await waiting
        world = PerturbedWorld(
            self.app,
            self.substitutes,
            chooser,
            now=self.now,
            seed=self.seed,
            slow=self.slow,
            threads=self.threads,
            silent=not is_first,
        )
        try:
            local = await play(world, self.function, self.data, self.event_name, self.events, thorough=is_first)
        except (StuckError, NonDeterminismError) as error:
            return Trial(world.history, broken=error)
        if is_first:
            self.substitutes.check_used([key for each in world.runs for key in each.records], world.invoked)
        run = report(world, local)
        return Trial(world.history, run, local.ended, seen=self._see(run), complaint=self._complain(run))

    def _see(self, run: TestRun) -> Any:
        if self.same is None or self.same is outcome:
            return None
        try:
            seen = self.same(run)
        except Exception:
            if run.error is None:
                raise
            seen = outcome(run)  # the projection was made for an output, and there is none
        try:
            return copy.deepcopy(seen)  # it may be the test's own list, which later runs change
        except Exception:
            return seen

    def _complain(self, run: TestRun) -> str:
        if self.expect is None:
            return ""
        try:
            met = self.expect(run)
        except AssertionError as error:
            return f"expect= raised AssertionError: {error}".removesuffix(": ")
        return "" if met is None or met else f"expect= gave {met!r}"

    def differs(self, first: Trial, other: Trial) -> bool:
        """Whether another schedule has led to something else than the first one."""
        if other.complaint or other.broken is not None:
            return True
        if self.same is not outcome:
            return self.same is not None and bool(first.seen != other.seen)
        if first.failure is not None or other.failure is not None:
            return first.failure != other.failure
        assert first.run is not None
        assert other.run is not None
        return first.ended != other.ended and bool(first.run.output != other.run.output)
