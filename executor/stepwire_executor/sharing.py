"""Turns over apps: so many may do something at a time, and very many of one app hold up another's for one turn each."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class AppTurns:
    """Let `places` in at a time. Those who wait come in turn over their apps, those of one app in their order."""

    def __init__(self, places: int) -> None:
        self._free = places
        """Not 0 only while nobody waits."""
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By app, whose turn is next first."""

    @asynccontextmanager
    async def of(self, app: str) -> AsyncIterator[None]:
        """Wait for an app's turn, and keep a place meanwhile."""
        if self._free:
            self._free -= 1
        else:
            await self._turn(app)
        try:
            yield
        finally:
            self._pass_on()

    async def _turn(self, app: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(app, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was let in, and does not come
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Let in whose turn it is; who was cancelled meanwhile has none."""
        while self._waiting:
            app, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            if turns:
                self._waiting.move_to_end(app)
            else:
                del self._waiting[app]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
