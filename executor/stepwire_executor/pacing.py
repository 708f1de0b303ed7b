"""How workers share the loop and the engine, by whose they are: with a token each.

Whose messages take much of the loop rests while somebody else wants something: more than a third of it. And a decision
has so many inputs of each at most, since everybody waits for one that has begun.
"""

from __future__ import annotations

import asyncio
from collections import Counter

TURN_SECONDS = 0.005
"""For how long messages of a worker are taken before others have their turn: a frame may hold hundreds of thousands."""
REST = 2
"""For so many times as long as their messages take they rest."""
BURST_SECONDS = 0.015
"""What they may have without a rest, after they have wanted nothing; with the rest that they would have."""
ACTIVE_SECONDS = 0.05
"""For how long after a message somebody counts as one who wants something."""
MOST_INPUTS = 250
"""Of one in a decision."""


class Pacing:
    """Keeps account of all. Times are of the loop's clock. Those without a token have the name ""."""

    def __init__(self) -> None:
        self._last, self._last_at, self._other_at = "", 0.0, 0.0
        """Who has wanted something last, when, and when somebody else has."""
        self._rested_at: dict[str, float] = {}
        """When each has rested enough."""
        self._decision = 0
        self._inputs: Counter[object] = Counter()
        """Of each for the next decision."""

    def turn(self, name: str) -> Turn:
        """Give the turns of a stream, by the name of its token."""
        return Turn(self, name)

    def wants(self, name: str, now: float) -> None:
        """Note that somebody wants something."""
        if name != self._last:
            self._last, self._other_at = name, self._last_at
        self._last_at = now

    def took(self, name: str, seconds: float, now: float) -> None:
        """Note for how long somebody has had the loop, or will have the engine."""
        self._rested_at[name] = max(self._rested_at.get(name, 0.0), now - BURST_SECONDS) + seconds * (1 + REST)

    def rest(self, name: str, now: float) -> float:
        """Give the seconds that somebody has still to rest."""
        rested_at = self._rested_at.get(name, 0.0)
        if rested_at <= now:
            return 0.0
        if not self.has_others(name, now):
            del self._rested_at[name]
            return 0.0
        return rested_at - now

    def has_others(self, name: str, now: float) -> bool:
        """Whether anybody else wants something."""
        return now - (self._other_at if name == self._last else self._last_at) <= ACTIVE_SECONDS

    def submitted(self, whose: object, decision: int) -> bool:
        """Count an input that came after so many decisions; says whether the next one has enough of somebody's."""
        if decision != self._decision:
            self._decision = decision
            self._inputs.clear()
        self._inputs[whose] += 1
        return self._inputs[whose] >= MOST_INPUTS


class Turn:
    """The turns of one stream, one after the other."""

    def __init__(self, pacing: Pacing, name: str) -> None:
        self._pacing = pacing
        self._name = name
        self._whose: object = name or self
        """Without tokens each stream is for itself."""
        self._clock = asyncio.get_running_loop().time
        self._begun = 0.0

    def begin(self) -> None:
        """Have the loop."""
        self._begun = self._clock()

    @property
    def rest(self) -> float:
        """The seconds until it may have the loop."""
        return self._pacing.rest(self._name, self._clock())

    @property
    def has_others(self) -> bool:
        """Whether anybody else wants something."""
        return self._pacing.has_others(self._name, self._clock())

    @property
    def is_over(self) -> bool:
        """Whether it has taken long enough."""
        return self._clock() - self._begun > TURN_SECONDS

    def submitted(self, decision: int, *, is_work: bool) -> bool:
        """Note an input; see `Pacing.submitted`. A worker that only says that it is there wants nothing."""
        if is_work:
            self._pacing.wants(self._name, self._begun)
        return self._pacing.submitted(self._whose, decision)

    def waited(self) -> None:
        """Note that the engine had to decide what was said before; it is to be others' for as long."""
        now = self._clock()
        self._pacing.took(self._name, (now - self._begun) / (1 + REST), now)

    def end(self) -> None:
        """Give the loop away."""
        begun, self._begun = self._begun, self._clock()
        self._pacing.took(self._name, self._begun - begun, self._begun)
