"""What a run in one process leaves behind, as data for a test's assertions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from stepwire.errors import Failure
from stepwire.replay.model import StepKind


@dataclass(slots=True)
class StepRecord:
    """A step that the run's body found.

    `attempts` counts how often its code, or what replaced it, was begun. `output` is the decoded result, None before
    and without one; `failure` is its last attempt's, also when a later attempt succeeded. `ended` says
    how: "succeeded", "failed", "timed out" (a wait for an event), "cancelled", or "" if it was left open.
    """

    id: str
    index: int
    kind: StepKind
    source: str = ""
    attempts: int = 0
    output: Any = None
    failure: Failure | None = None
    ended: str = ""

    def __repr__(self) -> str:
        label = self.id if self.index == 0 else f"{self.id}:{self.index}"
        return f"<{self.kind.name.lower()} {label} {self.ended or 'open'} after {self.attempts} attempts>"


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event that the run sent with `step.send_events`; `data` is decoded."""

    id: str
    name: str
    data: Any


@dataclass(slots=True)
class TestRun:
    """How a run went. Nothing was raised for a run that failed: `error` has it, and `result()` raises it.

    `output` is what the function returned, decoded as its return annotation says; None if it failed. `steps` are in the
    order of their discovery, `sent` in that of sending. `duration` is virtual time. `attempts` counts the tries at
    the body. `replays_identically` is always True: a run that does not raises NonDeterminismError instead.
    """

    __test__ = False  # its name would have pytest collect it

    output: Any
    error: BaseException | None
    steps: Sequence[StepRecord]
    sent: Sequence[SentEvent]
    duration: timedelta
    attempts: int = 1
    replays_identically: bool = field(default=True, repr=False)

    def result(self) -> Any:
        """Give the output, or raise the error that the run failed with."""
        if self.error is not None:
            raise self.error
        return self.output

    def step(self, id: str, index: int = 0) -> StepRecord:
        """Give a step by its id and index. Raises LookupError that names the steps there are."""
        for record in self.steps:
            if (record.id, record.index) == (id, index):
                return record
        raise LookupError(f"the run has no step {id!r} with index {index}; it has {list(self.steps)}")
