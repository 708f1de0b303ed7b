"""Gives memory that is free back to the system: the C library keeps it, Python what refers to itself, SQLite pages.

Else an executor would show for ever what the worst minute of its life has taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

from stepwire_executor.housekeeping import again_and_again
from stepwire_executor.ports import EngineHandle
from stepwire_executor.store import Store, StoreError

REST_SECONDS = 5.0
GROWTH = 1.1
"""So many times what is held when some was given back last is worth it to be done again."""
FIRST_PAUSE, LONGEST_PAUSE = 4, 720
"""Rests after which it is done again though no more is held: what was in use then may be free now. Each time that it
was in vain the pause is twice as long; what comes to be held makes it the first again, and so does rest after work."""
MUCH_WORK = 1_000
"""Decisions after which there is something to give back once it is quiet: what each of them needed is free by then."""
QUIET_DECISIONS = 10
"""In a rest, at most: then a collection of all garbage, which takes tenths of a second for a lot, holds up nobody."""


class Memory:
    """Looks after the memory of the process."""

    def __init__(self, engine: EngineHandle, store: Store) -> None:
        self._engine = engine
        self._store = store
        self._trim: Callable[[int], int] | None = None
        try:
            self._trim = ctypes.CDLL(None).malloc_trim
        except (AttributeError, OSError, TypeError):
            self._trim = None  # only glibc has it, and only it needs it
        self._kept = self._least = resident_bytes()
        """What was held when all was given back that could be: the last time, and the least of all times."""
        self._pause, self._rests = FIRST_PAUSE, 0
        self._has_garbage = False
        self._decisions = self._worked = 0
        """Of all time when it was last looked, and since it was quiet after much work."""

    async def run(self) -> None:
        """Do so again and again."""
        await again_and_again("giving back memory", self.give_back, REST_SECONDS, REST_SECONDS)

    async def give_back(self) -> None:
        """Give back what is free, if more has come to be held, or what was in use may be free by now."""
        decided = self._engine.decisions - self._decisions
        is_quiet = decided <= QUIET_DECISIONS
        self._decisions += decided
        self._worked += decided
        if is_quiet and self._worked >= MUCH_WORK:
            self._worked, self._rests, self._pause = 0, FIRST_PAUSE, FIRST_PAUSE // 2  # due now, and then as at first
        held = resident_bytes()
        has_grown = held > self._kept * GROWTH
        self._rests += 1
        is_worth_it = has_grown or (self._rests >= self._pause and held > self._least * GROWTH)
        self._has_garbage = self._has_garbage or is_worth_it
        if self._has_garbage and is_quiet:
            gc.collect()
            with contextlib.suppress(StoreError):  # the engine finds out by itself
                await self._store.shrink()
            self._has_garbage = False
        elif not is_worth_it:
            return
        if self._trim is not None:
            await asyncio.to_thread(self._trim, 0)
        self._kept = resident_bytes()
        self._least = min(self._least, self._kept)
        if is_worth_it:
            was_in_vain = not has_grown and held <= self._kept * GROWTH
            self._pause, self._rests = min(2 * self._pause, LONGEST_PAUSE) if was_in_vain else FIRST_PAUSE, 0


def resident_bytes() -> int:
    """Give the memory of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
