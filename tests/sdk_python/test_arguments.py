"""Wrong arguments of clients, workers and apps are errors at once, which name the argument and say what to give."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

import stepwire
from stepwire import arguments
from stepwire.errors import RegistrationError, StepwireError

ADDRESS = "127.0.0.1:1"
CLIENT = stepwire.SyncClient(ADDRESS)
APP = stepwire.App("shop")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CLIENT.send(5), "an event's name is 5, but must be a text"),
        (lambda: CLIENT.send("a\ud800"), "an event's name is 'a\\\\ud800', which is not valid Unicode"),
        (lambda: CLIENT.send("paid", id=5), "the id of event 'paid' is 5, but must be a text"),
        (lambda: CLIENT.send("paid", id="\ud800"), "the id of event 'paid' .* is not valid Unicode"),
        (lambda: CLIENT.send("paid", time="now"), "the time of event 'paid' is 'now', but must be a datetime"),
        (lambda: CLIENT.get("\ud800"), "a run's id is .* is not valid Unicode"),
        (lambda: CLIENT.cancel("r", 5), "the reason is 5, but must be a text"),
        (lambda: CLIENT.wait("r", "1"), "the timeout is '1', but must be a number of seconds or a timedelta"),
        (lambda: CLIENT.wait("r", math.nan), "the timeout is nan"),
        (lambda: CLIENT.result("r", -1), "the timeout is -1"),
        (lambda: list(CLIENT.list(app=5)), "the filter app is 5, but must be a text"),
        (lambda: list(CLIENT.list(created_after="x")), "created_after is 'x', but must be a datetime"),
        (lambda: stepwire.SyncClient(ADDRESS, timeout="5"), "the timeout of a client's calls is '5'"),
        (lambda: stepwire.SyncClient(ADDRESS, retry_for=-1), "retry_for is -1"),
        (lambda: stepwire.SyncClient(ADDRESS, codec=5), "5 is no codec: it has no method 'encode'"),
        (lambda: stepwire.SyncClient(ADDRESS, security=5), r"must be a stepwire\.Security"),
        (lambda: stepwire.Worker(5), r"what a worker serves is 5, but must be a stepwire\.App"),
        (lambda: stepwire.Worker(APP, labels=5), "labels is 5"),
        (lambda: stepwire.Worker(APP, labels={"a": "\ud800"}), "a label is .* is not valid Unicode"),
        (lambda: stepwire.Worker(APP, instance_id=5), "a worker's instance_id is 5"),
        (lambda: stepwire.Worker(APP, security=5), r"must be a stepwire\.Security"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_wrong_argument_is_named_before_anything_is_sent(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(StepwireError, match=message):
        call()


def test_an_app_takes_only_codecs() -> None:
    with pytest.raises(RegistrationError, match="it has no method 'encode'"):
        stepwire.App("shop", codec=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("delay", [-1, math.nan, "5", True, None])
def test_a_delay_that_is_none_is_refused(delay: Any) -> None:
    with pytest.raises(ValueError, match="RetryAfterError: the delay is"):
        stepwire.RetryAfterError("busy", delay)


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, None), (2, 2.0), (timedelta(minutes=1), 60.0), (math.inf, None), (1e300, None)]
)
def test_a_call_may_take_seconds_or_a_timedelta_or_for_ever(given: Any, seconds: float | None) -> None:
    assert arguments.patience(given, "the timeout") == seconds


def test_a_time_is_given_back() -> None:
    assert arguments.moment(datetime(2030, 1, 1), "a time") == datetime(2030, 1, 1)
