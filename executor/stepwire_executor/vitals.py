"""What the executor observes of itself, cheaply: how long pieces of work, waits and commits take. See GetStatus."""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import threading
import time
import traceback
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from stepwire_core.commands import Fault
from stepwire_executor.visible import one_line

log = logging.getLogger("stepwire.executor")

WINDOW_SECONDS = 60.0
"""Times are those of one to two windows."""
SHORTEST, GROWTH, BUCKETS = 0.000_05, 1.25, 80
"""The first bucket's width in seconds, how much wider the next is than each, and how many there are: to 45 min."""
BOUNDS = [SHORTEST * GROWTH**number for number in range(BUCKETS)]
SHORT = 10
"""The bucket of pieces of work of which nothing is noted but how many there are: up to half a millisecond."""
SHORT_SECONDS = BOUNDS[SHORT]
LONG_SECONDS = 1.0
"""A piece of work on the loop that takes longer is logged with what it was."""
LOOKED_AT_SECONDS = 0.25
SHOWN_FRAMES = 12


class Times:
    """How long something took that happens again and again; of the present window, and of the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._present, self._before = _Window(), _Window()

    def note(self, seconds: float) -> None:
        """Count one."""
        self._present.counts[bisect_left(BOUNDS, seconds)] += 1
        if seconds > self._present.longest:
            self._present.longest = seconds

    def note_short(self, number: int) -> None:
        """Count some that took no longer than SHORT_SECONDS."""
        if number:
            self._present.counts[SHORT] += number
            self._present.longest = max(self._present.longest, SHORT_SECONDS)

    def turn(self) -> None:
        """Begin a new window if the present one is over."""
        if self._clock() - self._began >= WINDOW_SECONDS:
            self._began = self._clock()
            self._present, self._before = _Window(), self._present

    @property
    def count(self) -> int:
        """How often it happened."""
        return sum(self._counts())

    @property
    def longest(self) -> float:
        """The longest, in seconds."""
        return max(self._present.longest, self._before.longest)

    def below(self, share: float) -> float:
        """Give seconds that a share of them, 0 to 1, did not exceed: a bucket's bound, or the longest if it is less."""
        counts = self._counts()
        left = share * sum(counts)
        for bound, number in zip(BOUNDS, counts, strict=False):
            left -= number
            if left <= 0:
                return min(bound, self.longest)
        return self.longest

    def _counts(self) -> list[int]:
        return [sum(pair) for pair in zip(self._present.counts, self._before.counts, strict=True)]


class _Window:
    def __init__(self) -> None:
        self.counts = [0] * (BUCKETS + 1)
        self.longest = 0.0


class Vitals:
    """What is observed: `pieces` of work on the loop, `waits` of inputs for their decision, `commits` of the store."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.pieces, self.waits, self.commits = Times(), Times(), Times()
        self.short_pieces = 0
        """Pieces that are not in `pieces` yet."""
        self.piece_began = 0.0
        """When the present piece began, by the monotonic clock; 0.0 while the loop has nothing to do."""
        self.faults = 0
        self.begun_anew = 0

    def note_fault(self, fault: Fault) -> None:
        """Tell of something that could not be decided; whoever sent it is told by the decision."""
        self.faults += 1
        about = f"; runs {', '.join(fault.run_ids)} go on from what is stored" if fault.run_ids else ""
        log.error(
            "could not decide %s: %s, a bug in Stepwire%s\n%s",
            one_line(fault.what),
            one_line(fault.error),
            one_line(about),
            fault.traceback.rstrip(),
        )

    def turn(self) -> None:
        """Bring everything up to the present time."""
        self.pieces.note_short(self.short_pieces)
        self.short_pieces = 0
        for times in (self.pieces, self.waits, self.commits):
            times.turn()


monotonic, look_for_more = time.monotonic, selectors.DefaultSelector.select
"""Found once: what follows is done tens of times for each small run."""


class _Selector(selectors.DefaultSelector):
    """Notes how long the loop was at work between two times that it looked for more: one piece, for all others."""

    vitals: Vitals

    def select(self, timeout: float | None = None) -> Any:
        vitals = self.vitals
        began = vitals.piece_began
        if began and (took := monotonic() - began) > SHORT_SECONDS:
            vitals.pieces.note(took)
            if took > LONG_SECONDS:
                log.warning("a piece of work took %.1f s, for which everybody else had to wait", took)
        else:
            vitals.short_pieces += 1
        vitals.piece_began = 0.0
        found = look_for_more(self, timeout)
        vitals.piece_began = monotonic()
        return found


def observed_loop(vitals: Vitals) -> asyncio.AbstractEventLoop:
    """Make an event loop whose pieces of work are noted."""
    selector = _Selector()
    selector.vitals = vitals
    return asyncio.SelectorEventLoop(selector)


class Watchdog:
    """Logs what the loop is at when a piece takes long: from a thread, since the loop itself can't."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._loop_thread = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch the loop of the thread that has made this."""
        self._thread.start()

    def stop(self) -> None:
        """End that."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        told = 0.0
        while not self._over.wait(LOOKED_AT_SECONDS):
            began = self._vitals.piece_began
            if began not in (0.0, told) and time.monotonic() - began > LONG_SECONDS:
                told = began
                log.warning(
                    "one piece of work has kept everybody waiting for over %g s, a bug in Stepwire or a machine that "
                    "is starved; it is at:\n%s",
                    LONG_SECONDS,
                    self._place(),
                )

    def _place(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame)[-SHOWN_FRAMES:]).rstrip()
