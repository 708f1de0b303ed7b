"""JSON for Python values, by their types. What JSON can't keep is refused, by the path at which it stands.

Types are read by pydantic. Inside of pydantic models their own `model_config` rules; everywhere else bytes are base64.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import pydantic
import pydantic_core
from typing_extensions import TypeAliasType

from stepwire.errors import EncodingError
from stepwire.misfits import LONGEST_INTEGER_BITS, OBJECTS, ODD_KEYS, SCALARS, has_hidden_infinity, inspected, misfit
from stepwire.typed_dicts import readable

MOST_PROBLEMS = 3
"""Problems of a value that an error lists."""
_CONFIG = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
_DUMP_ERRORS = (
    AttributeError,
    RecursionError,
    TypeError,
    ValueError,
    pydantic.PydanticUserError,
    pydantic_core.PydanticSerializationError,
)


def to_json(value: Any, type_: Any, what: str) -> bytes:
    """Encode a value by its type or, without one, by what it is. Raises EncodingError.

    A value that is not of its type is encoded as what it is; `from_json` then tells, if it does not fit.
    """
    kind = type(value)
    try:
        if kind in SCALARS and (type_ is None or type_ is kind):
            data = pydantic_core.to_json(value, inf_nan_mode="constants")
            fits = kind is not int or value.bit_length() <= LONGEST_INTEGER_BITS
        else:
            flags = inspected(value)
            data = _dumped(value, type_)
            fits = not flags & ODD_KEYS or _comes_back(value, type_, data)
            if flags & OBJECTS and b"null" in data:
                fits = fits and not has_hidden_infinity(value)
        if fits and (b"NaN" in data or b"Infinity" in data):
            fits = _is_json(data)
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
        return _finished(_adapter(type_).validate_json(data))
    except EncodingError as error:
        raise EncodingError(f"{what} can't be read: {error}") from None
    except pydantic.ValidationError as error:
        raise EncodingError(f"{what} can't be read as {_name(type_)}: {_problems(error)}") from None
    except (ValueError, TypeError, RecursionError, pydantic.PydanticUserError) as error:
        raise EncodingError(f"{what} can't be read as {_name(type_)}: {error}") from None


def from_bytes(data: bytes, type_: Any, what: str) -> Any:
    """Give bytes as what the type makes of them: bytes, bytearray, or whatever takes bytes. Raises EncodingError."""
    if _is_untyped(type_) or type_ in (bytes, memoryview):
        return data
    if type_ is bytearray:
        return bytearray(data)
    try:
        return _adapter(type_).validate_python(data)
    except EncodingError as error:
        raise EncodingError(f"{what} can't be read: {error}") from None
    except (ValueError, TypeError, pydantic.PydanticUserError):
        raise EncodingError(f"{what} can't be read as {_name(type_)}: it is {len(data)} raw bytes") from None


def _is_untyped(type_: Any) -> bool:
    return type_ is None or type_ is Any or type_ is object or type_ is dict or type_ is list


def _dumped(value: Any, type_: Any) -> bytes:
    if _is_untyped(type_):
        return pydantic_core.to_json(value, bytes_mode="base64", inf_nan_mode="constants")
    adapter = _adapter(type_)
    try:
        return adapter.dump_json(value, warnings="error")
    except pydantic_core.PydanticSerializationError as error:
        data = _dumped_as_it_is(value, adapter, error)
    if _is_made_of_bytes(adapter) and not _comes_back(value, type_, data):
        raise EncodingError(f"it is no {_name(type_)}: its texts would be taken for base64")
    return data


def _dumped_as_it_is(value: Any, adapter: pydantic.TypeAdapter[Any], error: Exception) -> bytes:
    """Encode a value that is not of its type."""
    try:
        return adapter.dump_json(value, warnings=False)
    except _DUMP_ERRORS:
        try:
            return pydantic_core.to_json(value, bytes_mode="base64", inf_nan_mode="constants")
        except _DUMP_ERRORS:
            raise error from None


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


def _is_made_of_bytes(adapter: pydantic.TypeAdapter[Any]) -> bool:
    """Whether the type is bytes, or lists and dicts of bytes, but nothing with fields."""
    schema = repr(adapter.core_schema)
    return "'type': 'bytes'" in schema and "-field'" not in schema


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
