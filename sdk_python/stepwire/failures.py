"""Exceptions as data: what a `Failure` says of them. Limits its size, and never fails itself."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from stepwire.durations import LONGEST_SECONDS
from stepwire.errors import NEVER_RETRIED, Failure, RetryAfterError, StepError

MOST_CAUSES = 16
LONGEST_TEXT_BYTES = 64 * 1024
MOST_FRAMES = 256
MOST_MEMBERS = 1_000
_OWN_FOLDER = str(Path(__file__).parent) + os.sep
_LIBRARY = os.path.dirname(os.__file__) + os.sep
# What exceptions and their classes are, from where neither a property nor a metaclass can hide it.
_TYPE_NAME = type.__dict__["__name__"].__get__
_QUALIFIED_NAME = type.__dict__["__qualname__"].__get__
_MEMBERS = vars(BaseExceptionGroup)["exceptions"].__get__
_CAUSE, _CONTEXT, _SUPPRESSED, _TRACEBACK = (
    vars(BaseException)[name].__get__ for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__")
)


REPLAY = "Raised in a replay"
"""How the note of a body begins that says where in its journal it was."""


class _Never:
    """The word of an exception after which no retry makes sense."""


NEVER = _Never()


def failure_of(error: BaseException, note: str = "") -> Failure:
    """Describe an exception with its traceback and its causes, at most 16 deep; texts have at most 64 KiB each.

    A `note` of ours stands below the traceback. The exception itself says whether and when a retry
    makes sense, or the first one in its chain of explicit causes (`raise … from …`) that does:
    NonRetriableError and its like, the StepError of a step that failed with one, or a
    RetryAfterError. In an exception group one member that is not to be retried is enough; of
    several delays the longest counts. Never raises: what an exception does not want to tell is
    replaced by a word about that.
    """
    return _failure(error, MOST_CAUSES, {id(error)}, note)


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


def _failure(error: BaseException, depth: int, seen: set[int], note: str = "") -> Failure:
    kind = type(error)  # what `isinstance` asks as well is a property that may raise
    cause = _read(lambda: error.failure) if issubclass(kind, StepError) else None  # type: ignore[attr-defined]
    if not isinstance(cause, Failure):
        below = _below(error)
        known = below is None or depth == 0 or id(below) in seen
        cause = None if known or below is None else _failure(below, depth - 1, seen | {id(below)})
    word = _word(error, MOST_CAUSES)
    return Failure(
        type=type_name(error),
        message=_shortened(text_of(error)),
        stack=_shortened(_stack(error) + (f"{note}\n" if note else ""), keep_end=True),
        retryable=word is not NEVER,
        retry_after=word if isinstance(word, float) else None,
        cause=cause,
    )


def _word(error: BaseException, depth: int) -> float | _Never | None:
    """Give what an exception says of a retry: after so many seconds, never, or nothing."""
    kind = type(error)
    if issubclass(kind, NEVER_RETRIED):
        return NEVER
    if issubclass(kind, StepError):
        failure = _read(lambda: error.failure)  # type: ignore[attr-defined]
        if isinstance(failure, Failure) and not failure.retryable:
            return NEVER
    if issubclass(kind, RetryAfterError):
        delay: float | None = _read(lambda: _retry_after(error))
        if delay is not None:
            return delay
    if depth == 0:
        return None
    if issubclass(kind, BaseExceptionGroup):
        words = [_word(each, depth - 1) for each in _members(error)]
        if NEVER in words:
            return NEVER
        delays = [word for word in words if isinstance(word, float)]
        if delays:
            return max(delays)
    cause: BaseException | None = _CAUSE(error)
    return None if cause is None else _word(cause, depth - 1)


def _members(group: BaseException) -> list[BaseException]:
    """Give the errors in a group of any depth, and the causes of the groups in it."""
    found: list[BaseException] = []
    seen: set[int] = {id(group)}  # they may go in a circle, and one may be in many groups
    left: list[BaseException] = list(_MEMBERS(group))
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if issubclass(type(each), BaseExceptionGroup):
            left += _MEMBERS(each)
            left += [cause for cause in (_CAUSE(each),) if cause is not None]
        else:
            found.append(each)
    return found


def is_vast(error: BaseException) -> bool:
    """Whether a group has too many members to write a traceback: one that is in many groups counts as often."""
    count = 0
    left = [error]
    while left and count <= MOST_MEMBERS:
        each = left.pop()
        count += 1
        if issubclass(type(each), BaseExceptionGroup):
            left += _MEMBERS(each)
    return count > MOST_MEMBERS


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
        grouped = issubclass(type(error), BaseExceptionGroup) and not is_vast(error)
        return _members_too(error) if grouped else _lines(error)
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


def log_failure(
    logger: logging.Logger,
    level: int,
    text: str,
    *args: object,
    error: BaseException | None = None,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log a line, and an exception's traceback from the user's first frame on.

    Never raises: where a handler can't write the exception, its traceback is written as a `Failure` has it.
    """
    try:
        if error is None or not (is_vast(error) or _is_long(error)):
            exc_info = None if error is None else (type(error), error, users_frames(_TRACEBACK(error)))
            logger.log(level, text, *args, exc_info=exc_info, extra=extra)
            return
    except BaseException:
        pass
    with contextlib.suppress(BaseException):
        stack = "" if error is None else f"\n{_shortened(_stack(error), keep_end=True)}"
        logger.log(level, f"{text}%s", *args, stack, extra=extra)


def _is_long(error: BaseException) -> bool:
    """Whether an exception or one below it has a text that would fill a log."""
    below: BaseException | None = error
    for _ in range(MOST_FRAMES):
        if below is None:
            return False
        if len(text_of(below)) > LONGEST_TEXT_BYTES:
            return True
        below = _below(below)
    return False


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


def line_in(text: str) -> str:
    """Give the user's innermost line of a stack, like " at flow.py:12", to be put behind a word; "" if it has none."""
    found: list[tuple[str, str]] = re.findall(r'^ *File "([^"]+)", line (\d+)', text, re.MULTILINE)
    others = (_OWN_FOLDER, _LIBRARY)
    users = [each for each in found if not each[0].startswith(others) and "site-packages" not in each[0]]
    for file, line in (users or found)[-1:]:
        return f" at {os.path.basename(file)}:{line}"
    return ""


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


def place_in(failure: Failure) -> str:
    """Give the note that says where in a replay a body has failed, as an addition to a line; "" if there is none."""
    note = failure.stack.rstrip("\n").rpartition("\n")[2]
    return f" ({note.rstrip('.')})" if note.startswith(REPLAY) else ""
