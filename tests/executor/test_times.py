"""Times of the contract as seconds, both ways: what is taken can be used, and what is written is valid."""

from __future__ import annotations

import math
from datetime import datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from stepwire_executor import times
from stepwire_executor.form import FormError

int64 = st.integers(-(2**63), 2**63 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
near = st.integers(times.EARLIEST - 2, times.EARLIEST + 2) | st.integers(times.LATEST - 2, times.LATEST + 2)
FLOATS = [0.0, -1.0, 1e300, -1e300, math.inf, -math.inf, times.LATEST + 0.999_999_9, times.LATEST + 1.0]


@given(int64 | near, int32 | st.integers(999_999_000, 1_000_000_001))
@example(253_402_300_799, 999_999_999)
@example(253_402_300_799, 999_984_741)
def test_a_timestamp_that_is_taken_is_in_a_year_of_every_calendar(seconds: int, nanos: int) -> None:
    try:
        value = times.unix_time(Timestamp(seconds=seconds, nanos=nanos), "events[0].time")
    except FormError:
        return
    assert 1 <= datetime.fromisoformat(times.iso(value)).year <= 9999
    valid(times.timestamp(value))


def test_a_timestamp_that_is_not_taken_is_named_with_what_would_be() -> None:
    with pytest.raises(FormError, match=r"events\[0\]\.time: .*from the year 1 up to 9999-12-31T23:59:59\.999"):
        times.unix_time(Timestamp(seconds=times.LATEST, nanos=999_999_999), "events[0].time")
    with pytest.raises(FormError, match=r"loop_lag: .*at most 315,576,000,000 s"):
        times.seconds(Duration(seconds=2**63 - 1), "loop_lag")


@given(st.floats(allow_nan=False))
@pytest.mark.parametrize("fixed", [None, *FLOATS])
def test_what_is_written_is_valid_whatever_was_stored(fixed: float | None, any_float: float) -> None:
    value = any_float if fixed is None else fixed
    times.iso(value)
    valid(times.timestamp(value))
    duration = times.duration(value)
    assert 0 <= duration.seconds <= times.LONGEST
    assert 0 <= duration.nanos < 1_000_000_000


def valid(stamp: Timestamp) -> None:
    """Have Protobuf and Python take it, also as a float."""
    stamp.ToJsonString()
    assert stamp.ToDatetime().year <= 9999
    assert stamp.seconds + stamp.nanos / 1e9 < times.LATEST + 1


@given(int64, int32)
def test_a_duration_that_is_taken_is_one_that_can_be_written(seconds: int, nanos: int) -> None:
    message = Duration(seconds=seconds, nanos=nanos)
    assert 0 <= times.bounded(message, 10.0) <= 10.0
    try:
        value = times.seconds(message, "loop_lag")
    except FormError:
        return
    times.duration(value).ToJsonString()


def test_times_come_back_as_they_were() -> None:
    for value in (0.0, 1.5, 1_700_000_000.123_456, -1.25, float(times.EARLIEST), float(times.LATEST)):
        stamp = times.timestamp(value)
        assert times.unix_time(stamp, "time") == pytest.approx(value, abs=1e-6)
    for value in (0.0, 0.001, 86_400.5, float(times.LONGEST)):
        assert times.seconds(times.duration(value), "timeout") == value
