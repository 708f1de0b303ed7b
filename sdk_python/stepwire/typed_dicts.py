"""TypedDicts of the standard library, which pydantic reads only from Python 3.12 on."""

from __future__ import annotations

import functools
import operator
import sys
import types
import typing
from typing import Any, Literal

import typing_extensions


def readable(type_: Any) -> Any:
    """Replace every typing.TypedDict in a type by one that pydantic can read; anything else stays as it is."""
    return type_ if sys.version_info >= (3, 12) else _replaced(type_, ())


def _replaced(type_: Any, within: tuple[Any, ...]) -> Any:
    if typing.is_typeddict(type_) and type(type_).__module__ == "typing":
        return type_ if type_ in within else _copied(type_, (*within, type_))
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if not args or origin is Literal:
        return type_
    metadata = getattr(type_, "__metadata__", ())
    changed = tuple(_replaced(each, within) for each in (args[:1] if metadata else args))
    if all(new is old for new, old in zip(changed, args, strict=False)):
        return type_
    if metadata:
        return typing.Annotated[(changed[0], *metadata)]
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, changed)
    return origin[changed] if origin is not None else type_


def _copied(type_: Any, within: tuple[Any, ...]) -> Any:
    fields: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(type_, include_extras=True).items():
        says = typing.get_origin(hint)
        # The class itself does not know it, if its annotations were texts.
        required = says is typing.Required or (says is not typing.NotRequired and name in type_.__required_keys__)
        bare = typing.get_args(hint)[0] if says in (typing.Required, typing.NotRequired) else hint
        new = _replaced(bare, within)
        fields[name] = new if required else typing_extensions.NotRequired[new]
    return typing_extensions.TypedDict(type_.__name__, fields)  # type: ignore[operator]
