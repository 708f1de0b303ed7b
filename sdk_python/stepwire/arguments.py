"""Checks of what users give to apps, workers and clients. Every function raises an error that says what to give."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from stepwire.durations import seconds
from stepwire.errors import StepwireError

CENTURY_SECONDS = 100 * 366 * 86400.0


def text(value: Any, what: str, error: type[Exception] = StepwireError, *, may_be_empty: bool = False) -> str:
    """Give a text back, if it is one that can be sent."""
    if not isinstance(value, str) or not (value or may_be_empty):
        allowed = "must be a text" if may_be_empty else "must be a text that is not empty"
        raise error(f"{what} is {value!r}, but {allowed}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise error(f"{what} is {value!r}, which is not valid Unicode: it holds a lone surrogate") from None
    return value


def patience(value: float | timedelta | None, what: str) -> float | None:
    """Give the time that a call may take, in seconds; None if there is no end, or one in a hundred years."""
    given = None if value is None else seconds(value, what, StepwireError, longest=math.inf)
    return None if given is None or given > CENTURY_SECONDS else given


def moment(value: Any, what: str) -> datetime:
    """Give a time back, if it is one."""
    if not isinstance(value, datetime):
        raise StepwireError(f"{what} is {value!r}, but must be a datetime")
    return value


def check_codec(codec: Any, error: type[Exception] = StepwireError) -> None:
    """Refuse what can't be a codec, before the first value shows it."""
    for method in ("encode", "decode"):
        if codec is not None and not callable(getattr(codec, method, None)):
            raise error(f"{codec!r} is no codec: it has no method {method!r}")


def check_kind(value: Any, kind: type, what: str) -> None:
    """Refuse what is neither None nor of a class."""
    if value is not None and not isinstance(value, kind):
        raise StepwireError(f"{what} is {value!r}, but must be a stepwire.{kind.__name__}")
