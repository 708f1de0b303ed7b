"""What annotations say."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import pytest

from stepwire.signatures import is_async, parameter_type, return_type

if TYPE_CHECKING:
    from nowhere import Missing

T = TypeVar("T")


def number() -> int: ...  # type: ignore[empty-body]
async def number_async() -> int: ...  # type: ignore[empty-body]
def awaitable() -> Awaitable[list[int]]: ...  # type: ignore[empty-body]
def coroutine() -> Coroutine[Any, Any, str]: ...  # type: ignore[empty-body]
def future() -> asyncio.Future[str]: ...  # type: ignore[empty-body]
def nothing() -> None: ...
def anything() -> Any: ...
def silent(): ...  # type: ignore[no-untyped-def]
def generic(x: T) -> T: ...  # type: ignore[empty-body]
def never() -> NoReturn: ...  # type: ignore[misc]
def annotated() -> Annotated[int, "metres"]: ...  # type: ignore[empty-body]
def lost() -> Missing: ...
def half_lost(x: Missing) -> dict[str, int]: ...  # type: ignore[empty-body]
def broken() -> 1 / 0: ...  # type: ignore[valid-type]


@functools.wraps(number)
def wrapped(*args: Any) -> Any: ...


class Callables:
    def method(self) -> float: ...  # type: ignore[empty-body]
    def __call__(self) -> bytes: ...  # type: ignore[empty-body]

    @staticmethod
    def static() -> bool: ...  # type: ignore[empty-body]

    async def work(self, x: int) -> str: ...  # type: ignore[empty-body]


class AsyncCall:
    async def __call__(self) -> int: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("code", "type_"),
    [
        (number, int),
        (number_async, int),
        (awaitable, list[int]),
        (coroutine, str),
        (future, str),
        (nothing, type(None)),
        (anything, None),
        (silent, None),
        (generic, None),
        (never, None),
        (annotated, Annotated[int, "metres"]),
        (lost, None),
        (half_lost, dict[str, int]),
        (broken, None),
        (wrapped, int),
        (functools.partial(functools.partial(generic), 1), None),
        (functools.partial(number), int),
        (Callables().method, float),
        (Callables(), bytes),
        (Callables.static, bool),
        (Callables().work, str),
        (Callables, Callables),
        (len, None),
        (lambda: 1, None),
    ],
)
def test_the_return_type_is_what_one_gets_in_the_end(code: Callable[..., Any], type_: Any) -> None:
    assert return_type(code) == type_
    assert return_type(code) == type_, "the second answer is that of the cache"


def test_a_name_that_comes_to_exist_later_is_found_then() -> None:
    scope: dict[str, Any] = {}
    exec("from __future__ import annotations\ndef make() -> Later: ...", scope)
    assert return_type(scope["make"]) is None
    exec("class Later: ...", scope)
    assert return_type(scope["make"]) is scope["Later"]


def test_functions_are_not_kept_alive() -> None:
    def local() -> int: ...  # type: ignore[empty-body]

    assert return_type(local) is int
    gone = weakref.ref(local)
    del local
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("code", "yes"),
    [
        (number, False),
        (number_async, True),
        (functools.partial(number_async), True),
        (functools.partial(AsyncCall()), True),
        (Callables().work, True),
        (Callables(), False),
        (AsyncCall(), True),
        (AsyncCall, False),
        (len, False),
    ],
)
def test_async_code_is_told_apart(code: Callable[..., Any], yes: bool) -> None:
    assert is_async(code) is yes


def test_the_type_of_a_parameter() -> None:
    assert parameter_type(Callables().work, "x") is int
    assert parameter_type(generic, "x") is None
    assert parameter_type(half_lost, "x") is None
    assert parameter_type(wrapped, "y") is None
