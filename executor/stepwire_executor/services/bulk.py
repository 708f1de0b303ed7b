"""Calls with many events, or that start many runs: in turn over callers, with rests in which others are served.

What is decided and committed together with thousands of events waits for all of them. The rests do not make that
shorter, but leave others most of the time. While nobody else wants anything there are none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from stepwire_executor.ports import EngineHandle
from stepwire_executor.sharing import AppTurns

FEW = 20
"""A call with no more events, or runs that they start, neither waits nor rests."""
MOST = 500
"""Events, or runs, that are under way at a time, of other calls; one call may have more alone."""
REST_SECONDS = 0.0001
"""For each event, and each run that it has started: three times as long as they take."""
CALM_SECONDS = 0.02
"""Nobody wants anything if nothing is decided for so long, which is longer than a worker takes to answer."""


class Bulk:
    """Paces such calls."""

    def __init__(self, engine: EngineHandle) -> None:
        self._engine = engine
        self._turns = AppTurns(MOST)
        self._rests_until = 0.0
        """By the loop's clock."""

    def turn(self, caller: str, many: int) -> AbstractAsyncContextManager[None]:
        """Wait until a call of so many events, or runs, with a token of this name, may be taken."""
        return nullcontext() if many <= FEW else self._turn(caller, many)

    @asynccontextmanager
    async def _turn(self, caller: str, many: int) -> AsyncIterator[None]:
        async with self._turns.of(caller, many):
            await self._rest()
            yield

    def taken(self, events: int, runs: int) -> None:
        """Note that a call was taken which had so many events, and has started so many runs."""
        if events + runs > FEW:
            now = asyncio.get_running_loop().time()
            self._rests_until = max(now, self._rests_until) + (events + runs) * REST_SECONDS

    async def _rest(self) -> None:
        clock, engine = asyncio.get_running_loop().time, self._engine
        while (left := self._rests_until - clock()) > 0:
            decisions = engine.decisions
            await asyncio.sleep(min(left, CALM_SECONDS))
            if engine.decisions == decisions and not engine.state.unsent:
                self._rests_until = clock()
