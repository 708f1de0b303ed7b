"""Plays the executor for one invocation at a time: completes steps in a seeded order and keeps the journal."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Sequence
from typing import Any

from stepwire.app import Function
from stepwire.body.code import run_body
from stepwire.errors import Failure
from stepwire.payload import Payload
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import (
    Closure,
    Entry,
    Event,
    Expected,
    Planned,
    Raised,
    Returned,
    RunInfo,
    SendEvents,
    Sleep,
    StepKind,
    TimedOut,
    Turn,
)
from stepwire.values import Values, return_type

START = 1_700_000_000.0
EMPTY = Payload(b"", "")
VALUES = Values()


def invocation(body: Callable[..., Any], data: object = None, values: Values = VALUES, **limits: int) -> Invocation:
    """Make an invocation of a body, triggered by an event with `data`."""
    is_async = inspect.iscoroutinefunction(body)
    function = Function(body.__name__, body, is_async=is_async, output_type=return_type(body))
    event = Event("e", "go", values.encode(data), START)
    info = RunInfo("run-1", 1, (event,), START, "app", body.__name__)
    return Invocation(function, info, values, run_body, **limits)


class Driver:
    """Runs a body live. `found` lists keys in the order of their discovery, turn by turn."""

    def __init__(self, body: Callable[..., Any], data: object = None, seed: int = 0) -> None:
        self.body = body
        self.data = data
        self.random = random.Random(seed)
        self.journal: list[Entry] = []
        self.plans: dict[Any, Planned] = {}
        self.open: list[Planned] = []
        self.turns: list[Turn] = []
        self.clock = START
        self.outcome: Returned | Raised | None = None

    def run(self) -> Returned | Raised:
        """Run to the end, completing one open step at a time."""
        live = invocation(self.body, self.data)
        self._take(live.start([]))
        while self.outcome is None:
            entry = self.complete(self._choose())
            self.journal.append(entry)
            self._take(live.resume([entry]))
        live.close()
        return self.outcome

    def _choose(self) -> Planned:
        """Choose the step that ends next: sleeps end in the order of their times, after everything else."""
        working = [step for step in self.open if not isinstance(step.target, Sleep)]
        if working:
            return self.random.choice(working)
        return min(self.open, key=lambda step: step.target.delay or 0.0)  # type: ignore[union-attr]

    def complete(self, step: Planned) -> Entry:
        """Really run a step, and record how it ended."""
        self.clock += 0.5
        outcome: Payload | Failure | TimedOut = EMPTY
        match step.target:
            case Closure(run, output_type):
                outcome = really(run, output_type)
            case Sleep(_, delay):
                self.clock += delay or 0.0
            case SendEvents(events):
                outcome = VALUES.encode([f"id-{number}" for number, _ in enumerate(events)])
            case _ if step.kind is StepKind.WAIT_FOR_EVENT:
                outcome = TimedOut()
            case _:
                outcome = VALUES.encode(f"result of {step.key}")
        return Entry(len(self.journal) + 1, step.key, step.kind, outcome, self.clock, 1, step.source)

    def _take(self, turn: Turn) -> None:
        self.turns.append(turn)
        for planned in turn.found:
            assert planned.key not in self.plans
            self.plans[planned.key] = planned
        self.open += turn.found
        recorded = {entry.key for entry in self.journal}
        cancelled = set(turn.cancelled)
        self.open = [step for step in self.open if step.key not in cancelled and step.key not in recorded]
        self.outcome = turn.outcome

    def open_after(self, length: int) -> list[Planned]:
        """Give the steps that the executor knew as unfinished after `length` journal entries."""
        gone = {entry.key for entry in self.journal[:length]}
        gone.update(key for turn in self.turns[: length + 1] for key in turn.cancelled)
        return [step for turn in self.turns[: length + 1] for step in turn.found if step.key not in gone]


def really(run: Callable[[], Any], output_type: Any) -> Payload | Failure:
    """Run a closure as a worker does."""
    try:
        value = run()
        if inspect.isawaitable(value):
            value = asyncio.run(_await(value))
        return VALUES.encode(value, output_type)
    except Exception as error:
        return VALUES.failure(error)


async def _await(value: Any) -> Any:
    return await value


def expected(steps: Sequence[Planned]) -> list[Expected]:
    """Give steps as an Invoke names them."""
    return [Expected(step.key, step.kind, step.source) for step in steps]
