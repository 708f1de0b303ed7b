"""Between seconds and the contract's Timestamps and Durations, both ways: the one place where times are checked.

A time is good if it is good as it is used: after its conversion to a float. What is written is always valid, whatever
an older version has stored.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from stepwire_executor.form import FormError

EARLIEST, LATEST = -62_135_596_800, 253_402_300_799
"""Unix seconds of the years 1 to 9999, https://protobuf.dev/reference/protobuf/google.protobuf/#timestamp."""
_END = LATEST + 1
GOOD_TIMES = "from the year 1 up to 9999-12-31T23:59:59.999, nanos below 1e9"
LONGEST = 315_576_000_000
"""Seconds of 10,000 years, https://protobuf.dev/reference/protobuf/google.protobuf/#duration."""
_NANOS = 1_000_000_000
LAST_NANOS = 999_000_000
"""Of the last second: with more of them its float is in the year 10000."""


def seconds(message: Duration, field: str, most: float = LONGEST) -> float:
    """Read a duration; raises FormError if it is invalid, negative, or longer than `most` seconds."""
    if abs(message.nanos) >= _NANOS or message.seconds * message.nanos < 0:
        raise FormError(field, "not a valid google.protobuf.Duration: nanos are out of range")
    value = message.seconds + message.nanos / _NANOS
    if value < 0:
        raise FormError(field, f"{value:g} s, but it must not be negative")
    if value > LONGEST:
        raise FormError(field, f"{value:g} s, but a google.protobuf.Duration has at most {LONGEST:,} s")
    if value > most:
        raise FormError(field, f"{value:g} s, over the limit of {most:g} s (--max-sleep)")
    return value


def bounded(message: Duration, most: float = LONGEST) -> float:
    """Read a duration of which nothing depends: one that is not valid is cut to what is."""
    return min(max(0.0, message.seconds + message.nanos / _NANOS), most)


def unix_time(message: Timestamp, field: str) -> float:
    """Read a timestamp; raises FormError if it is invalid, or so late that it is in no year once it is a float."""
    value = message.seconds + message.nanos / _NANOS
    if not 0 <= message.nanos < _NANOS or not EARLIEST <= value < _END:
        raise FormError(field, f"not a valid google.protobuf.Timestamp: {GOOD_TIMES}")
    return value


def duration(value: float) -> Duration:
    """Write seconds, 0 or more, as a Duration."""
    value = min(max(0.0, value), LONGEST)
    whole = floor(value)
    return Duration(seconds=whole, nanos=min(round((value - whole) * _NANOS), _NANOS - 1))


def timestamp(value: float) -> Timestamp:
    """Write Unix seconds as a Timestamp."""
    made = Timestamp()
    put(made, value)
    return made


def put(message: Timestamp, value: float) -> None:
    """Write Unix seconds into a Timestamp, of a message for instance: it need not be copied there."""
    if EARLIEST <= value < _END:
        whole = message.seconds = floor(value)
        nanos = round((value - whole) * _NANOS)
        message.nanos = nanos if nanos < _NANOS else _NANOS - 1
    elif value > 0:
        message.seconds, message.nanos = LATEST, LAST_NANOS
    else:
        message.seconds, message.nanos = EARLIEST, 0


def iso(value: float) -> str:
    """Write Unix seconds in ISO 8601, in UTC."""
    return datetime.fromtimestamp(min(max(EARLIEST, value), LATEST + LAST_NANOS / _NANOS), UTC).isoformat()
