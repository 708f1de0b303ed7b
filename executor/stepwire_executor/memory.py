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
        self._kept = resident_bytes()
        """What was held when all was given back that could be."""
        self._has_garbage = False
        self._decisions = 0

    async def run(self) -> None:
        """Do so again and again."""
        await again_and_again("giving back memory", self.give_back, REST_SECONDS, REST_SECONDS)

    async def give_back(self) -> None:
        """Give back what is free, if more has come to be held."""
        is_quiet = self._engine.decisions - self._decisions <= QUIET_DECISIONS
        self._decisions = self._engine.decisions
        has_grown = resident_bytes() > self._kept * GROWTH
        self._has_garbage = self._has_garbage or has_grown
        if self._has_garbage and is_quiet:
            gc.collect()
            with contextlib.suppress(StoreError):  # the engine finds out by itself
                await self._store.shrink()
            self._has_garbage = False
        elif not has_grown:
            return
        if self._trim is not None:
            await asyncio.to_thread(self._trim, 0)
        self._kept = resident_bytes()


def resident_bytes() -> int:
    """Give the memory of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
