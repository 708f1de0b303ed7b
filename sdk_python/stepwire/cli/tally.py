"""Counting a run's steps as they change, so that a tree of a hundred thousand steps costs no more than its lines.

Steps fold into families: those of one id, and those whose ids differ only in their numbers (`page-1`, `page-2`, …).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from stepwire.records import Step, StepState

FOLD_ABOVE = 5
"""So many steps of a family are listed one by one; more are folded into one line."""

IDS_ABOVE = 8
"""A family of more ids than this is one fold, not one for each id."""

_NUMBER = re.compile(r"\b[0-9a-fA-F]{8,}\b|\d+")
_CALM = (StepState.READY, StepState.WAITING)


def template(step_id: str) -> str:
    """Give the id with its numbers as `*`: what the ids of a fan-out have in common."""
    return _NUMBER.sub("*", step_id)


@dataclass(slots=True)
class Tally:
    """Steps of one kind: how many in each state and worker, and those worth a line of their own."""

    label: str
    states: Counter[StepState] = field(default_factory=Counter)
    done_by: Counter[str] = field(default_factory=Counter)
    running_in: Counter[str] = field(default_factory=Counter)
    members: dict[tuple[str, int], Step] = field(default_factory=dict)
    notable: dict[tuple[str, int], Step] = field(default_factory=dict)
    last_ended_at: datetime | None = None

    def replace(self, step: Step) -> None:
        """Count a step that is new or has changed."""
        key = (step.key.id, step.key.index)
        old = self.members.get(key)
        if old is not None:
            self._count(old, -1)
        self.members[key] = step
        self._count(step, 1)
        if step.ended_at and (self.last_ended_at is None or step.ended_at > self.last_ended_at):
            self.last_ended_at = step.ended_at
        if is_notable(step):
            self.notable[key] = step
        elif key in self.notable:
            del self.notable[key]

    def _count(self, step: Step, by: int) -> None:
        self.states[step.state] += by
        if not step.worker:
            return
        if step.state is StepState.RUNNING:
            self.running_in[step.worker] += by
        elif step.state is StepState.SUCCEEDED:
            self.done_by[step.worker] += by

    @property
    def total(self) -> int:
        """How many steps there are."""
        return len(self.members)

    @property
    def ended(self) -> int:
        """How many of them have ended, in whatever way."""
        return self.states[StepState.SUCCEEDED] + self.states[StepState.FAILED] + self.states[StepState.CANCELLED]

    @property
    def first(self) -> Step:
        """The step that was discovered first."""
        return next(iter(self.members.values()))


def is_notable(step: Step) -> bool:
    """Whether a step inside a fold deserves a line: it failed, waits for a retry, or took several attempts."""
    return step.state in (StepState.FAILED, StepState.RETRYING) or (step.attempt > 1 and step.state not in _CALM)


@dataclass(slots=True)
class Family:
    """The steps whose ids have one template."""

    whole: Tally
    by_id: dict[str, Tally] = field(default_factory=dict)

    def replace(self, step: Step) -> None:
        """Count a step that is new or has changed."""
        self.whole.replace(step)
        one = self.by_id.get(step.key.id)
        if one is None:
            one = self.by_id[step.key.id] = Tally(step.key.id)
        one.replace(step)

    def parts(self) -> Iterator[Tally | Step]:
        """Give what is shown of the family: single steps, and folds of many."""
        if self.whole.total <= FOLD_ABOVE:
            yield from self.whole.members.values()
        elif len(self.by_id) == 1:
            yield next(iter(self.by_id.values()))
        elif len(self.by_id) > IDS_ABOVE or self.whole.total < FOLD_ABOVE * len(self.by_id):
            yield self.whole
        else:
            for one in self.by_id.values():
                if one.total > FOLD_ABOVE:
                    yield one
                else:
                    yield from one.members.values()


class Steps:
    """All steps of a run, by families."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self.states: Counter[StepState] = Counter()
        self._state_of: dict[tuple[str, int], StepState] = {}

    def replace(self, step: Step) -> None:
        """Take a step that is new or has changed."""
        key = (step.key.id, step.key.index)
        before = self._state_of.get(key)
        if before is not None:
            self.states[before] -= 1
        self._state_of[key] = step.state
        self.states[step.state] += 1
        name = template(step.key.id)
        family = self.families.get(name)
        if family is None:
            family = self.families[name] = Family(Tally(name))
        family.replace(step)

    def parts(self) -> list[Tally | Step]:
        """Give all single steps and folds in the order of discovery."""
        found = [part for family in self.families.values() for part in family.parts()]
        return sorted(found, key=lambda part: (part.first if isinstance(part, Tally) else part).number)

    def __len__(self) -> int:
        return len(self._state_of)
