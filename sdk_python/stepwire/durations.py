"""Durations as users write them: seconds, or a timedelta."""

from __future__ import annotations

import math
from datetime import timedelta

LONGEST_SECONDS = 366 * 86400.0
"""The executor's default limit for sleeps and timeouts (--max-sleep)."""


def as_float(number: float) -> float:
    """Give a number as a float; a whole one that is too large for it is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def seconds(
    duration: float | timedelta,
    what: str,
    error: type[Exception],
    *,
    longest: float = LONGEST_SECONDS,
    may_be_zero: bool = True,
) -> float:
    """Give a duration in seconds; raises `error` if it is none, negative, or longer than `longest` seconds."""
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        value = as_float(duration)
    else:
        raise error(f"{what} is {duration!r}, but must be a number of seconds or a timedelta")
    if math.isnan(value) or value < 0:
        raise error(f"{what} is {duration!r}, but must not be negative")
    if value == 0 and not may_be_zero:
        raise error(f"{what} is {duration!r}, but must be more than 0 s: leave it out for no limit")
    if value > longest:
        raise error(f"{what} is {value:g} s, over the limit of {longest:g} s (--max-sleep)")
    return value
