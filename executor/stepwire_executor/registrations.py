"""Has functions forgotten that no worker has served for long, and that have no unfinished run; beside the engine.

What it reads can't become wrong before the core decides: who is not served has no run that could come to sleep, and
runs that are not asleep are in the core's memory.
"""

from __future__ import annotations

import asyncio

from stepwire_core import registrations
from stepwire_core.inputs import FunctionsChecked
from stepwire_core.model import FunctionKey
from stepwire_executor.housekeeping import again_and_again
from stepwire_executor.ports import EngineHandle
from stepwire_executor.store import Store

LONGEST_REST = 3_600.0
"""Seconds between two checks; of functions that are kept for a short time only a tenth of that."""
SHORTEST_REST = 1.0
RUNS_A_LOOK = 2_000
PAUSE_SECONDS = 0.02


class Registrations:
    """Checks the functions again and again."""

    def __init__(self, engine: EngineHandle, store: Store, kept_seconds: float) -> None:
        self._engine = engine
        self._store = store
        self._rest = min(LONGEST_REST, max(SHORTEST_REST, kept_seconds / 10))

    async def run(self) -> None:
        """Run as long as the executor."""
        await again_and_again("looking for functions to forget", self.check, self._rest, self._rest)

    async def check(self) -> None:
        """Have those forgotten that are not needed any more. Raises StoreError."""
        if self._engine.failing:
            return
        aged = set(registrations.aged(self._engine.state, self._engine.now()))
        if aged:
            aged -= await self._needed()
        await self._engine.ask(lambda reply: FunctionsChecked(sorted(aged), reply))

    async def _needed(self) -> set[FunctionKey]:
        """Give the functions that have unfinished runs in the store."""
        needed: set[FunctionKey] = set()
        after = ""
        while page := await self._store.unfinished_functions(after, RUNS_A_LOOK):
            needed.update((app, function_id) for _, app, function_id in page)
            after = page[-1][0]
            await asyncio.sleep(PAUSE_SECONDS)
        return needed
