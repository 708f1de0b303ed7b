"""Whether a value that was read again is what it was, and where it first differs. Knows types, but no encoding."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, TypeVar
from uuid import UUID

import pydantic
import typing_extensions

SCALARS = frozenset({str, int, float, bool, type(None)})
_TEXTS = frozenset({str})
_PLAIN = SCALARS | {list, dict}
DEEPEST = 400
_EXACT = frozenset({bytes, datetime, date, timedelta, UUID})
_SECRETS = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)
_LISTS = (list, tuple, set, frozenset, collections.deque)
_ABSENT = object()
_UNIONS = (typing.Union, types.UnionType)


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Where a value first differs from what it was, and what stands there before and after."""

    path: tuple[tuple[str, Any], ...]
    """Steps into the value: how each is shown, and its name, key or index."""
    before: Any
    after: Any

    @property
    def is_cut(self) -> bool:
        """Whether a member of a subclass lost what its base has not."""
        return isinstance(self.before, type(self.after)) and _fields(self.after) is not None

    def __str__(self) -> str:
        """Say it without showing texts: they may be secret."""
        place = "".join(shown for shown, _ in self.path)
        return f"at {place}: {_reason(self.before, self.after)}" if place else _reason(self.before, self.after)


def difference(before: Any, after: Any, type_: Any) -> Difference | None:
    """Find the first place where `after`, read as `type_`, is not what `before` was; None if there is none.

    Equal values of the same class are the same. So are a number, text or dict of a subclass and the plain one that
    equals it, but not members of enums, and not True and 1. Where the type says nothing, or names an abstract class,
    the plain JSON form is the same.
    """
    if _are_the_same(before, after):
        return None
    for found in _differences(before, after, (), 0):
        if not _is_as_declared(type_, found):
            return found
    return None


def _are_the_same(before: Any, after: Any) -> bool:
    """Tell quickly, for what most values are made of; False is no answer."""
    if before is after:
        return True
    kind = type(before)
    if kind is not type(after):
        return False
    if kind in SCALARS or kind in _EXACT:
        return bool(before == after)
    if kind is list or kind is tuple:
        return len(before) == len(after) and all(map(_are_the_same, before, after))
    if kind is dict:
        return (
            before.keys() == after.keys()
            and set(map(type, before)) == set(map(type, after))
            and all(_are_the_same(part, after[key]) for key, part in before.items())
        )
    if isinstance(before, pydantic.BaseModel):
        return (
            _are_the_same(before.__dict__, after.__dict__)
            and _are_the_same(before.__pydantic_extra__, after.__pydantic_extra__)
            and _are_the_same(before.__pydantic_private__, after.__pydantic_private__)
        )
    return False


def secret_in(value: Any) -> Difference | None:
    """Find a secret that JSON hides, in a value that has no type."""
    return next(_secrets(value, (), 0), None)


def _secrets(value: Any, path: tuple[tuple[str, Any], ...], depth: int) -> Iterator[Difference]:
    if isinstance(value, _SECRETS):
        yield Difference(path, value, None)
    elif depth < DEEPEST:
        for step, part in _parts(value):
            yield from _secrets(part, (*path, step), depth + 1)


def odd_key_in(value: Any, type_: Any = Any, place: str = "", depth: int = 0) -> tuple[str, Any] | None:
    """Find a key that is no text, where no type says what it is: gives the place of its dict, and the key."""
    type_ = _bare(type_)
    if isinstance(value, Mapping) and (type_ is Any or not typing.get_args(type_)):
        for key in value:
            if not isinstance(key, str):
                return place, key
    fields = _written_fields(value)
    if fields is not None:
        type_ = type(value)
    for (shown, step), part in _parts(value) if fields is None else _named_parts(fields):
        if depth < DEEPEST and (isinstance(part, (Mapping, *_LISTS)) or _fields(part) is not None):
            within = type_ if type_ is Any else _type_within(type_, step)
            if (found := odd_key_in(part, within, place + shown, depth + 1)) is not None:
                return found
    return None


def _parts(value: Any) -> Iterator[tuple[tuple[str, Any], Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield _at_key(key), part
    elif isinstance(value, _LISTS):
        for index, part in enumerate(value):
            yield (f"[{index}]", index), part
    else:
        yield from _named_parts(_fields(value) or {})


def _named_parts(fields: dict[str, Any]) -> Iterator[tuple[tuple[str, Any], Any]]:
    for name, part in fields.items():
        yield (f".{name}", name), part


def _written_fields(value: Any) -> dict[str, Any] | None:
    """Give the fields of a thing that are written; None if it has no fields."""
    if isinstance(value, pydantic.BaseModel):
        shown = {name for name, field in type(value).model_fields.items() if not field.exclude}
        return {
            **{name: part for name, part in value.__dict__.items() if name in shown},
            **(value.__pydantic_extra__ or {}),
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name, _ABSENT) for each in dataclasses.fields(value)}
    return None


def _differences(before: Any, after: Any, path: tuple[tuple[str, Any], ...], depth: int) -> Iterator[Difference]:
    """Give the differing places; one whose inside was looked at is not itself given."""
    if before is after:
        return
    if depth > DEEPEST or not _are_alike(before, after):
        yield Difference(path, before, after)
    elif isinstance(before, Mapping):
        if len(before) > len(after) or any(key not in before for key in after):
            key = next((key for key in (*before, *after) if key not in after or key not in before), None)
            yield Difference((*path, _at_key(key)), before.get(key, _ABSENT), after.get(key, _ABSENT))
        yield from _members(before, after, path, depth)
        for key, part in before.items():
            if key in after:
                yield from _differences(part, after[key], (*path, _at_key(key)), depth + 1)
    elif isinstance(before, set | frozenset):
        if before != after:
            yield Difference(path, before, after)
        yield from _members(before, after, path, depth)
    elif isinstance(before, _LISTS):
        if len(before) != len(after) or getattr(before, "maxlen", None) != getattr(after, "maxlen", None):
            yield Difference(path, before, after)
        for index, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from _differences(old, new, (*path, (f"[{index}]", index)), depth + 1)
    else:
        yield from _inner_differences(before, after, path, depth)


def _members(before: Any, after: Any, path: tuple[tuple[str, Any], ...], depth: int) -> Iterator[Difference]:
    """Compare keys, or members of sets, that equal each other: True equals 1, and an enum's member may equal a text."""
    if set(map(type, before)) <= _TEXTS and set(map(type, after)) <= _TEXTS:
        return
    others = {each: each for each in after}
    for each in before:
        if each in others:
            yield from _differences(each, others[each], (*path, (f"[{each!r}]", each)), depth + 1)


def _inner_differences(before: Any, after: Any, path: tuple[tuple[str, Any], ...], depth: int) -> Iterator[Difference]:
    """Compare things that have fields by these, others by what they say of themselves."""
    fields = _fields(before)
    if fields is None:
        if not _are_equal(before, after):
            yield Difference(path, before, after)
        return
    others = _fields(after) or {}
    for name in {**fields, **others}:
        old, new = fields.get(name, _ABSENT), others.get(name, _ABSENT)
        yield from _differences(old, new, (*path, (f".{name}", name)), depth + 1)


def _are_alike(before: Any, after: Any) -> bool:
    """Whether the classes may stand for each other."""
    kind, other = type(before), type(after)
    if kind is other:
        return True
    if isinstance(before, bool | enum.Enum) or isinstance(after, bool | enum.Enum):
        return False
    if other is float:
        return isinstance(before, float) or (isinstance(before, int) and before == after)
    if other is dict:
        return isinstance(before, Mapping)
    if other is bytes:
        return isinstance(before, bytes | bytearray | memoryview)
    return (other is int or other is str) and isinstance(before, other)


def _are_equal(before: Any, after: Any) -> bool:
    if isinstance(before, Decimal) and isinstance(after, Decimal):
        return before.as_tuple() == after.as_tuple()
    if isinstance(before, float) and before != before:
        return bool(after != after)
    if isinstance(before, datetime | time) and before.utcoffset() is not None:
        # Python calls no two times equal that a change of the clocks makes ambiguous, unless their zone is the same.
        is_same = before.utcoffset() == after.utcoffset() and before.replace(tzinfo=None) == after.replace(tzinfo=None)
        return bool(is_same)
    if isinstance(before, enum.Enum):  # members are what they are, and these are two
        return False
    compares: Any = type(before).__eq__
    if compares is object.__eq__:  # no two of such are equal: what they plainly hold has to do
        return _plain_attributes(before) == _plain_attributes(after)
    try:
        return bool(before == after)
    except Exception:  # a comparison is code like any other; what can't be compared is not known to be the same
        return False


def _fields(value: Any) -> dict[str, Any] | None:
    """Give what a thing consists of; None if it says itself what it equals."""
    if isinstance(value, pydantic.BaseModel):
        names = type(value).model_fields
        own = {name: value.__dict__[name] for name in names if name in value.__dict__}
        return {**own, **(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name, _ABSENT) for each in dataclasses.fields(value)}
        for name, part in getattr(value, "__dict__", {}).items():
            if name not in fields and not isinstance(getattr(type(value), name, None), functools.cached_property):
                fields[name] = part
        return fields
    return None


def _plain_attributes(value: Any) -> dict[str, Any]:
    return {name: part for name, part in getattr(value, "__dict__", {}).items() if type(part) in SCALARS}


def _is_as_declared(type_: Any, found: Difference) -> bool:
    """Whether the type at the place allows what was read instead: it says nothing, or names an abstract class."""
    for _, step in found.path:
        type_ = _bare(type_)
        if type_ is Any:
            break
        type_ = _type_within(type_, step)
    type_ = _bare(type_)
    if type_ is Any:
        return type(found.after) in _PLAIN and found.before is not _ABSENT and not _hides(found.before)
    origin = typing.get_origin(type_) or type_
    if type(found.after) is not list or getattr(origin, "__module__", "") != "collections.abc":
        return False
    inner = types.GenericAlias(list, (*typing.get_args(type_), Any)[:1])
    return isinstance(found.before, _LISTS) and difference(list(found.before), found.after, inner) is None


def _hides(value: Any) -> bool:
    return next(_secrets(value, (), 0), None) is not None


def _bare(type_: Any) -> Any:
    """Take off what does not change which values there are; what says nothing is Any."""
    while True:
        origin, args = typing.get_origin(type_), typing.get_args(type_)
        if type_ is None or type_ is object or isinstance(type_, TypeVar) or type_ in (dict, list):
            return Any
        if origin is Annotated or origin in (typing.Required, typing.NotRequired):
            type_ = args[0]
        elif origin in _UNIONS and type(None) in args and len(args) == 2:
            type_ = args[0] if args[1] is type(None) else args[1]
        elif isinstance(type_, typing_extensions.TypeAliasType):
            type_ = type_.__value__
        elif isinstance(type_, typing.NewType):
            type_ = type_.__supertype__
        else:
            return type_


def _type_within(type_: Any, step: Any) -> Any:
    """Give the type of a part; `type_` itself, which says too much of it, where that can't be told."""
    origin, args = typing.get_origin(type_) or type_, typing.get_args(type_)
    if isinstance(origin, type) and issubclass(origin, pydantic.BaseModel):
        field = origin.model_fields.get(step) or getattr(type_, "model_fields", {}).get(step)
        if field is None:
            return type_ if step in origin.__private_attributes__ else Any
        return field.annotation
    if isinstance(origin, type) and issubclass(origin, Mapping) and not typing.is_typeddict(origin):
        return args[1] if len(args) == 2 else type_
    if isinstance(origin, type) and issubclass(origin, tuple) and args:
        return args[0] if args[-1] is Ellipsis else args[step] if step < len(args) else type_
    if args and len(args) == 1:
        return args[0]
    try:
        return typing.get_type_hints(origin, include_extras=True).get(step, type_)
    except Exception:  # names that can't be resolved from here
        return type_


def _at_key(key: Any) -> tuple[str, Any]:
    return (f".{key}" if isinstance(key, str) else f"[{key!r}]", key)


def _reason(before: Any, after: Any) -> str:
    if isinstance(before, _SECRETS):
        return (
            f"a {_kind(before)} is written as stars and would be lost: return a reference to the secret, or give the "
            "field a serializer (pydantic.field_serializer) if it may stand in the run's journal"
        )
    if isinstance(before, float) and not math.isfinite(before):
        return f"{before!r} is no number that JSON knows"
    if after is _ABSENT:
        return f"{_shown(before)} would not come back"
    if before is _ABSENT:
        return f"{_shown(after)} would come back, where there was nothing"
    if type(before) is not type(after):
        changed = f"{_shown(before)} would come back as {_shown(after)}"
        if _fields(before) is None or _fields(after) is None:
            return f"{changed}: return what the annotation says, or change it"
        return f"{changed}: annotate the class itself, or a union whose members differ (pydantic's discriminator)"
    return f"{_shown(before)} would come back as another: what is written of it does not hold all of it"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | Decimal):
        return repr(value) if len(repr(value)) < 40 else f"the {_kind(value)}"
    return f"the {_kind(value)}"


def _kind(value: Any) -> str:
    return type(value).__qualname__.rpartition(".")[2]
