"""The one place where JSON from outside is checked, before it is stored as it came."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

DEEPEST = 200
LONGEST_INTEGER = 4300
"""Digits; CPython refuses to convert more (sys.set_int_max_str_digits)."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """A text is not JSON that can be stored and read again; the message says where and why."""


def check_json(data: bytes) -> Any:
    """Decode JSON; raises JsonError for what is malformed, too deep, or has no counterpart in every language."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise JsonError(f"invalid UTF-8 at byte {error.start}: JSON is UTF-8 text") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_read_integer)
    except json.JSONDecodeError as error:
        raise JsonError(f"invalid JSON at offset {error.pos}: {error.msg}") from None
    except RecursionError:
        raise JsonError(f"JSON nested deeper than {DEEPEST} levels") from None
    _check_depth(text)
    if _SURROGATE.search(text):
        _check_surrogates(value)
    return value


def _refuse_constant(word: str) -> NoReturn:
    raise JsonError(f"invalid JSON: {word} is no JSON value")


def _read_integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise JsonError(f"an integer of {len(digits)} digits, over the limit of {LONGEST_INTEGER}: send it as a string")
    return int(digits)


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for mark in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        character = mark.group()
        if character in "[{":
            depth += 1
            if depth > DEEPEST:
                raise JsonError(f"JSON nested deeper than {DEEPEST} levels at offset {mark.start()}")
        elif character in "]}":
            depth -= 1


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise JsonError(
            f"a lone surrogate (\\u{ord(error.object[error.start]):04x}): it is no Unicode character"
        ) from None
