"""Exceptions as data."""

from __future__ import annotations

import io
import logging
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from stepwire.errors import (
    NEVER_RETRIED,
    Failure,
    NonRetriableError,
    RetryAfterError,
    StepError,
)
from stepwire.failures import failure_of, log_failure
from stepwire.values import Values
from stepwire.worker.logs import JsonFormatter, TextFormatter


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_failure_tells_type_message_and_stack() -> None:
    failure = failure_of(raised(ValueError("no text")))
    assert (failure.type, failure.message, failure.retryable, failure.retry_after) == (
        "ValueError",
        "no text",
        True,
        None,
    )
    assert failure.stack.startswith("Traceback (most recent call last):\n")
    assert "raise error" in failure.stack
    assert failure.stack.endswith("ValueError: no text\n")


@pytest.mark.parametrize("kind", NEVER_RETRIED)
def test_some_errors_are_never_retried(kind: type[Exception]) -> None:
    assert not failure_of(kind("x")).retryable


def test_a_subclass_of_such_an_error_is_not_retried_either() -> None:
    class CardDeclinedError(NonRetriableError):
        pass

    failure = failure_of(CardDeclinedError("no"))
    assert (failure.type, failure.retryable) == ("CardDeclinedError", False)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [(2.5, 2.5), (timedelta(minutes=1), 60.0), (0, 0.0), (math.inf, 366 * 86400.0)],
)
def test_a_retry_after_error_has_its_delay(delay: float | timedelta, seconds: float) -> None:
    failure = failure_of(RetryAfterError("busy", delay))
    assert (failure.retryable, failure.retry_after) == (True, seconds)


def test_causes_follow_like_python_shows_them() -> None:
    def explicit() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    def implicit() -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904

    def suppressed() -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None

    for code, cause in ((explicit, "KeyError"), (implicit, "KeyError"), (suppressed, None)):
        with pytest.raises(ValueError, match="outer") as caught:
            code()
        found = failure_of(caught.value).cause
        assert (found.type if found else None) == cause


def test_the_chain_of_causes_is_cut_at_16() -> None:
    error: BaseException = ValueError("0")
    for number in range(1, 50):
        outer = ValueError(str(number))
        outer.__cause__ = error
        error = outer
    depth = 0
    failure: Failure | None = failure_of(error)
    while (failure := failure.cause if failure else None) is not None:
        depth += 1
    assert depth == 16


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    found = failure_of(one)
    assert found.cause is not None
    assert (found.cause.message, found.cause.cause) == ("two", None)


def test_a_failed_step_is_the_cause_of_what_the_body_raises() -> None:
    inner = Failure("HTTPError", "502")
    failure = failure_of(StepError("charge", 1, inner, 5))
    assert (failure.type, failure.cause) == ("StepError", inner)
    assert failure.message == "step 'charge:1' failed after 5 attempts: HTTPError: 502"


def test_texts_are_cut_at_64_kib() -> None:
    failure = failure_of(raised(ValueError("☃" * 100_000)))
    assert 60_000 < len(failure.message.encode()) <= 64 * 1024
    assert failure.message.startswith("☃☃")
    assert len(failure.stack.encode()) <= 64 * 1024
    assert failure.stack.endswith("☃☃\n")


def test_a_deep_recursion_is_cut() -> None:
    def down(levels: int) -> None:
        if levels:
            down(levels - 1)
        raise ValueError("the bottom")

    with pytest.raises(ValueError, match="the bottom") as caught:
        down(800)
    assert "the bottom" in failure_of(caught.value).stack


def test_lone_surrogates_are_escaped() -> None:
    failure = failure_of(raised(ValueError("\ud800")))
    assert failure.message == "\\ud800"
    failure.stack.encode()


def test_an_exception_without_a_text_is_told_too() -> None:
    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert failure_of(raised(RudeError())).message == "(its text can't be had: RuntimeError)"


def test_the_members_of_a_group_are_in_its_stack() -> None:
    failure = failure_of(raised(ExceptionGroup("two", [ValueError("first"), KeyError("second")])))
    assert failure.type == "ExceptionGroup"
    assert "ValueError: first" in failure.stack
    assert "KeyError: 'second'" in failure.stack


def test_notes_are_in_the_stack() -> None:
    error = ValueError("x")
    error.add_note("while reading page 3")
    assert failure_of(raised(error)).stack.endswith("ValueError: x\nwhile reading page 3\n")


def test_frames_of_this_package_are_left_out_on_top() -> None:
    values = Values()
    with pytest.raises(Exception, match="can't be encoded") as caught:
        values.encode(object())
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # as if the package had been called by nobody
    assert "json_values.py" not in failure_of(error).stack


class Nameless(type):
    """The class of classes whose names raise; that of the exception shows all the same."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise KeyboardInterrupt("no name")

    def __getattribute__(cls, name: str) -> object:
        raise SystemExit(name)


def secretive() -> BaseException:
    """Make an exception that tells nothing; in a function, as pytest looks into everything else."""

    class SecretiveError(Exception, metaclass=Nameless):
        def __str__(self) -> str:
            raise KeyboardInterrupt("no text")

        def __repr__(self) -> str:
            raise SystemExit("no text")

        def __getattribute__(self, name: str) -> object:
            raise GeneratorExit(name)

        def __bool__(self) -> bool:
            raise GeneratorExit("no truth")

    return raised(SecretiveError("x"))


class OddText(str):
    def encode(self, *_: object, **__: object) -> bytes:
        raise RuntimeError("not to be encoded")


class OddError(Exception):
    def __str__(self) -> str:
        return OddText("odd")


class NoTextError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


def test_an_exception_that_tells_nothing_of_itself_has_the_name_of_its_class() -> None:
    failure = failure_of(secretive())
    assert failure.type == "SecretiveError"
    assert failure.message == "(its text can't be had: KeyboardInterrupt)"
    assert "raise error" in failure.stack


def test_an_exception_that_tells_nothing_is_a_cause_and_a_member_like_any_other() -> None:
    failure = failure_of(raised(ExceptionGroup("several", [secretive(), ValueError("y")])))
    assert failure.type == "ExceptionGroup"
    assert failure.message == "several (2 sub-exceptions)"
    try:
        raise ValueError("above") from secretive()
    except ValueError as error:
        cause = failure_of(error).cause
    assert cause is not None
    assert cause.type == "SecretiveError"


@pytest.mark.parametrize(
    ("error", "message"), [(OddError(), "odd"), (NoTextError(), "(its text can't be had: TypeError)")]
)
def test_what_str_gives_is_taken_for_no_more_than_a_text(error: Exception, message: str) -> None:
    assert failure_of(error).message == message


def test_a_delay_that_was_spoilt_is_none() -> None:
    error = RetryAfterError("later", 5)
    error.delay_seconds = "soon"  # type: ignore[assignment]
    assert failure_of(error).retry_after is None


def test_a_group_in_a_group_may_be_deep() -> None:
    error: Exception = ValueError("inmost")
    for _ in range(5_000):
        error = ExceptionGroup("g", [error])
    failure = failure_of(error)
    assert failure.type == "ExceptionGroup"
    assert failure.stack


def from_(error: BaseException, *causes: BaseException) -> BaseException:
    """Chain errors as `raise … from …` does."""
    last = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


def test_a_delay_in_the_chain_of_causes_counts() -> None:
    failure = failure_of(from_(ConnectionError("x"), OSError("y"), RetryAfterError("busy", 7)))
    assert (failure.retryable, failure.retry_after) == (True, 7)


def test_a_cause_that_is_not_to_be_retried_stays_so() -> None:
    failure = failure_of(from_(ConnectionError("x"), NonRetriableError("no")))
    assert (failure.retryable, failure.retry_after) == (False, None)
    step_failed = StepError("a", 0, Failure("NonRetriableError", "no", retryable=False), 1)
    assert not failure_of(from_(ConnectionError("x"), step_failed)).retryable
    had_its_retries = StepError("a", 0, Failure("OSError", "x"), 5)
    assert failure_of(from_(ConnectionError("x"), had_its_retries)).retryable


def test_the_outermost_error_that_says_something_decides() -> None:
    failure = failure_of(from_(RetryAfterError("busy", 7), NonRetriableError("no")))
    assert (failure.retryable, failure.retry_after) == (True, 7)
    failure = failure_of(from_(NonRetriableError("no"), RetryAfterError("busy", 7)))
    assert (failure.retryable, failure.retry_after) == (False, None)


def fail_while_handling(first: Exception) -> None:
    try:
        raise first
    finally:
        raise ConnectionError("cleaning up")


@pytest.mark.parametrize("first", [NonRetriableError("no"), RetryAfterError("busy", 7)])
def test_an_error_while_another_is_handled_is_one_of_its_own(first: Exception) -> None:
    with pytest.raises(ConnectionError) as caught:
        fail_while_handling(first)
    assert caught.value.__context__ is first
    failure = failure_of(caught.value)
    assert (failure.retryable, failure.retry_after) == (True, None)


def test_a_group_says_what_its_members_say() -> None:
    delays = ExceptionGroup("g", [RetryAfterError("a", 3), ValueError("x"), RetryAfterError("b", 9)])
    assert failure_of(delays).retry_after == 9
    mixed = ExceptionGroup("g", [RetryAfterError("a", 3), ExceptionGroup("h", [NonRetriableError("no")])])
    assert (failure_of(mixed).retryable, failure_of(mixed).retry_after) == (False, None)
    wrapped = ExceptionGroup("g", [from_(ValueError("x"), RetryAfterError("a", 3))])
    assert failure_of(wrapped).retry_after == 3
    assert failure_of(from_(ExceptionGroup("g", [ValueError("x")]), RetryAfterError("a", 3))).retry_after == 3


def test_causes_that_go_in_a_circle_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert failure_of(first).retryable


def test_a_delay_may_be_a_time_of_day() -> None:
    zone = timezone(timedelta(hours=5))
    error = RetryAfterError("busy", datetime.now(zone) + timedelta(seconds=100))
    assert 90 < error.delay_seconds <= 100
    assert RetryAfterError("busy", datetime(2001, 1, 1, tzinfo=UTC)).delay_seconds == 0
    with pytest.raises(ValueError, match="no time zone: use an aware datetime"):
        RetryAfterError("busy", datetime(2001, 1, 1))


def test_a_note_of_ours_stands_below_the_traceback() -> None:
    assert failure_of(raised(ValueError("x")), "in a replay").stack.endswith("ValueError: x\nin a replay\n")


def test_a_group_whose_members_go_in_a_circle_ends() -> None:
    inner = ExceptionGroup("inner", [NonRetriableError("no")])
    outer = ExceptionGroup("outer", [inner])
    inner.__cause__ = outer
    assert not failure_of(raised(outer)).retryable


def test_a_group_that_has_one_error_very_often_is_told_without_its_members() -> None:
    error: Exception = NonRetriableError("no")
    for _ in range(30):
        error = ExceptionGroup("vast", [error, error])
    failure = failure_of(raised(error))
    assert (failure.message, failure.retryable) == ("vast (2 sub-exceptions)", False)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter(), logging.Formatter()])
def test_a_line_about_an_exception_that_tells_nothing_is_written(formatter: logging.Formatter) -> None:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(formatter)
    logger = logging.Logger("odd")
    logger.addHandler(handler)
    log_failure(logger, logging.ERROR, "run %s failed", "r-1", error=secretive(), extra={"step": "s"})
    assert "run r-1 failed" in text.getvalue()


def test_a_handler_that_raises_costs_its_line_only() -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit("no handler")

    logger = logging.Logger("odd")
    logger.addHandler(Raising())
    log_failure(logger, logging.ERROR, "run %s failed", "r-1", error=ValueError("x"))


def test_a_vast_text_of_an_exception_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    try:
        try:
            raise KeyError("x" * 1_000_000)
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        log_failure(logging.getLogger("vast"), logging.WARNING, "it failed", error=error)
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.getMessage().endswith("ValueError: outer\n")
    assert len(record.getMessage()) < 100_000
