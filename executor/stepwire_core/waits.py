"""The waits of a run in memory: which of them an event is for, which events they have had, what is looked up for them.

An event is given to one wait of a run; of those that are open and fit it, to the one that was planned first. A new wait
is given the earliest event since the run's own that fits it and no other wait has had.

How an event is compared with a wait is not known here: of an event come its values at the paths that waits have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepwire_core.model import Run, Step, StepState, WaitSpec

MOST_PATHS = 100
"""Sets of fields by which a run waits for events of one name at a time: each event is compared with all of them."""


def criterion(step: Step) -> WaitSpec:
    """Give what a wait compares."""
    assert step.wait is not None
    return step.wait


@dataclass(slots=True, eq=False)
class Lookup:
    """Events of one name are looked up for waits of a run; what is told of new ones meanwhile has to wait."""

    number: int = 0
    """Of the look-up that runs; 0 while none does."""
    seeking: dict[int, Step] = field(default_factory=dict)
    """The waits that it is for, by step number."""
    next: dict[int, Step] = field(default_factory=dict)
    """The waits that were planned since."""
    overdue: set[int] = field(default_factory=set)
    """Waits whose time ran out meanwhile: they end once it is known that their event had not come before."""
    held: bool = False
    """Whether an event was told of meanwhile: it is durable, and looked up next."""


class Waits:
    """What is known of the waits of a run."""

    def __init__(self, run: Run) -> None:
        self.since = run.event.position
        self.taken: set[int] = set()
        """Positions of the events that waits of the run were given."""
        self.lookups: dict[str, Lookup] = {}
        """By event name."""
        self._heard: dict[tuple[str, WaitSpec], int] = {}
        """Up to which position every event was taken that fits a name and a criterion."""
        self._open: dict[str, dict[str, dict[str, dict[int, Step]]]] = {}
        """Open waits by event name, paths, match and step number."""
        for step in run.steps.values():
            if step.wait is None:
                continue
            if step.state is StepState.WAITING:
                self.add(step)
            elif step.event_position:
                self.take(step, step.event_position)

    def add(self, step: Step) -> None:
        """Note an open wait."""
        paths, match = criterion(step)
        same = self._open.setdefault(step.target, {}).setdefault(paths, {}).setdefault(match, {})
        behind = bool(same) and step.number < next(reversed(same))
        same[step.number] = step
        if behind:  # it was cancelled, and is planned anew
            in_order = dict(sorted(same.items()))
            same.clear()
            same.update(in_order)

    def has_room(self, step: Step) -> bool:
        """Whether another wait may be open; those that compare the same fields cost no more than one."""
        by_paths = self._open.get(step.target, {})
        return len(by_paths) < MOST_PATHS or criterion(step)[0] in by_paths

    def seek(self, step: Step) -> None:
        """Note a wait for which events are to be looked up."""
        self.add(step)
        self.lookups.setdefault(step.target, Lookup()).next[step.number] = step

    def drop(self, step: Step) -> None:
        """Forget a wait that is open no more."""
        by_paths = self._open.get(step.target)
        if by_paths is None:
            return
        paths, match = criterion(step)
        by_match = by_paths.get(paths, {})
        same = by_match.get(match, {})
        same.pop(step.number, None)
        if not same:
            by_match.pop(match, None)
            if not by_match:
                by_paths.pop(paths, None)
                if not by_paths:
                    del self._open[step.target]

    def take(self, step: Step, position: int) -> None:
        """Note that a wait is given an event."""
        self.taken.add(position)
        self.hear(step, position)

    def hear(self, step: Step, position: int) -> None:
        """Note that up to a position every event that fits a wait was taken."""
        at = step.target, criterion(step)
        self._heard[at] = max(position, self._heard.get(at, 0))

    def after(self, step: Step) -> int:
        """Give the position behind which the first event for a wait may be."""
        return self._heard.get((step.target, criterion(step)), self.since)

    def first(self, name: str, matches: Mapping[str, str]) -> Step | None:
        """Give the open wait that an event is for, by the event's values at the paths of waits."""
        best: Step | None = None
        for paths, by_match in self._open.get(name, {}).items():
            same = by_match.get(matches.get(paths, ""))
            if same:
                step = next(iter(same.values()))
                if best is None or step.number < best.number:
                    best = step
        return best

    def paths(self, name: str) -> list[str]:
        """Give the paths of the open waits for a name."""
        return list(self._open.get(name, ()))

    def open(self, name: str) -> dict[int, Step]:
        """Give the open waits for a name, by step number."""
        by_paths = self._open.get(name, {})
        return {n: step for by_match in by_paths.values() for same in by_match.values() for n, step in same.items()}

    def is_open(self, step: Step) -> bool:
        """Whether a wait has not ended."""
        paths, match = criterion(step)
        return self._open.get(step.target, {}).get(paths, {}).get(match, {}).get(step.number) is step

    def postpone(self, step: Step) -> bool:
        """Whether a wait whose time runs out has still to be looked up; it then ends after that."""
        lookup = self.lookups.get(step.target)
        if lookup is None or (step.number not in lookup.seeking and step.number not in lookup.next):
            return False
        lookup.overdue.add(step.number)
        return True
