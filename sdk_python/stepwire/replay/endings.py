"""How the code of a dropped body is ended at once, so that no garbage collection does it later and louder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
PATIENCE = 100
"""How many further awaits of a body that ignores its end are ended too."""


class Live(Generic[T]):
    """Things in the order in which they were added, without those that have ended; adding costs O(1)."""

    def __init__(self, lives: Callable[[T], bool]) -> None:
        self._lives = lives
        self._all: list[T] = []
        self._room = 64

    def add(self, thing: T) -> None:
        """Add a thing."""
        self._all.append(thing)
        if len(self._all) > self._room:
            self._all = [each for each in self._all if self._lives(each)]
            self._room = 64 + 2 * len(self._all)

    def take(self) -> list[T]:
        """Give those that live, and forget them."""
        live, self._all = [each for each in self._all if self._lives(each)], []
        return live


def unended(generator: AsyncGenerator[Any, Any]) -> bool:
    """Whether code of an async generator is still to run."""
    return getattr(generator, "ag_frame", None) is not None


def is_awaiting(generator: AsyncGenerator[Any, Any]) -> bool:
    """Whether an async generator is in the middle of an await, on behalf of some task."""
    return bool(getattr(generator, "ag_running", False))


def end_task(task: asyncio.Task[Any]) -> None:
    """End a pending task; its `finally` blocks run, up to their awaits."""
    setattr(task, "_log_destroy_pending", False)  # noqa: B010 - asyncio's own way to keep a task quiet
    coroutine = task.get_coro()
    if coroutine is not None:
        _end(coroutine.close)


def end_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """End an async generator in the middle of its code."""

    def close() -> None:
        closing = generator.aclose()
        try:
            closing.send(None)
        except (StopIteration, StopAsyncIteration):
            return
        closing.close()
        if unended(generator):
            raise RuntimeError

    _end(close)


def _end(close: Callable[[], None]) -> None:
    for _ in range(PATIENCE):
        try:
            close()
        except RuntimeError:
            continue  # it awaits once more, instead of ending
        except (Exception, GeneratorExit, asyncio.CancelledError, SystemExit):
            return  # its last words; its outcome is not wanted any more
        return
