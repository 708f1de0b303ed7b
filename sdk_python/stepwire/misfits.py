"""What of a value JSON can't keep, and where it stands in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pydantic
import pydantic_core

from stepwire.errors import EncodingError

DEEPEST = 200
"""Levels of lists and dicts that can be read again."""
LONGEST_INTEGER_BITS = 14_000
"""Integers of some 4,200 digits can be read again."""
SCALARS = frozenset({str, int, float, bool, type(None)})
ODD_KEYS, OBJECTS = 1, 2
_TEXTS = frozenset({str})
_LISTS = (list, tuple, set, frozenset)


def inspected(value: Any, depth: int = 0) -> int:
    """Look through lists and dicts: gives ODD_KEYS if keys are no texts, OBJECTS if there is more than plain values.

    Raises EncodingError for what is nested too deeply, contains itself, or can be read only once.
    """
    kind = type(value)
    flags = 0
    if kind is dict:
        if not set(map(type, value)) <= _TEXTS:
            flags = OBJECTS if all(isinstance(key, str) for key in value) else ODD_KEYS
        parts = value.values()
    elif kind in _LISTS:
        parts = value
    elif kind in SCALARS:
        return 0
    elif hasattr(kind, "__next__"):
        raise EncodingError(f"{kind.__name__} objects can be read only once: return a list of it")
    else:
        return OBJECTS
    if depth == DEEPEST:
        raise EncodingError(f"it is nested more than {DEEPEST} deep, or contains itself")
    if not set(map(type, parts)) <= SCALARS:
        for part in parts:
            if type(part) not in SCALARS:
                flags |= inspected(part, depth + 1)
    return flags


def has_hidden_infinity(value: Any) -> bool:
    """Whether NaN or an infinity stands anywhere, also where pydantic would write null for it."""
    return _has_infinity(pydantic_core.to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="constants"))


def _has_infinity(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    return isinstance(value, list) and any(map(_has_infinity, value))


def misfit(value: Any, error: Exception | None) -> str:
    """Say what can't be encoded, and where: "at .items[3]: it is nan". `error` is what the encoder said, if it did."""
    path, part = "", value
    while len(path) < 1024:
        for name, child in _parts(part):
            if not _fits(child):
                path, part = path + name, child
                break
        else:
            break
    reason = _reason(part, error)
    return f"at {path}: {reason}" if path else reason


def odd_key(place: str, key: Any) -> str:
    """Say that a dict has a key that is no text."""
    at = f"at {place}: " if place else ""
    return f"{at}the key {key!r} is no text and would not come back: use texts, or annotate the type (dict[int, …])"


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield f".{key}" if isinstance(key, str) else f"[{key!r}]", part
    elif isinstance(value, _LISTS):
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif isinstance(value, pydantic.BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        for name, part in getattr(value, "__dict__", {}).items():
            yield f".{name}", part


def _fits(value: Any) -> bool:
    """Whether a value can be encoded without a type."""
    try:
        if inspected(value) & ODD_KEYS:
            return False
        pydantic_core.to_json(value, bytes_mode="base64")
        return not has_hidden_infinity(value) and not _is_huge(value)
    except (EncodingError, ValueError, TypeError, RecursionError, pydantic_core.PydanticSerializationError):
        return False


def _is_huge(value: Any) -> bool:
    return type(value) is int and value.bit_length() > LONGEST_INTEGER_BITS


def _reason(part: Any, error: Exception | None) -> str:
    kind = type(part).__name__
    if isinstance(part, float):
        return f"{part!r} is no number that JSON knows"
    if isinstance(part, str):
        return "the text holds a lone surrogate, which is not valid Unicode"
    if _is_huge(part):
        return "the integer has over 4,200 digits"
    if isinstance(part, dict):
        odd = next((key for key in part if not isinstance(key, str)), None)
        if odd is not None or None in part:
            return odd_key("", odd)
        if any(map(_has_surrogate, part)):
            return "a key holds a lone surrogate, which is not valid Unicode"
    if error is not None and "utf-8" in str(error):
        return (
            f"{kind} holds bytes that are no UTF-8 text: give the model "
            'model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")'
        )
    if isinstance(part, pydantic.BaseModel) or dataclasses.is_dataclass(part) or error is None:
        return f"{kind}: {error or 'it would not come back as it is'}"
    return f"{kind} is neither plain data nor a type that pydantic knows: return plain data, a dataclass or a model"
