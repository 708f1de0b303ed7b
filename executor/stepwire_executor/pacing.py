"""How workers share the loop and the engine, by whose they are: with a token each.

Whose messages take much of the loop rests while somebody else wants something: more than a third of it. And a decision
has so many inputs of each at most, since everybody waits for one that has begun.
"""

from __future__ import annotations

import asyncio

TURN_SECONDS = 0.005
"""For how long messages of a worker are taken before others have their turn: a frame may hold hundreds of thousands."""
REST = 2
"""For so many times as long as their messages take they rest."""
BURST_SECONDS = 0.015
"""What they may have without a rest, after they have wanted nothing; with the rest that they would have."""
LONGEST_REST_SECONDS = 1.0
"""Workers are to be heard before anybody takes them for lost."""
ACTIVE_SECONDS = 0.02
"""For how long after a message somebody counts as one who wants something: a worker that is given something to do is
mostly heard of sooner. Longer ones would cost others' fan-outs beside somebody who wants little."""
MOST_INPUTS = 250
"""Of one in a decision."""


class Account:
    """What somebody has had of the loop and the engine: those with one token together, else one stream."""

    __slots__ = ("beside_others_until", "decision", "inputs", "line", "name", "rested_at")

    def __init__(self, name: str) -> None:
        self.name = name
        self.line = asyncio.Lock()
        """Who rests: the streams of a token go on one by one, in their order, so that each has its turn."""
        self.rested_at = 0.0
        """When it has rested enough."""
        self.beside_others_until = 0.0
        """Others wanted something while it had the loop or the engine; so long they may show that they still do."""
        self.decision = 0
        self.inputs = 0
        """For the next decision."""


class Pacing:
    """Keeps the accounts. Times are of the loop's clock. Those without a token have the name ""."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._last, self._last_at, self._other_at = "", 0.0, 0.0
        """Who has wanted something last, when, and when somebody else has."""

    def account(self, name: str) -> Account:
        """Give somebody's account, by the name of the token."""
        return self._accounts.setdefault(name, Account(name)) if name else Account("")

    def turn(self, name: str) -> Turn:
        """Give the turns of a stream, by the name of its token."""
        return Turn(self, self.account(name))

    def wants(self, name: str, now: float) -> None:
        """Note that somebody wants something."""
        if name != self._last:
            self._last, self._other_at = name, self._last_at
        self._last_at = now

    def has_others(self, account: Account, now: float) -> bool:
        """Whether anybody else wants something."""
        return now <= max(account.beside_others_until, self._others_at(account) + ACTIVE_SECONDS)

    def took(self, account: Account, seconds: float, until: float) -> None:
        """Note for how long somebody has had the loop or the engine, or will have it."""
        if self._others_at(account) + ACTIVE_SECONDS >= until - seconds:
            account.beside_others_until = until + ACTIVE_SECONDS
        rested_at = max(account.rested_at, until - BURST_SECONDS) + seconds * (1 + REST)
        account.rested_at = min(rested_at, until + LONGEST_REST_SECONDS)

    def _others_at(self, account: Account) -> float:
        return self._other_at if account.name == self._last else self._last_at

    def rest(self, account: Account, now: float) -> float:
        """Give the seconds that somebody has still to rest."""
        if account.rested_at > now and not self.has_others(account, now):
            account.rested_at = now
        return max(0.0, account.rested_at - now)


class Turn:
    """The turns of one stream, one after the other."""

    def __init__(self, pacing: Pacing, account: Account) -> None:
        self.account = account
        self.left = MOST_INPUTS
        """How many inputs may still come before they are decided."""
        self._pacing = pacing
        self._clock = asyncio.get_running_loop().time
        self._begun, self._has_loop = 0.0, False
        self._most = MOST_INPUTS

    def begin(self, decision: int) -> None:
        """Have the loop, after so many decisions."""
        account = self.account
        if decision != account.decision:
            account.decision, account.inputs = decision, 0
        self.left = self._most = MOST_INPUTS - account.inputs
        self._begun, self._has_loop = self._clock(), True

    @property
    def is_over(self) -> bool:
        """Whether it has taken long enough, or there is enough to decide."""
        return self.left <= 0 or self._clock() - self._begun > TURN_SECONDS

    @property
    def rest(self) -> float:
        """The seconds until it may have the loop."""
        account = self.account
        return self._pacing.rest(account, self._clock()) if account.rested_at else 0.0

    @property
    def has_others(self) -> bool:
        """Whether anybody else wants something."""
        return self._pacing.has_others(self.account, self._clock())

    def waited(self) -> None:
        """Note that the engine was busy meanwhile with what was said before."""
        now = self._clock()
        self._pacing.took(self.account, now - self._begun, now)

    def end(self, *, is_work: bool = True) -> None:
        """Give the loop away, if one has it. A worker that only says that it is there wants nothing."""
        account, now = self.account, self._clock()
        account.inputs += self._most - self.left
        self._most = self.left
        if account.name and self._has_loop:
            if is_work:
                self._pacing.wants(account.name, self._begun)
            self._pacing.took(account, now - self._begun, now)
        self._has_loop = False
