"""The one place where JSON from outside is checked, before it is stored as it came."""

from __future__ import annotations

import json
import re
import sys
from itertools import accumulate
from typing import Any, NoReturn

DEEPEST = 200
"""Levels. Python's recursion limit is 1,000: what is let through can be read again wherever the loop stands."""
CHUNK_BYTES = 1 << 16
"""How much is looked through at a time for the place where it is too deep."""
LONGEST_INTEGER = min(4300, sys.get_int_max_str_digits() or 4300)
"""Digits; CPython refuses to convert more (sys.set_int_max_str_digits, PYTHONINTMAXSTRDIGITS)."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
"""Surrogates stand in escapes only: as characters they can't be decoded from UTF-8."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
"""One without an end, too: else each quote in it would be tried as the beginning of another."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}
"""What each bracket adds to the depth."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[A-Za-z0-9.+]+')


class JsonError(ValueError):
    """A text is not JSON that can be stored and read again; the message says where and why."""


def check_json(data: bytes) -> Any:
    """Decode JSON; raises JsonError for what is malformed, too deep, or has no counterpart in every language."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise JsonError(f"invalid UTF-8 at byte {error.start}: JSON is UTF-8 text") from None
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"invalid JSON at offset {error.pos}: {error.msg}") from None
    except RecursionError:
        _check_depth(data)
        raise JsonError(f"JSON nested deeper than {DEEPEST} levels") from None
    except _Unreadable as error:
        raise JsonError(f"{error.what} at offset {_place(text, error.word)}: {error.advice}") from None
    _check_depth(data)
    if _SURROGATE.search(text):
        _check_surrogates(text)
    return value


class _Unreadable(Exception):  # noqa: N818 - it becomes one as soon as its place is known
    """A word that the decoder hands over without saying where it stands."""

    def __init__(self, word: str, what: str, advice: str) -> None:
        super().__init__(what)
        self.word = word
        self.what = what
        self.advice = advice


def _refuse_constant(word: str) -> NoReturn:
    raise _Unreadable(word, f"invalid JSON: {word}", "JSON has no such value")


def _read_integer(digits: str) -> int:
    length = len(digits.lstrip("-"))
    if length > LONGEST_INTEGER:
        what = f"an integer of {length} digits, over the limit of {LONGEST_INTEGER},"
        raise _Unreadable(digits, what, "send it as a string")
    return int(digits)


_PLAIN = json.JSONDecoder(parse_constant=_refuse_constant)
_EXACT = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_read_integer)
"""Asks about each integer, which takes its time: CPython itself refuses those that are too long, if it is not told not
to."""
_REFUSES = 0 < sys.get_int_max_str_digits() <= LONGEST_INTEGER


def _decode(text: str) -> Any:
    if _REFUSES:
        try:
            return _PLAIN.decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # of an integer
            pass
    return _EXACT.decode(text)


def _place(text: str, word: str) -> int:
    """Give the offset of the first occurrence of a word outside of strings."""
    for token in _TOKEN.finditer(text):
        if token.group() == word:
            return token.start()
    return text.find(word)


def _check_depth(data: bytes) -> None:
    """Raise JsonError if JSON is nested too deep."""
    if data.count(b"[") + data.count(b"{") <= DEEPEST:
        return
    bare = _STRING.sub(_blank, data) if b'"' in data else data
    depth = 0
    for at in range(0, len(bare), CHUNK_BYTES):
        chunk = bare[at : at + CHUNK_BYTES]
        depths = list(accumulate(map(_STEPS.__getitem__, chunk.translate(None, _NO_BRACKETS)), initial=depth))
        if max(depths) > DEEPEST:
            for offset, byte in enumerate(chunk, at):
                depth += _STEPS.get(byte, 0)
                if depth > DEEPEST:
                    place = len(data[:offset].decode())
                    raise JsonError(f"JSON nested deeper than {DEEPEST} levels at offset {place}")
        depth = depths[-1]


def _blank(string: re.Match[bytes]) -> bytes:
    return b" " * len(string.group())


def _check_surrogates(text: str) -> None:
    for escape in _ESCAPE.finditer(text):
        if escape.group("lone"):
            raise JsonError(
                f"a lone surrogate ({escape.group().lower()}) at offset {escape.start()}: it is no Unicode character"
            )
