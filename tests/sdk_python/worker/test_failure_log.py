"""Lines about failures: one for each, but not for each of ten thousand."""

from __future__ import annotations

import asyncio
import logging

import pytest

from stepwire.attempt import AttemptContext
from stepwire.errors import Failure
from stepwire.failures import failure_of
from stepwire.replay.model import RunInfo
from stepwire.worker import failure_log
from stepwire.worker.failure_log import MOST_ALIKE, FailureLog
from tests.end_to_end.processes import until

BROKEN = Failure("ValueError", "no such customer")
RUN = RunInfo("run-1", 1, [], 0.0, "shop", "checkout")


def attempt(step: str, number: int = 1) -> AttemptContext:
    return AttemptContext("run-1", step, 0, number, "shop", "checkout")


async def test_a_fan_out_that_fails_ten_thousand_times_leaves_a_readable_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_log, "WINDOW_SECONDS", 0.2)
    log = FailureLog(asyncio.get_running_loop())
    for number in range(10_000):
        log.attempt_failed(number, attempt(f"page-{number}"), BROKEN)
    log.attempt_failed(10_000, attempt("other"), BROKEN)
    first = [record.getMessage() for record in caplog.records]
    assert len(first) == MOST_ALIKE + 1
    assert first[-1] == "attempt 1 of step 'other' failed: ValueError: no such customer"
    await until(lambda: len(caplog.records) > len(first), "the summary comes")
    (summary,) = [record.getMessage() for record in caplog.records[len(first) :]]
    assert summary.startswith("… and 9,950 more like it within 0.2 s: step 'page-*' of shop/checkout: ValueError")
    log.attempt_failed(10_001, attempt("page-10001"), BROKEN)
    assert caplog.records[-1].getMessage().startswith("attempt 1 of step 'page-10001' failed")


async def test_ids_that_hold_data_do_not_get_around_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(asyncio.get_running_loop())
    for number in range(1_000):
        name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        log.attempt_failed(number, attempt(name), BROKEN)
    assert len(caplog.records) <= failure_log.MOST_KINDS + MOST_ALIKE
    log.close()
    assert "more like it" in caplog.records[-1].getMessage()


async def test_the_executors_word_makes_an_error_of_a_step_that_failed_for_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = FailureLog(asyncio.get_running_loop())
    log.attempt_failed(7, attempt("look-up", 3), BROKEN)
    log.attempt_failed(8, attempt("goes-on"), BROKEN)
    log.confirmed([7, 8], [7])
    log.confirmed([7, 8], [7, 8])
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "step 'look-up' has failed for good after 3 attempts: ValueError: no such customer"
    assert error.__dict__["run_id"] == "run-1"


async def test_a_traceback_begins_with_the_users_code(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(asyncio.get_running_loop())
    try:
        failure_of(None)  # type: ignore[arg-type]
    except Exception as error:
        log.attempt_failed(1, attempt("x"), BROKEN, error)
    (record,) = caplog.records
    assert record.exc_info is not None
    trace = record.exc_info[2]
    assert trace is not None
    assert trace.tb_frame.f_code.co_filename == __file__


@pytest.mark.parametrize(
    ("failure", "number", "level"),
    [
        (BROKEN, 1, logging.WARNING),
        (BROKEN, 5, logging.ERROR),
        (Failure("NonRetriableError", "no", retryable=False), 1, logging.ERROR),
    ],
)
async def test_a_body_that_is_tried_again_is_a_warning_and_a_run_that_fails_an_error(
    caplog: pytest.LogCaptureFixture, failure: Failure, number: int, level: int
) -> None:
    log = FailureLog(asyncio.get_running_loop())
    log.body_failed(RunInfo("run-1", number, [], 0.0, "shop", "checkout"), None, failure)
    (record,) = caplog.records
    assert record.levelno == level
    assert (record.__dict__["app"], record.__dict__["function"], record.__dict__["run_id"]) == (
        "shop",
        "checkout",
        "run-1",
    )


async def test_what_is_no_longer_in_hand_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(asyncio.get_running_loop())
    log.attempt_failed(1, attempt("x"), BROKEN)
    log.forget(lambda fence: False)
    log.confirmed([1], [1])
    assert not [record for record in caplog.records if record.levelno == logging.ERROR]
