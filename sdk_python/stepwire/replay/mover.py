"""Moves a body from one result to the next, until it rests; breaks off when it is asked to, and when it never rests.

Knows nothing of steps: what a result is to the body, and what has come of a move, is the invocation's affair.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from stepwire.places import of_thread
from stepwire.replay.loop import ReplayLoop
from stepwire.replay.model import Entry, Turn
from stepwire.replay.restless import Restless

PAGE_CALLBACKS = 200
"""Callbacks after which is told what they have found: a body that finds thousands of steps takes its time."""
RESULTS_AT_ONCE = 64
"""Results that are given before it is asked whether it has been enough."""


class SyncCode(Protocol):
    """A thread of sync code, as a mover sees it."""

    @property
    def thread_id(self) -> int | None:
        """The thread, by Python's number; None before it has begun."""

    @property
    def place(self) -> str:
        """Where its code stands."""


class Mover(ABC):
    """What an invocation is that moves. `sequence` is that of the last entry delivered."""

    __slots__ = ("_asking", "_entries", "_is_dry", "_requests", "_restless", "loop", "moving", "replaying", "sequence")

    def __init__(self, loop: ReplayLoop, restless: Restless) -> None:
        self.loop = loop
        self.sequence = 0
        self.replaying = False
        """Whether recorded results are still to come."""
        self.moving: SyncCode | None = None
        """The thread of sync code that moves now."""
        self._restless = restless
        self._requests = 0
        self._asking: int | None = None
        """The thread of sync code that asked for something last."""
        self._is_dry = True
        self._entries: deque[Entry] = deque()
        """Results that the body has still to be given."""

    # What the worker calls.

    def feed(self, entries: Sequence[Entry]) -> None:
        """Take new results; `go_on` gives them to the body."""
        self._entries.extend(entries)

    def come_to_rest(self) -> Turn:
        """Go on until the body can't move without a new result."""
        while (turn := self.go_on(math.inf)) is None:
            continue
        return turn

    def go_on(self, seconds: float) -> Turn | None:
        """Go on until the body can't move without a new result; gives None if so much time is over before.

        Raises ValueError if results do not follow those before.
        """
        self._restless.go_on(seconds)
        with self.loop.running():
            at_rest = self._go_on()
        return self._turn() if at_rest else None

    # What threads of sync code call.

    def is_spinning(self, branch: SyncCode) -> bool:
        """Count a request of sync code, and say whether the body is to stop, as these lead nowhere."""
        self._requests += 1
        self._asking = branch.thread_id
        if self._requests % PAGE_CALLBACKS == 0:
            self._stop_spinning([branch.place])
        return self.loop.stopped

    # What the invocation does.

    @abstractmethod
    def _enter(self) -> None:
        """Make the body, unless that was done."""

    @abstractmethod
    def _give(self, entry: Entry) -> bool:
        """Give the body a result; says whether that may have stirred it."""

    @abstractmethod
    def _look_between(self) -> None:
        """See what a page of callbacks has found."""

    @abstractmethod
    def _look(self) -> None:
        """See how the body stands, now that it has run dry."""

    @abstractmethod
    def _rest(self) -> None:
        """See whether all is well, now that the body has been given everything."""

    @abstractmethod
    def _turn(self) -> Turn:
        """Give what has happened since the last turn."""

    @abstractmethod
    def _spins(self, places: Sequence[str]) -> None:
        """End the body: it does not come to rest."""

    @property
    @abstractmethod
    def _found_count(self) -> int:
        """How many steps the body has found."""

    # How it works inside.

    def _go_on(self) -> bool:
        """Give the body what it has still to get; False if that is not all, as the time is over."""
        if not self._is_dry:
            self._enter()
            if not self._run_dry():
                return False
        entries = self._entries
        while entries:
            entry = entries.popleft()
            if entry.sequence != self.sequence + 1:
                raise ValueError(f"journal entry {entry.sequence} follows {self.sequence}: there is a gap")
            self.sequence = entry.sequence
            self.replaying = self.replaying and bool(entries)
            if self._give(entry) and not self._run_dry():
                return False
            if entries and not len(entries) % RESULTS_AT_ONCE and self._restless.is_enough():
                return False
        self.replaying = False
        self._rest()
        return True

    def _run_dry(self) -> bool:
        """Run until nothing is ready; False if the body still moves, as the time is over."""
        self._is_dry = False
        while self.loop.drain(PAGE_CALLBACKS):
            self._look_between()
            self._stop_spinning()
            if self._restless.is_enough():
                return False
        self._is_dry = True
        self._look()
        return True

    def _stop_spinning(self, places: Sequence[str] = ()) -> None:
        """Count a page of callbacks or requests, and end a body that makes no progress."""
        if self._restless.is_spinning(PAGE_CALLBACKS, self._found_count + self.sequence, self.loop.newest_task):
            asking = [of_thread(self._asking)] if self._asking is not None else []
            self._spins(places or self.loop.places() or asking)
