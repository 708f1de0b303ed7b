"""A world in which a chooser decides what comes next and what goes wrong, and which notes what came of it.

All code that runs is waited for before something is taken, so that each order of completion is possible, whatever the
code really takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stepwire.errors import Failure, NonDeterminismError
from stepwire.payload import Payload
from stepwire.replay.model import (
    Closure,
    Entry,
    Event,
    Planned,
    Raised,
    Returned,
    SendEvents,
    StepKey,
    Task,
    TimedOut,
    Turn,
    WaitForEvent,
)
from stepwire.testing.events import receive
from stepwire.testing.local import Finished, LocalRun, OpenStep
from stepwire.testing.plans import CRASH, LOST, START, TAKE, TWICE, Chooser, Plan, Token
from stepwire.testing.replays import describe_end, describe_steps
from stepwire.testing.steps import attempt
from stepwire.testing.substitutes import Substitutes
from stepwire.testing.world import World, stop

if TYPE_CHECKING:
    from stepwire.app import App, Function
    from stepwire.replay.invocation import Invocation

PATIENCE_SECONDS = 0.25
"""How long code that takes real time is waited for, the first time; from then on others pass it by."""
SPINS = 4


@dataclass(slots=True)
class History:
    """What happened in a perturbed world.

    `taken`, `widths` and `picked` say of each choice which step was taken, of how many, and at which position. `faults`
    are what went wrong. `lines` tell it all, when they are called.
    """

    taken: list[str] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    picked: list[int] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    faults: list[Token] = field(default_factory=list)
    lines: list[Callable[[], str]] = field(default_factory=list)

    def plan(self) -> Plan:
        """Give the plan that makes it happen again."""
        takes = [Token(TAKE, label) for label in self.taken] if any(self.picked) else []
        return (*takes, *self.faults)


class PerturbedWorld(World):
    """See the module. `slow` holds the labels of steps that are not waited for; it is kept over worlds, and grows.

    In a `silent` one bodies log nothing.
    """

    def __init__(
        self,
        app: App,
        substitutes: Substitutes,
        chooser: Chooser,
        *,
        now: float,
        seed: int,
        slow: set[str],
        threads: ThreadPoolExecutor,
        silent: bool = False,
    ) -> None:
        super().__init__(app, substitutes, now=now, seed=seed, schedule=self._choose, threads=threads)
        self.history = History()
        self._chooser = chooser
        self._slow = slow
        self._silent = silent
        self._numbers: dict[OpenStep, int] = {}
        """In which order steps began."""
        self._resting: dict[OpenStep, int] = {}
        """After how many attempts steps wait for the next one."""
        self._cut: set[OpenStep] = set()
        """Steps that the executor has ended, and not their code."""

    # What comes next.

    async def _move(self) -> None:
        await self._settle()
        await super()._move()

    async def _settle(self) -> None:
        """Wait for all code to end; a step that keeps it waiting too long is slow from then on."""
        for _ in range(SPINS):
            await asyncio.sleep(0)
            if not self._busy():
                return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while self._busy():
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            self._slow.update(self._busy())

    def _busy(self) -> list[str]:
        """Give the steps whose code runs and is worth waiting for."""
        ended = {(id(each.step), each.turn) for each in self._finished}
        return [
            label
            for run in self.runs
            for step in run.open.values()
            if step.task is not None and (id(step), step.turn) not in ended
            if (label := label_of(run, step.planned.key)) not in self._slow
        ]

    def _choose(self, finished: Sequence[Finished]) -> int:
        """Ask which step is taken; what has ended a step first is what counts for it."""
        positions: dict[OpenStep, int] = {}
        for position, each in enumerate(finished):
            positions.setdefault(each.step, position)
        steps = sorted(positions, key=self._numbers.__getitem__)
        labels = [label_of(finished[positions[step]].run, step.planned.key) for step in steps]
        pick = self._chooser.pick(labels)
        self.history.taken.append(labels[pick])
        self.history.widths.append(len(labels))
        self.history.picked.append(pick)
        return positions[steps[pick]]

    def _strike(self) -> None:
        """Let all timers strike that are due at the same time: which of them comes first is a choice, too."""
        super()._strike()
        while self._timers and self._timers[0][0] <= self.now:
            super()._strike()

    def _plan(self, run: LocalRun, planned: Planned) -> None:
        super()._plan(run, planned)
        self._number(run, planned.key)

    def finish(self, run: LocalRun, step: OpenStep, outcome: Payload | Failure | TimedOut) -> None:
        """Queue what a step has come to."""
        self._number(run, step.planned.key)  # some end while they are planned
        super().finish(run, step, outcome)

    def _number(self, run: LocalRun, key: StepKey) -> None:
        step = run.open.get(key)
        if step is not None:
            self._numbers.setdefault(step, len(self._numbers))

    # What goes wrong.

    def create(self, function: Function, event: Event, parent: tuple[LocalRun, OpenStep] | None = None) -> LocalRun:
        """Begin a run; the event may come once more."""
        run = super().create(function, event, parent)
        if parent is None and self._chooser.twice(""):
            self._fault(TWICE, "", f"{START} {event.name!r} arrived again, and started nothing")
            receive(self, event)
        return run

    def invocation(self, run: LocalRun, attempt: int) -> Invocation:
        """Make a new invocation of a run's body; it has not been started."""
        invocation = super().invocation(run, attempt)
        invocation.lead = not self._silent
        return invocation

    def _take(self, finished: Finished) -> None:
        run, step, label = finished.run, finished.step, label_of(finished.run, finished.key)
        if self._in_hand(step) and Token(LOST, label) not in self.history.faults and self._chooser.lost(label):
            self._fault(LOST, label, f"{label}: the report of its attempt was lost, so its code runs again")
            self._begin_again(run, step, "its report was lost")
            return
        attempts = step.attempts
        super()._take(finished)
        if run.open.get(finished.key) is step:
            self._resting[step] = attempts
            self.history.lines.append(lambda: f"{label} {described(finished.outcome)}; it is tried again")
        if self._chooser.twice(label):
            self._arrive_again(finished, label)

    def _arrive_again(self, finished: Finished, label: str) -> None:
        if isinstance(finished.step.planned.target, WaitForEvent | SendEvents):
            self._fault(TWICE, label, f"{label}: its events arrived again, and changed nothing")
            for event in list(self.received):
                receive(self, event)
        else:
            self._fault(TWICE, label, f"{label}: its result arrived again, and was refused")
            self._finished.append(finished)

    def _fail_now(self, run: LocalRun, step: OpenStep, failure: Failure) -> None:
        self._cut.add(step)
        super()._fail_now(run, step, failure)

    def _tell(self, run: LocalRun, entry: Entry) -> None:
        label = label_of(run, entry.key)
        self.history.recorded.append(label)
        self.history.lines.append(lambda: f"{label} {described(entry.outcome)}")
        if run.invocation is None or not self._chooser.crash(label):
            super()._tell(run, entry)
            return
        lost = [
            (each, step)
            for each in self.runs
            if each.ended is None
            for step in each.open.values()
            if self._in_hand(step)
        ]
        again = ", ".join(label_of(each, step.planned.key) for each, step in lost)
        told = f"the worker was lost after {label} was recorded, and the body replayed"
        self._fault(CRASH, label, f"{told}; code of {again} runs again" if again else told)
        for _, step in lost:
            stop(step, "its worker was lost")
        for each in list(self.runs):
            if each.ended is None and each.invocation is not None:
                self._revive(each, each is run)
        for each, step in lost:
            if each.ended is None and each.open.get(step.planned.key) is step:
                self._begin_again(each, step, "its worker was lost")

    def _revive(self, run: LocalRun, told: bool) -> None:
        """Put a new invocation in the place of a lost one. If it is `told` nothing new it must find nothing new."""
        assert run.invocation is not None
        run.invocation.close()
        turn = self._invoke(run)
        for key, step in run.open.items():
            closure = run.invocation.closure(key)
            if closure is not None:
                step.planned = step.planned._replace(target=closure)
        if told:
            self._follow(run, turn)
        elif turn.outcome is not None or turn.found or turn.cancelled:
            self.end(run, self._diverged(run, turn))

    def _diverged(self, run: LocalRun, turn: Turn) -> Raised:
        if isinstance(turn.outcome, Raised):
            return turn.outcome
        does = describe_end(turn.outcome) if turn.outcome is not None else describe_steps(turn.found)
        error = NonDeterminismError(
            f"function {run.function.id!r} does not replay identically: after {len(run.journal)} recorded results the "
            f"run waited, but a replay {does}. A function must do the same in every replay: take clocks, random "
            "numbers and I/O into steps"
        )
        return Raised(self.values.failure(error), error)

    def _in_hand(self, step: OpenStep) -> bool:
        """Whether an attempt at a step is a worker's: its code runs, or its result is on the way."""
        if step in self._cut or not isinstance(step.planned.target, Closure | Task):
            return False
        return step.attempts > 0 and self._resting.get(step) != step.attempts

    def _begin_again(self, run: LocalRun, step: OpenStep, reason: str) -> None:
        """Run an attempt once more, under the same number: losing it was not its own fault."""
        stop(step, reason)
        step.attempts -= 1
        attempt(self, run, step)

    def _fault(self, verb: str, label: str, line: str) -> None:
        self.history.faults.append(Token(verb, label))
        self.history.lines.append(lambda: line)


def label_of(run: LocalRun, key: StepKey) -> str:
    """Name a step among those of all runs."""
    label = str(key)
    while run.parent is not None:
        run, step = run.parent
        label = f"{step.planned.key}/{label}"
    return label


LONGEST_VALUE = 100


def described(outcome: Payload | Failure | TimedOut | Returned | Raised) -> str:
    """Say in a few words what something came to."""
    match outcome:
        case Payload(data):
            text = data.decode(errors="replace")
            return f"gave {shortened(text)}" if text else "is over"
        case Returned(Payload(data)):
            return f"returned {shortened(data.decode(errors='replace'))}"
        case Failure():
            return f"failed: {shortened(str(outcome))}"
        case Raised(failure):
            return f"raised {shortened(str(failure))}"
    return "timed out"


def shortened(text: str) -> str:
    """Cut a text to what fits a line."""
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
