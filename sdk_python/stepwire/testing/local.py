"""Runs and steps of a world in one process, as data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stepwire.attempt import AttemptContext
from stepwire.errors import Failure
from stepwire.payload import Payload
from stepwire.replay.model import Entry, Event, Planned, Raised, Returned, StepKey, TimedOut
from stepwire.testing.records import SentEvent, StepRecord

if TYPE_CHECKING:
    from stepwire.app import Function
    from stepwire.replay.invocation import Invocation

Outcome = Payload | Failure | TimedOut


@dataclass(slots=True, eq=False)
class OpenStep:
    """A step without a result. `turn` grows with each attempt and retry; what was meant for an older turn is void."""

    planned: Planned
    record: StepRecord
    attempts: int = 0
    turn: int = 0
    context: AttemptContext | None = None
    task: asyncio.Task[None] | None = None
    child: LocalRun | None = None
    over: bool = False
    """Whether it is a wait that has got its event, or none in time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the body did when it had been given the journal up to `sequence`; `attempt` counts the tries at the body.

    An ended body has cancelled nothing: its steps end with the run, or are awaited again by the next try.
    """

    attempt: int
    sequence: int
    found: Sequence[Planned]
    cancelled: Sequence[StepKey]
    outcome: Returned | Raised | None = None


@dataclass(slots=True, eq=False)
class LocalRun:
    """A run. `ended` is its outcome; `parent` is the run and the step that invoked it."""

    id: str
    function: Function
    event: Event
    created_at: float
    parent: tuple[LocalRun, OpenStep] | None = None
    attempt: int = 1
    journal: list[Entry] = field(default_factory=list)
    open: dict[StepKey, OpenStep] = field(default_factory=dict)
    records: dict[StepKey, StepRecord] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    sent: list[SentEvent] = field(default_factory=list)
    since: int = 0
    """How many events had been received when it began."""
    given: dict[int, OpenStep] = field(default_factory=dict)
    """Which wait was given an event, by the event's place among the received."""
    invocation: Invocation | None = None
    ended: Returned | Raised | None = None
    ended_at: float = 0.0

    @property
    def depth(self) -> int:
        """How many runs invoked one another to get here."""
        return self.parent[0].depth + 1 if self.parent else 0


@dataclass(frozen=True, slots=True)
class Finished:
    """A step that has come to an end, or an attempt at it, and is not recorded yet."""

    run: LocalRun
    step: OpenStep
    turn: int
    outcome: Outcome

    @property
    def key(self) -> StepKey:
        """The step's key."""
        return self.step.planned.key

    @property
    def wanted(self) -> bool:
        """False if something else has ended the attempt, the step or the run meanwhile."""
        return is_current(self.run, self.step, self.turn)


def is_current(run: LocalRun, step: OpenStep, turn: int) -> bool:
    """Whether a step is still in the turn that it was in."""
    return run.ended is None and run.open.get(step.planned.key) is step and step.turn == turn


Schedule = Callable[[Sequence[Finished]], int]
"""Picks which of those that have ended is taken next: its position in the list, which is in the order of ending."""


def in_order(finished: Sequence[Finished]) -> int:
    """Take what ended first: the schedule of an ordinary run."""
    return 0
