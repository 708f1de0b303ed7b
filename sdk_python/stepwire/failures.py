"""Exceptions as data: what a `Failure` says of them. Limits its size, and never fails itself."""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from stepwire.durations import LONGEST_SECONDS
from stepwire.errors import NEVER_RETRIED, Failure, RetryAfterError, StepError

MOST_CAUSES = 16
LONGEST_TEXT_BYTES = 64 * 1024
MOST_FRAMES = 256
_OWN_FOLDER = str(Path(__file__).parent) + os.sep
# What exceptions and their classes are, from where neither a property nor a metaclass can hide it.
_TYPE_NAME = type.__dict__["__name__"].__get__
_QUALIFIED_NAME = type.__dict__["__qualname__"].__get__
_CAUSE, _CONTEXT, _SUPPRESSED, _TRACEBACK = (
    vars(BaseException)[name].__get__ for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__")
)


def failure_of(error: BaseException) -> Failure:
    """Describe an exception with its traceback and its causes, at most 16 deep; texts have at most 64 KiB each.

    NonRetriableError and its like are not retryable; a RetryAfterError has its delay. Never raises: what an exception
    does not want to tell is replaced by a word about that.
    """
    return _failure(error, MOST_CAUSES, {id(error)})


def type_name(error: BaseException, *, qualified: bool = False) -> str:
    """Give the name of an exception's class, whatever its metaclass says."""
    kind = type(error)
    name: str = _TYPE_NAME(kind)
    if qualified and isinstance(module := type.__dict__["__dict__"].__get__(kind).get("__module__"), str):
        name = _QUALIFIED_NAME(kind)
        name = name if module in ("builtins", "__main__") else f"{module}.{name}"
    return _shortened(name)


def text_of(error: BaseException) -> str:
    """Give what `str` gives, or why it gives nothing."""
    try:
        return "".join([str(error)])  # which is a str, and no subclass of it
    except BaseException as worse:
        return f"(its text can't be had: {type_name(worse)})"


def _failure(error: BaseException, depth: int, seen: set[int]) -> Failure:
    kind = type(error)  # what `isinstance` asks as well is a property that may raise
    cause = _read(lambda: error.failure) if issubclass(kind, StepError) else None  # type: ignore[attr-defined]
    if not isinstance(cause, Failure):
        below = _below(error)
        known = below is None or depth == 0 or id(below) in seen
        cause = None if known or below is None else _failure(below, depth - 1, seen | {id(below)})
    return Failure(
        type=type_name(error),
        message=_shortened(text_of(error)),
        stack=_shortened(_stack(error), keep_end=True),
        retryable=not issubclass(kind, NEVER_RETRIED),
        retry_after=_read(lambda: _retry_after(error)) if issubclass(kind, RetryAfterError) else None,
        cause=cause,
    )


def _below(error: BaseException) -> BaseException | None:
    """Give what an exception came from, as tracebacks show it."""
    cause: BaseException | None = _CAUSE(error)
    context: BaseException | None = None if _SUPPRESSED(error) else _CONTEXT(error)
    return context if cause is None else cause


def _retry_after(error: Any) -> float | None:
    delay = float(error.delay_seconds)
    return None if math.isnan(delay) else min(delay, LONGEST_SECONDS)


def _read(read: Callable[[], Any]) -> Any:
    """Give what can be read; None if that raises."""
    try:
        return read()
    except BaseException:
        return None


def _stack(error: BaseException) -> str:
    """Write a traceback as Python does, without this package's frames on top and without causes: those are apart."""
    try:
        return _members_too(error) if issubclass(type(error), BaseExceptionGroup) else _lines(error)
    except BaseException as worse:
        return f"(the traceback can't be had: {type_name(worse)})"


def _members_too(error: BaseException) -> str:
    """Write the traceback of a group, to which its members belong."""
    whole = traceback.TracebackException.from_exception(error, limit=-MOST_FRAMES)
    while whole.stack and whole.stack[0].filename.startswith(_OWN_FOLDER):
        del whole.stack[0]
    return "".join(whole.format(chain=False))


def _lines(error: BaseException) -> str:
    frames = traceback.extract_tb(_TRACEBACK(error), limit=-MOST_FRAMES)
    while frames and frames[0].filename.startswith(_OWN_FOLDER):
        del frames[0]
    name, text = type_name(error, qualified=True), text_of(error)
    lines = ["Traceback (most recent call last):\n", *frames.format(), f"{name}: {text}\n" if text else f"{name}\n"]
    notes = _read(lambda: error.__notes__)
    lines += [f"{note}\n" for note in notes if type(note) is str] if isinstance(notes, list) else []
    return "".join(lines)


def users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Leave out this package's frames on top of a traceback; all stay if there is nothing else."""
    below = trace
    while below is not None and below.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        below = below.tb_next
    return below or trace


def coroutine_stack(coroutine: Any) -> str:
    """Give the user's lines at which a coroutine stands, outermost first, as a traceback would have them."""
    lines: list[str] = []
    while coroutine is not None and len(lines) < MOST_FRAMES:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(_OWN_FOLDER):
            code = frame.f_code
            summary = traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_qualname)
            lines += traceback.format_list([summary])
        coroutine = getattr(coroutine, "cr_await", None)
    return "".join(lines).rstrip()


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
