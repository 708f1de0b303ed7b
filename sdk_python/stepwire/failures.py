"""Exceptions as data: what a `Failure` says of them. Limits its size, and never fails itself."""

from __future__ import annotations

import math
import os
import traceback
from pathlib import Path

from stepwire.durations import LONGEST_SECONDS
from stepwire.errors import NEVER_RETRIED, Failure, RetryAfterError, StepError

MOST_CAUSES = 16
LONGEST_TEXT_BYTES = 64 * 1024
MOST_FRAMES = 256
_OWN_FOLDER = str(Path(__file__).parent) + os.sep


def failure_of(error: BaseException) -> Failure:
    """Describe an exception with its traceback and its causes, at most 16 deep; texts have at most 64 KiB each.

    NonRetriableError and its like are not retryable; a RetryAfterError has its delay.
    """
    return _failure(error, MOST_CAUSES, {id(error)})


def _failure(error: BaseException, depth: int, seen: set[int]) -> Failure:
    cause: Failure | None = error.failure if isinstance(error, StepError) else None
    below = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is None and below is not None and depth > 0 and id(below) not in seen:
        cause = _failure(below, depth - 1, seen | {id(below)})
    return Failure(
        type=type(error).__name__,
        message=_shortened(_text(error)),
        stack=_shortened(_stack(error), keep_end=True),
        retryable=not isinstance(error, NEVER_RETRIED),
        retry_after=_retry_after(error),
        cause=cause,
    )


def _retry_after(error: BaseException) -> float | None:
    if not isinstance(error, RetryAfterError) or math.isnan(error.delay_seconds):
        return None
    return min(error.delay_seconds, LONGEST_SECONDS)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as worse:
        return f"(its text can't be had: {type(worse).__name__})"


def _stack(error: BaseException) -> str:
    """Write a traceback as Python does, without this package's frames on top and without causes: those are apart."""
    if isinstance(error, BaseExceptionGroup):  # its members belong to it
        try:
            whole = traceback.TracebackException.from_exception(error, limit=-MOST_FRAMES)
            while whole.stack and whole.stack[0].filename.startswith(_OWN_FOLDER):
                del whole.stack[0]
            return "".join(whole.format(chain=False))
        except Exception as worse:
            return f"(the traceback can't be had: {type(worse).__name__})"
    frames = traceback.extract_tb(error.__traceback__, limit=-MOST_FRAMES)
    while frames and frames[0].filename.startswith(_OWN_FOLDER):
        del frames[0]
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    text = _text(error)
    lines = ["Traceback (most recent call last):\n", *frames.format(), f"{name}: {text}\n" if text else f"{name}\n"]
    notes = getattr(error, "__notes__", ())
    lines += [f"{note}\n" for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    return "".join(lines)


def _shortened(text: str, *, keep_end: bool = False) -> str:
    """Cut a text to what may be stored; whatever is not valid Unicode is escaped."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= LONGEST_TEXT_BYTES:
        return data.decode()
    sign = b"[\xe2\x80\xa6]"
    room = LONGEST_TEXT_BYTES - len(sign)
    if keep_end:
        return (sign + data[-room:]).decode(errors="ignore")
    return (data[:room] + sign).decode(errors="ignore")
