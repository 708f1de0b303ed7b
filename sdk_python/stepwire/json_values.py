"""JSON for Python values, by their types. What would not come back is refused, by the path at which it stands.

What was encoded is read at once, and compared with what it was, unless it is plain data without a type. Types are read
by pydantic. Inside of pydantic models their own `model_config` rules; everywhere else bytes are base64.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import pydantic
import pydantic_core
from typing_extensions import TypeAliasType

from stepwire.errors import EncodingError
from stepwire.misfits import (
    LONGEST_INTEGER_BITS,
    OBJECTS,
    ODD_KEYS,
    SCALARS,
    has_hidden_infinity,
    inspected,
    misfit,
    odd_key,
)
from stepwire.round_trip import Difference, difference, odd_key_in, secret_in
from stepwire.typed_dicts import readable

MOST_PROBLEMS = 3
"""Problems of a value that an error lists."""
BYTES = (bytes, bytearray, memoryview)
LONGEST_DIGITS = 4_200
_MANY_DIGITS = re.compile(rb"\d{4200}")
_CONFIG = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
_DUMP_ERRORS = (
    AttributeError,
    RecursionError,
    TypeError,
    ValueError,
    pydantic.PydanticUserError,
    pydantic_core.PydanticSerializationError,
)


class _NotKeptError(EncodingError):
    """A value would not come back as its type says, but differ from what it was, or not be readable."""

    def __init__(self, problem: str, found: Difference | None = None) -> None:
        super().__init__(problem)
        self.found = found


def to_json(value: Any, type_: Any, what: str, *, converts: bool = False) -> bytes:
    """Encode a value by its type or, without one, by what it is; what would not come back is refused.

    With `converts` plain data need not be of its type, but be readable as it. Raises EncodingError.
    """
    kind = type(value)
    try:
        if kind in SCALARS and (type_ is None or type_ is kind):
            data = pydantic_core.to_json(value, inf_nan_mode="constants")
            fits = kind is not int or value.bit_length() <= LONGEST_INTEGER_BITS
        elif _is_untyped(type_):
            flags = inspected(value)
            data = _plain(value, type_, flags)
            fits = not flags & ODD_KEYS or _comes_back(value, type_, data)
            if flags & OBJECTS and b"null" in data:
                fits = fits and not has_hidden_infinity(value)
        else:
            data, fits = _kept(value, type_, converts), True
        if fits and (b"NaN" in data or b"Infinity" in data):
            fits = _is_json(data)
    except _NotKeptError as error:
        raise EncodingError(f"{what} can't be encoded as {_name(type_)}: {error}") from None
    except EncodingError as error:
        raise EncodingError(f"{what} can't be encoded: {error}") from None
    except pydantic.PydanticUserError as error:
        raise EncodingError(f"{what} can't be encoded as {_name(type_)}: {str(error).splitlines()[0]}") from None
    except _DUMP_ERRORS as error:
        raise EncodingError(f"{what} can't be encoded as JSON: {misfit(value, error)}") from None
    if not fits:
        raise EncodingError(f"{what} can't be encoded as JSON: {misfit(value, None)}")
    return data


def from_json(data: bytes, type_: Any, what: str) -> Any:
    """Decode JSON as a type or, without one, to plain values. Raises EncodingError."""
    try:
        if _is_untyped(type_):
            value = pydantic_core.from_json(data)
            if type_ in (dict, list) and type(value) is not type_:
                raise ValueError(f"it is a {type(value).__name__}")
            return value
        if type_ in (bytes, bytearray, memoryview):
            raise ValueError("it is JSON, not bytes")
        return _read(_adapter(type_), data)
    except EncodingError as error:
        raise EncodingError(f"{what} can't be read: {error}") from None
    except pydantic.ValidationError as error:
        raise EncodingError(f"{what} can't be read as {_name(type_)}: {_problems(error)}") from None
    except (ValueError, TypeError, RecursionError, pydantic.PydanticUserError) as error:
        raise EncodingError(f"{what} can't be read as {_name(type_)}: {error}") from None


def check_bytes(value: Any, type_: Any, what: str) -> None:
    """Check that bytes come back as their type says. Raises EncodingError."""
    if _is_untyped(type_) and type_ is not dict and type_ is not list:
        return
    if type_ in BYTES:
        return
    try:
        found = difference(value, from_bytes(bytes(value), type_, what), type_)
    except EncodingError:
        raise EncodingError(f"{what} can't be encoded as {_name(type_)}: it is {type(value).__name__}") from None
    if found is not None:
        raise EncodingError(f"{what} can't be encoded as {_name(type_)}: {found}")


def from_bytes(data: bytes, type_: Any, what: str) -> Any:
    """Give bytes as what the type makes of them: bytes, bytearray, or whatever takes bytes. Raises EncodingError."""
    if type_ is bytearray:
        return bytearray(data)
    try:
        if type_ in (dict, list):
            raise TypeError
        return data if _is_untyped(type_) or type_ in BYTES else _adapter(type_).validate_python(data)
    except EncodingError as error:
        raise EncodingError(f"{what} can't be read: {error}") from None
    except (ValueError, TypeError, pydantic.PydanticUserError):
        raise EncodingError(f"{what} can't be read as {_name(type_)}: it is {len(data)} raw bytes") from None


def _is_untyped(type_: Any) -> bool:
    return type_ is None or type_ is Any or type_ is object or type_ is dict or type_ is list


def _plain(value: Any, type_: Any, flags: int) -> bytes:
    """Encode a value whose type says nothing; a single model or dataclass so that its own class can read it."""
    if type_ in (dict, list) and not isinstance(value, type_):
        raise EncodingError(f"it is no {type_.__name__}, but a {type(value).__name__}")
    data = _form_of_its_own(value) if flags & OBJECTS else None
    if data is None:
        if flags & OBJECTS and (odd := odd_key_in(value)) is not None:
            raise EncodingError(odd_key(*odd))
        data = _as_it_is(value)
    if flags & OBJECTS and b'"***' in data and (secret := secret_in(value)) is not None:
        raise EncodingError(str(secret))
    if flags & OBJECTS or (len(data) > LONGEST_DIGITS and _MANY_DIGITS.search(data)):
        pydantic_core.from_json(data)
    return data


def _as_it_is(value: Any) -> bytes:
    return pydantic_core.to_json(value, bytes_mode="base64", inf_nan_mode="constants")


def _form_of_its_own(value: Any) -> bytes | None:
    if not isinstance(value, pydantic.BaseModel) and not dataclasses.is_dataclass(value):
        return None
    try:
        return _kept(value, type(value), converts=False)
    except _NotKeptError as error:
        if error.found is not None and error.found.is_cut:
            raise
        return None
    except (EncodingError, *_DUMP_ERRORS):
        return None


def _kept(value: Any, type_: Any, converts: bool) -> bytes:
    """Encode a value in the first form in which its type reads it as it was."""
    is_plain = not inspected(value)
    adapter = _adapter(type_)
    problem, data, found = "", b"", None
    for data in _forms(value, adapter, is_plain):
        try:
            back = _read(adapter, data)
        except pydantic.ValidationError as error:
            problem = problem or f"it could not be read back: {_problems(error)}"
            continue
        if is_plain and (converts or _are_equally_plain(value, back)):
            return data
        found = difference(value, back, type_)
        if found is None:
            return data
        problem = str(found)
    if b"***" in data and (secret := secret_in(value)) is not None:
        problem = str(secret)
    raise _NotKeptError(problem, found)


def _are_equally_plain(value: Any, back: Any) -> bool:
    return bool(back == value) and not inspected(back) and _as_it_is(back) == _as_it_is(value)


def _forms(value: Any, adapter: pydantic.TypeAdapter[Any], is_plain: bool) -> Iterator[bytes]:
    """Give the ways to write a value: with all that there is to see of it, with what goes in again, by its aliases."""
    try:
        seen = adapter.dump_json(value, warnings=False)
    except _DUMP_ERRORS as error:
        try:
            yield _as_it_is(value)  # it is not of its type
        except _DUMP_ERRORS:
            raise error from None
        return
    yield seen
    if is_plain:
        return
    for by_alias in (None, True, False):
        data = adapter.dump_json(value, warnings=False, round_trip=True, by_alias=by_alias)
        if data != seen:
            yield data


def _read(adapter: pydantic.TypeAdapter[Any], data: bytes) -> Any:
    """Read JSON by the names of fields and by their aliases, as others may have written it."""
    return _finished(adapter.validate_json(data, by_alias=True, by_name=True))


def _comes_back(value: Any, type_: Any, data: bytes) -> bool:
    try:
        return bool(from_json(data, type_, "it") == value)
    except EncodingError:
        return False


def _is_json(data: bytes) -> bool:
    """Tell whether NaN and Infinity stand in texts only."""

    def refuse(word: str) -> float:
        raise ValueError(word)

    try:
        json.loads(data, parse_constant=refuse)
    except ValueError:
        return False
    return True


def _adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return _cached_adapter(type_)
    except TypeError:  # can't be hashed, e.g. Annotated with a list; or no type at all, which is told next
        return _new_adapter(type_)


def _new_adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    try:
        known = readable(type_)
        try:
            return pydantic.TypeAdapter(known, config=_CONFIG)
        except pydantic.PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
        # Dataclasses and the like may have a configuration of their own. Behind a name they keep it, or take ours.
        named: Any = TypeAliasType(_name(known), known)
        return pydantic.TypeAdapter(named, config=_CONFIG)
    except (pydantic.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation, TypeError, NameError) as error:
        reason = str(error).splitlines()[0]
        raise EncodingError(
            f"the type {_name(type_)} is not known to pydantic ({reason}): "
            "use a dataclass or a pydantic model, or leave the annotation out and return plain data"
        ) from None


@functools.lru_cache(maxsize=1024)
def _cached_adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    return _new_adapter(type_)


def _finished(value: Any) -> Any:
    """Give what pydantic would check only while it is read (for Iterable and its like) as a list."""
    return list(value) if type(value).__name__ == "ValidatorIterator" else value


def _name(type_: Any) -> str:
    if _is_untyped(type_):
        return "JSON"
    return type_.__name__ if isinstance(type_, type) and not getattr(type_, "__args__", ()) else str(type_)


def _problems(error: pydantic.ValidationError) -> str:
    """Write the first problems in one line."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    texts = []
    for each in found[:MOST_PROBLEMS]:
        place = ".".join(str(part) for part in each["loc"])
        texts.append(f"{place}: {each['msg']}" if place else each["msg"])
    more = f"; and {len(found) - MOST_PROBLEMS} more" if len(found) > MOST_PROBLEMS else ""
    return "; ".join(texts) + more
