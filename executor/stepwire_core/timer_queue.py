"""What is due, and when: timers by the time of day, and timers that count seconds whatever the time of day does."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from stepwire_core.model import Now, StepKey

FEW_STALE = 1_000
"""So many timers may be there in vain, whatever the number of those that are not."""


class TimerKind(IntEnum):
    """What is due when a timer strikes."""

    ATTEMPT_TIMEOUT = 1
    STEP_RETRY = 2
    STEP_TIMEOUT = 3
    SLEEP = 4
    WAIT = 5
    """The end of a wait for an event."""
    RUN_TIMEOUT = 6
    BODY_RETRY = 7
    SESSION_GRACE = 8
    DECISION = 9
    """A decision is made, whatever has happened; see `look_again`."""


class Timer(NamedTuple):
    """Something due. What it concerns is checked when it strikes, so none is ever removed."""

    due: float
    order: int
    kind: TimerKind
    run_id: str
    key: StepKey | None
    fence: int


class TimerQueue:
    """All timers that have been set and have not struck."""

    def __init__(self) -> None:
        self._looks_again_at = 0.0
        """When a decision is made, whatever happens; by the monotonic clock."""
        self._wall: list[Timer] = []
        self._mono: list[Timer] = []
        self._order = 0
        self._stale = 0

    def __len__(self) -> int:
        return len(self._wall) + len(self._mono)

    def at_wall(self, due: float, kind: TimerKind, run_id: str, key: StepKey | None = None) -> None:
        """Set a timer at a time of day (Unix seconds)."""
        self._order += 1
        heapq.heappush(self._wall, Timer(due, self._order, kind, run_id, key, 0))

    def after(
        self, now: Now, delay: float, kind: TimerKind, run_id: str, key: StepKey | None = None, fence: int = 0
    ) -> None:
        """Set a timer a number of seconds from now, whatever the time of day does meanwhile."""
        self._order += 1
        heapq.heappush(self._mono, Timer(now.mono + delay, self._order, kind, run_id, key, fence))

    def look_again(self, now: Now, at: float) -> None:
        """Have another decision made at a time of the monotonic clock, or before: whoever still waits then says so."""
        if not now.mono < self._looks_again_at <= at:
            self._looks_again_at = at
            self.after(now, at - now.mono, TimerKind.DECISION, "")

    def take_due(self, now: Now) -> list[Timer]:
        """Take the timers that are due."""
        taken = []
        for heap, time in ((self._mono, now.mono), (self._wall, now.wall)):
            while heap and heap[0].due <= time:
                taken.append(heapq.heappop(heap))
        return taken

    def delay(self, now: Now) -> float | None:
        """Seconds until the next timer, less than 0 if it is late; None if there is no timer."""
        delays = []
        if self._mono:
            delays.append(self._mono[0].due - now.mono)
        if self._wall:
            delays.append(self._wall[0].due - now.wall)
        return min(delays, default=None)

    def lost(self, count: int, may_hold: Callable[[Timer], bool]) -> None:
        """Note that `count` timers lost their run or step; once they are the greater part, rid the queue of such."""
        self._stale += count
        if self._stale > FEW_STALE + len(self) // 2:
            for heap in (self._mono, self._wall):
                heap[:] = filter(may_hold, heap)
                heapq.heapify(heap)
            self._stale = 0
