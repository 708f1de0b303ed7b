"""How the code of a dropped body is ended at once, so that no garbage collection does it later and louder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
PATIENCE = 100
"""How many further awaits of code that ignores its end are ended too."""


class Released(BaseException):
    """Ends code of a body that was dropped or has ended. User code can't catch it with `except Exception`.

    GeneratorExit would not do: a coroutine that awaits after it loses those that it awaits in the middle of their code.
    """


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
            self.prune()
            self._room = 64 + 2 * len(self._all)

    def prune(self) -> None:
        """Forget what has ended."""
        self._all = [each for each in self._all if self._lives(each)]

    def take(self) -> list[T]:
        """Give those that live, and forget them."""
        self.prune()
        live, self._all = self._all, []
        return live


def end_task(task: asyncio.Task[Any]) -> None:
    """End a pending task; its `finally` blocks run, but can't wait for anything."""
    setattr(task, "_log_destroy_pending", False)  # noqa: B010 - asyncio's own way to keep a task quiet
    coroutine = task.get_coro()
    for _ in range(PATIENCE):
        try:
            coroutine.throw(Released())
        except KeyboardInterrupt:
            raise
        except BaseException:
            return  # ended; whatever its last words are, its outcome is not wanted any more


def end_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """End an async generator in the middle of its code."""
    closing = None
    for _ in range(PATIENCE):
        try:
            if closing is None:
                closing = generator.athrow(Released())
                closing.send(None)
            else:
                closing.throw(Released())
        except KeyboardInterrupt:
            raise
        except BaseException:
            closing = None  # it has ended, or has yielded once more
            if not unended(generator):
                return


def unended(generator: AsyncGenerator[Any, Any]) -> bool:
    """Whether code of an async generator is still to run."""
    return getattr(generator, "ag_frame", None) is not None


def is_awaiting(generator: AsyncGenerator[Any, Any]) -> bool:
    """Whether an async generator is in the middle of an await, on behalf of some task."""
    return bool(getattr(generator, "ag_running", False))
