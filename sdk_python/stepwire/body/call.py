"""What a call like `step.run(...)` gives: a coroutine that starts its step when it is first awaited."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from stepwire.replay.numbered import NumberedCoroutine

if TYPE_CHECKING:
    from stepwire.replay.invocation import Invocation

T = TypeVar("T")


class StepCall(NumberedCoroutine[T]):
    """A step that is started when this is awaited, or when a task of it first runs; cancelled if it is closed.

    Unlike a native coroutine it hashes by its number, so that sets of calls have an order that replays repeat, and it
    is quiet when its body is dropped before it was awaited. `plan` has the arguments of Invocation.plan, without the
    source.
    """

    __slots__ = ("__weakref__", "_driving", "_invocation", "_plan", "_source")

    runs_user_code: ClassVar[bool] = False

    def __init__(self, number: int, invocation: Invocation, plan: tuple[Any, ...], source: str) -> None:
        self._number = number
        self._invocation = invocation
        self._plan: tuple[Any, ...] | None = plan
        self._source = source
        self._driving: Generator[Any, Any, T] | None = None

    def at(self, source: str) -> StepCall[T]:
        """Say where the user's call stands, if not here."""
        self._source = source
        return self

    def __await__(self) -> Generator[Any, Any, T]:
        if self._plan is None:
            error = RuntimeError(f"the step at {self._source} was awaited before: call it anew for another step")
            if not self._invocation.loop.is_hopeless(error):
                raise error
            return self._invocation.loop.create_future().__await__()
        plan, self._plan = self._plan, None
        return _drive(self._invocation, (*plan, self._source))

    def send(self, value: Any) -> Any:
        """Go on; asyncio calls it."""
        if self._driving is None:
            self._driving = self.__await__()
        return self._driving.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error; asyncio calls it."""
        if self._driving is None:
            self._driving = self.__await__()
        try:
            return self._driving.throw(*error)
        finally:
            del error  # whose traceback knows this frame

    def close(self) -> None:
        """Give up the step."""
        self._plan = None
        if self._driving is not None:
            self._driving.close()

    def __del__(self) -> None:
        if self._plan is not None:
            _tell_never_awaited(self, self._invocation, self._number, self._plan[0], self._source)


class GroupCall(NumberedCoroutine[T]):
    """Several steps behind one call, like `step.map(...)`: a coroutine that tells if nothing has ever awaited it.

    `name` is what is told of it.
    """

    __slots__ = ("__weakref__", "_coroutine", "_invocation", "_name", "_source", "_wanted")

    def __init__(
        self, number: int, invocation: Invocation, coroutine: Coroutine[Any, Any, T], name: str, source: str
    ) -> None:
        self._number = number
        self._invocation = invocation
        self._coroutine = coroutine
        self._name = name
        self._source = source
        self._wanted = False

    def __await__(self) -> Generator[Any, Any, T]:
        self._wanted = True
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Go on; asyncio calls it."""
        self._wanted = True
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error; asyncio calls it."""
        self._wanted = True
        try:
            return self._coroutine.throw(*error)
        finally:
            del error  # whose traceback knows this frame

    def close(self) -> None:
        """Give the steps up."""
        self._wanted = True
        self._coroutine.close()

    def __del__(self) -> None:
        if self._wanted:
            return
        self._coroutine.close()
        _tell_never_awaited(self, self._invocation, self._number, self._name, self._source)


def _tell_never_awaited(call: object, invocation: Invocation, number: int, name: str, source: str) -> None:
    invocation.note_never_awaited(number, name, source)
    if invocation.lively:
        message = f"step {name!r} at {source} was never awaited, so it was never started"
        warnings.warn(message, RuntimeWarning, stacklevel=3, source=call)


def _drive(invocation: Invocation, plan: tuple[Any, ...]) -> Generator[Any, Any, T]:
    future: asyncio.Future[T] = invocation.plan(*plan)
    try:
        return (yield from future)
    except GeneratorExit:
        future.cancel()
        raise
