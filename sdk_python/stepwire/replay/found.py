"""A step that a body has found, and the future that the body awaits of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stepwire.errors import Failure, StepError
from stepwire.payload import Payload
from stepwire.replay.loop import ReplayFuture
from stepwire.replay.model import Closure, Entry, Planned, TimedOut
from stepwire.replay.outcome import unread

if TYPE_CHECKING:
    from stepwire.values import Values

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


def settle(found: Found, future: asyncio.Future[Any], entry: Entry, values: Values) -> None:
    """Give a step's future what the journal holds."""
    outcome = entry.outcome
    if isinstance(outcome, Failure):
        future.set_exception(StepError(entry.key.id, entry.key.index, outcome, entry.attempts))
    elif isinstance(outcome, TimedOut):
        future.set_result(None)
    else:
        try:
            value = _decode(found, outcome, values)
        except BaseException as error:
            future.set_exception(unread(entry, error, values))
        else:
            future.set_result(value)


def _decode(found: Found, output: Payload, values: Values) -> Any:
    if found.decode is not None:
        return found.decode(output)
    target, key = found.planned.target, found.planned.key
    assert isinstance(target, Closure)
    return values.decode(output, target.output_type, f"the output of step {key.id!r}")


def nothing(_: Payload) -> None:
    """Decode what has no value."""
    return
