"""Durations as users write them: seconds, or a timedelta."""

from __future__ import annotations

import math
from datetime import timedelta

LONGEST_SECONDS = 366 * 86400.0
"""The executor's default limit for sleeps and timeouts (--max-sleep)."""


def seconds(
    duration: float | timedelta, what: str, error: type[Exception], *, longest: float = LONGEST_SECONDS
) -> float:
    """Give a duration in seconds; raises `error` if it is none, negative, or longer than `longest` seconds."""
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        value = float(duration)
    else:
        raise error(f"{what} is {duration!r}, but must be a number of seconds or a timedelta")
    if math.isnan(value) or value < 0:
        raise error(f"{what} is {duration!r}, but must not be negative")
    if value > longest:
        raise error(f"{what} is {value:g} s, over the limit of {longest:g} s (--max-sleep)")
    return value
