"""Finds a body that does not come to rest: one that polls, instead of waiting for a result.

Nothing but a result can change what a body polls for, so it would go on for ever. A replay that goes on as long has no
other end, so the error is the same wherever the body runs, and no retry mends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from stepwire.errors import SpinningBodyError

MOST_CALLBACKS = 100_000
"""So many callbacks in a row without a new step, result or task are no work."""
MOST_FOR_A_TASK = 10
"""So many more are allowed for each task that the body has ever made: all may have something to do first."""
WITH_TASKS = 20
"""So many times as many are none, though they make new tasks: a body may gather very much without a step."""
MOST_SECONDS = 10.0
FEWEST_CALLBACKS = 1_000
"""The time does not count before: what takes long in a few callbacks blocks, but is no polling."""
MOST_PLACES = 3
LONGEST_PAGE_SECONDS = 1.0
"""For how much a single page counts: a process that was stopped meanwhile has not been polling."""


class Restless:
    """Counts what a body does without progress, in pages of callbacks. `clock` is in seconds."""

    __slots__ = (
        "_at",
        "_callbacks",
        "_clock",
        "_idle_callbacks",
        "_most_callbacks",
        "_newest_task",
        "_progress",
        "_seconds",
        "_until",
    )

    def __init__(self, clock: Callable[[], float], most_callbacks: int | None = None) -> None:
        self._clock = clock
        self._most_callbacks = MOST_CALLBACKS if most_callbacks is None else most_callbacks
        self._progress = -1
        self._newest_task = 0
        self._callbacks = 0
        self._idle_callbacks = 0
        """Those since the newest task."""
        self._seconds = 0.0
        self._at = 0.0
        self._until = math.inf

    def go_on(self, seconds: float) -> None:
        """Begin to count time, since others may have had their turn; `is_enough` after so many seconds."""
        self._at = now = self._clock()
        self._until = now + seconds

    def is_enough(self) -> bool:
        """Whether the time is over after which others have their turn."""
        return self._clock() >= self._until

    def is_spinning(self, callbacks: int, progress: int, newest_task: int) -> bool:
        """Count a page; `progress` grows with each step found and each result given, `newest_task` with each task."""
        now = self._clock()
        if progress != self._progress:
            self._progress, self._callbacks, self._idle_callbacks, self._seconds = progress, 0, 0, 0.0
        else:
            self._callbacks += callbacks
            self._idle_callbacks = self._idle_callbacks + callbacks if newest_task == self._newest_task else 0
            self._seconds += min(now - self._at, LONGEST_PAGE_SECONDS)
        self._at, self._newest_task = now, newest_task
        late = self._seconds >= MOST_SECONDS and self._callbacks >= FEWEST_CALLBACKS
        most = self._most_callbacks + MOST_FOR_A_TASK * newest_task
        return late or self._idle_callbacks >= most or self._callbacks >= WITH_TASKS * self._most_callbacks

    def error(self, function_id: str, places: Sequence[str]) -> SpinningBodyError:
        """Say what the body does, and where."""
        where = f" at {' and '.join(places[:MOST_PLACES])}" if places else ""
        return SpinningBodyError(
            f"the body of {function_id!r} does not come to rest{where}: it has gone through {self._callbacks:,} "
            f"callbacks in {self._seconds:.1f} s without starting a step or getting a result. If it polls, for example "
            "with asyncio.sleep(0), await the task or future itself, or asyncio.wait: only the result of a step can "
            "change anything. If it computes, do that in a step"
        )
