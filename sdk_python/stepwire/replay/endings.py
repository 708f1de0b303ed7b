"""How the code of a dropped body is ended at once, so that no garbage collection does it later and louder.

Nothing of Stepwire's is raised into it. It gets what Python raises in any coroutine that is closed: `GeneratorExit`,
where it waits, innermost first. `finally` blocks run; what they wait for never comes, and they get `GeneratorExit`
again. Code that still waits after ten of them is abandoned: it is never run again, and kept from the garbage collector,
which would raise one more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from types import FrameType
from typing import Any, Generic, TypeVar

from stepwire import places
from stepwire.replay.numbered import NumberedCoroutine

_logger = logging.getLogger("stepwire.function")
T = TypeVar("T")
PATIENCE = 10
"""How often code is told that it has ended."""
ROUNDS = 100
"""How often code that is ended may leave new tasks and generators behind."""


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

    def __iter__(self) -> Iterator[T]:
        return iter(self._all)

    def take(self) -> list[T]:
        """Give those that live, and forget them."""
        self.prune()
        live, self._all = self._all, []
        return live


def end_task(task: asyncio.Task[Any]) -> str:
    """End a pending task, and give "", or the place of code that goes on all the same and is abandoned.

    Its loop must be the running one, and closed, so that nothing that it awaits comes.
    """
    setattr(task, "_log_destroy_pending", False)  # noqa: B010 - asyncio's own way to keep a task quiet
    coroutine: Any = task.get_coro()
    if isinstance(coroutine, NumberedCoroutine) and not coroutine.runs_user_code:  # a fan-out has thousands
        coroutine.close()
        return ""
    asyncio.tasks._enter_task(task.get_loop(), task)  # what asks for the current task, like a timeout, must find it
    try:
        if _ends(coroutine):
            return ""
    finally:
        asyncio.tasks._leave_task(task.get_loop(), task)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))
    return places.of_awaitable(coroutine) or "code without a name"


def _ends(coroutine: Any) -> bool:
    """Close a coroutine from the inside out; False if it goes on.

    `close` alone would let code in the middle down: if an inner coroutine waits once more, the outer one gets a
    RuntimeError in the place of GeneratorExit.
    """
    ended: list[Any] = []
    """Those that do not tell themselves whether they have ended."""
    refusals = 0
    while links := [each for each in places.chain(coroutine) if not any(each is other for other in ended)]:
        innermost = links[-1]
        waits = False
        with contextlib.suppress(BaseException):  # its last words, or that it waits once more
            if type(innermost).__name__.startswith("async_generator"):
                innermost.throw(GeneratorExit())  # its `close` would leave the generator as it is
                waits = True
            elif hasattr(innermost, "close"):
                innermost.close()
        if waits or _waits(innermost):
            refusals += 1
            if refusals == PATIENCE:
                return False
        else:
            ended.append(innermost)
    return True


def _waits(awaitable: Any) -> bool:
    """Whether a coroutine or generator has not ended."""
    return getattr(awaitable, "cr_frame", None) is not None or getattr(awaitable, "gi_frame", None) is not None


def end_generator(generator: AsyncGenerator[Any, Any]) -> str:
    """End an async generator in the middle of its code; gives "", or the place where it goes on all the same."""
    closing = None
    for _ in range(PATIENCE):
        try:
            if closing is None:
                closing = generator.athrow(GeneratorExit())
                closing.send(None)
            else:
                closing.throw(GeneratorExit())
        except BaseException:
            closing = None  # it has ended, or has yielded once more
            if not unended(generator):
                return ""
    frame: FrameType = getattr(generator, "ag_frame")  # noqa: B009 - typeshed does not know it
    return places.of_frame(frame)


def warn(run_id: str, function_id: str, place: str) -> None:
    """Log that code was abandoned."""
    _logger.warning(
        "run %s: code of its function %r goes on at %s, though the body is over: it is abandoned, but keeps what it "
        "holds. Let GeneratorExit end it: a bare `except` and `except BaseException` catch it, `except Exception` does "
        "not",
        run_id,
        function_id,
        place,
    )


def unended(generator: AsyncGenerator[Any, Any]) -> bool:
    """Whether code of an async generator is still to run."""
    return getattr(generator, "ag_frame", None) is not None


def is_awaiting(generator: AsyncGenerator[Any, Any]) -> bool:
    """Whether an async generator is in the middle of an await, on behalf of some task."""
    return bool(getattr(generator, "ag_running", False))
