"""A step that a body has found, and the future that the body awaits of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from stepwire.payload import Payload
from stepwire.replay.loop import ReplayFuture
from stepwire.replay.model import Planned

OPEN, RESOLVED, CANCELLED = range(3)


class Found:
    """A step that the body has found, and what awaits it: a future, or a timer's handle."""

    __slots__ = ("decode", "future", "handle", "planned", "state")

    def __init__(self, planned: Planned, decode: Callable[[Payload], Any] | None) -> None:
        self.planned = planned
        self.decode = decode
        self.future: ReplayFuture | None = None
        self.handle: asyncio.TimerHandle | None = None
        self.state = OPEN


class StepFuture(ReplayFuture):
    """What a body awaits of a step. Cancelling it cancels the step."""

    found: Found
    give_up: Callable[[Found], None]

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the future and its step."""
        if not super().cancel(msg):
            return False
        self.give_up(self.found)
        return True

    __hash__ = ReplayFuture.__hash__
