"""Who had turns while a step was ready: promise I15.

Turns go round over functions and tasks, and over the runs of each. So between two turns of one, each other has one at
most: while a step waits, another function or task begins one step more than its own does, and another run of its own
one more than its run does. Leaves to run a lone step were given when nothing waited; each worker has given one a slot
at most, and they may be used meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Ready(NamedTuple):
    """A step that can begin: whose turn it waits for, and in which run."""

    turn: str
    run: str
    step: str


@dataclass(slots=True)
class Turns:
    """Counts what begins. `promised` is the number of slots that may have been given away before."""

    promised: int = 0
    _turns: Counter[str] = field(default_factory=Counter)
    _runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _waiting: dict[Ready, tuple[Counter[str], Counter[tuple[str, str]]]] = field(default_factory=dict)

    def ready(self, step: Ready) -> None:
        """Note that a step can begin from now on, if it could not before."""
        if step not in self._waiting:
            self._waiting[step] = Counter(self._turns), Counter(self._runs)

    def gone(self, step: Ready) -> None:
        """Note that a step can begin no more."""
        self._waiting.pop(step, None)

    def forget(self) -> None:
        """Begin anew: nothing is ready."""
        self._waiting.clear()

    def begun(self, step: Ready) -> Iterator[str]:
        """Note that a step begins; says who had more turns than its own while it was ready."""
        before = self._waiting.pop(step, None)
        if before is not None:
            turns, runs = before
            own = self._turns[step.turn] - turns[step.turn]
            for turn, count in self._turns.items():
                if turn != step.turn and count - turns[turn] > own + 1 + self.promised:
                    yield (
                        f"{step.step} of run {step.run} waited while {turn} began {count - turns[turn]} steps, "
                        f"and its own {step.turn} {own}"
                    )
            own = self._runs[step.turn, step.run] - runs[step.turn, step.run]
            for (turn, run), count in self._runs.items():
                others = count - runs[turn, run]
                if turn == step.turn and run != step.run and others > own + 1 + self.promised:
                    yield (
                        f"{step.step} of run {step.run} waited while run {run} of the same {turn} began {others} "
                        f"steps, and its own run {own}"
                    )
        self._turns[step.turn] += 1
        self._runs[step.turn, step.run] += 1
