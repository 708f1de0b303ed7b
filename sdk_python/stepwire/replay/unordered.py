"""Gives `asyncio.as_completed` an order that replays can repeat.

It puts what it is given into a set, and makes tasks in the order of that set. Coroutines hash by their address, so the
tasks, and the steps in them, would come in another order in each process. All other constructs of asyncio keep the
order that they are given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from stepwire.errors import ForeignAwaitError
from stepwire.replay.numbered import NumberedCoroutine

_ENSURE = (asyncio.ensure_future.__code__, getattr(asyncio.tasks, "_ensure_future", asyncio.ensure_future).__code__)
_ITERATOR = getattr(asyncio.tasks, "_AsCompletedIterator", None)  # since Python 3.13
_AS_COMPLETED = (asyncio.as_completed.__code__, _ITERATOR and _ITERATOR.__init__.__code__)
_DEPTH = 3
"""Frames between ensure_future and as_completed: at most a wrapper and a comprehension."""


def caller_of_ensure_future(frame: FrameType) -> FrameType | None:
    """Give the frame of `as_completed` if `frame` is the making of a task for it."""
    if frame.f_code is not _ENSURE[0] and frame.f_code is not _ENSURE[1]:
        return None
    above = frame.f_back
    for _ in range(_DEPTH):
        if above is None:
            return None
        if above.f_code is _AS_COMPLETED[0] or above.f_code is _AS_COMPLETED[1]:
            return above
        if above.f_code is asyncio.gather.__code__:
            return None
        above = above.f_back
    return None


class Unordered:
    """Makes the tasks for one `as_completed` in the order of its argument."""

    def __init__(self) -> None:
        self._made: dict[int, asyncio.Task[Any]] = {}

    def take(self, frame: FrameType, coroutine: Any, make: Callable[[Any], Any]) -> Any:
        """Give the task of a coroutine; with the first one all are made.

        Raises ForeignAwaitError if they were given without an order.
        """
        task = self._taken(coroutine)
        if task is not None:
            return task
        given = frame.f_locals.get("aws", frame.f_locals.get("fs"))
        if given is not None and not isinstance(given, set | frozenset | Iterator):
            self._made = {id(each): make(each) for each in dict.fromkeys(given) if asyncio.iscoroutine(each)}
            task = self._taken(coroutine)
            if task is not None:
                return task
        if isinstance(coroutine, NumberedCoroutine):
            return make(coroutine)
        raise ForeignAwaitError(
            "asyncio.as_completed was given coroutines without an order that a replay could repeat (it puts them into "
            "a set): give it a list of them, or of tasks"
        )

    def _taken(self, coroutine: Any) -> asyncio.Task[Any] | None:
        task = self._made.get(id(coroutine))
        if task is None or task.get_coro() is not coroutine:
            return None
        del self._made[id(coroutine)]
        return task
