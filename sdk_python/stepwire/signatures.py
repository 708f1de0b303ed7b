"""What annotations say about the values that code takes and returns."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

_AWAITABLES = (Awaitable, Coroutine, asyncio.Future, asyncio.Task)
_NOTHING_SAID = (Any, object, typing.NoReturn, typing.Never, typing.Self)
_known: WeakKeyDictionary[Callable[..., Any], Any] = WeakKeyDictionary()


class Converted(NamedTuple):
    """A type that plain data is converted to: a value need not be of it, but be readable as it."""

    type_: Any


def return_type(code: Callable[..., Any]) -> Any | None:
    """Give the type that a callable returns, by its annotation: what it can be awaited for, if it is async.

    A class returns its instances. None if nothing is said, or what is said can't be resolved (yet).
    """
    if isinstance(code, type):
        return code
    function = code if type(code) is types.FunctionType else _function(code)
    try:
        return _known[function]
    except (KeyError, TypeError):  # not asked before, or can't be referred to weakly
        pass
    try:
        found = _meaning(_resolved(function, "return"))
    except NameError:  # a name that may come to exist later in its module: ask again next time
        return None
    try:
        _known[function] = found
    except TypeError:
        return found
    return found


def parameter_type(code: Callable[..., Any], name: str) -> Any | None:
    """Give the type of a parameter, by its annotation; None if nothing is said, or what is said can't be resolved."""
    try:
        annotation = _resolved(_function(code), name)
    except NameError:
        return None
    return None if annotation in _NOTHING_SAID or isinstance(annotation, TypeVar) else annotation


def is_async(code: Callable[..., Any]) -> bool:
    """Whether calling `code` gives a coroutine: an async function, method or partial, or an object with such a call."""
    if type(code) is types.FunctionType and code.__code__.co_flags & inspect.CO_COROUTINE:  # nearly every code
        return True
    if inspect.iscoroutinefunction(code):
        return True
    if isinstance(code, functools.partial):
        return is_async(code.func)
    return not inspect.isroutine(code) and inspect.iscoroutinefunction(getattr(type(code), "__call__", None))  # noqa: B004


def _function(code: Callable[..., Any]) -> Any:
    """Give the function in which the code stands: of partials, methods and objects that can be called."""
    while isinstance(code, functools.partial):
        code = code.func
    if inspect.ismethod(code):
        return code.__func__
    if inspect.isroutine(code):
        return code
    return getattr(type(code), "__call__", code)  # noqa: B004 - it is what is called, not whether


def _resolved(function: Any, name: str) -> Any:
    """Evaluate one annotation; raises NameError if it names what does not exist (yet)."""
    annotation = _annotations(function).get(name, Any)
    if annotation is Any:
        return Any
    scope = inspect.unwrap(function) if hasattr(function, "__wrapped__") else function
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        hints = typing.get_type_hints(holder, getattr(scope, "__globals__", None), None, include_extras=True)
    except NameError:
        raise
    except Exception:  # an annotation is code like any other: whatever it raises, it says nothing
        return Any
    return hints["it"]


def _annotations(function: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return getattr(function, "__annotations__", None) or {}


def _meaning(annotation: Any) -> Any | None:
    if typing.get_origin(annotation) in _AWAITABLES:
        annotation = typing.get_args(annotation)[-1]
    return None if annotation in _NOTHING_SAID or isinstance(annotation, TypeVar) else annotation
