"""Turns over apps: so much may be done at a time, and very many of one app hold up another's for one turn each."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class AppTurns:
    """Let so many in as have `places`. Those who wait come in turn over their apps, those of one app in their order."""

    def __init__(self, places: int) -> None:
        self._free = places
        """Over 0 only while nobody waits; below 0 while somebody is in who takes more places than there were."""
        self._waiting: OrderedDict[str, deque[tuple[asyncio.Future[None], int]]] = OrderedDict()
        """By app, whose turn is next first; with the places that each will take."""

    @asynccontextmanager
    async def of(self, app: str, places: int = 1) -> AsyncIterator[None]:
        """Wait for an app's turn, which comes once any place is free, and keep so many meanwhile."""
        if self._free > 0:
            self._free -= places
        else:
            await self._turn(app, places)
        try:
            yield
        finally:
            self._give_back(places)

    async def _turn(self, app: str, places: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(app, deque()).append((turn, places))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was let in, and does not come
                self._give_back(places)
            raise

    def _give_back(self, places: int) -> None:
        """Let in whose turn it is; who was cancelled meanwhile has none."""
        self._free += places
        while self._waiting and self._free > 0:
            app, turns = next(iter(self._waiting.items()))
            turn, wanted = turns.popleft()
            if turns:
                self._waiting.move_to_end(app)
            else:
                del self._waiting[app]
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)
