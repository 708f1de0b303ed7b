"""Where user code stands: its line in a frame, a coroutine or a callback, for messages that people read."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import traceback
from types import CodeType, FrameType
from typing import Any

_PYTHON = traceback.__file__.rpartition("/")[0] or traceback.__file__
_OWN = __file__.rpartition("/")[0]


def of_thread(thread_id: int | None) -> str:
    """Give where a thread stands."""
    frame = sys._current_frames().get(thread_id or 0)
    return of_frame(frame) if frame is not None else "something"


def of_frame(innermost: FrameType) -> str:
    """Give the innermost line of a stack that is not Python's own, an installed package's or Stepwire's."""
    frame: FrameType | None = innermost
    while frame is not None:
        if not _is_library(frame.f_code.co_filename):
            return _named(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return _named(innermost.f_code, innermost.f_lineno)


def of_awaitable(awaitable: Any) -> str:
    """Give where a coroutine waits: the innermost line of the user's code, or "" if there is none."""
    place = ""
    for each in chain(awaitable):
        frame = getattr(each, "cr_frame", None) or getattr(each, "gi_frame", None)
        if frame is not None and not _is_library(frame.f_code.co_filename):
            place = _named(frame.f_code, frame.f_lineno)
    return place


def of_handle(handle: asyncio.Handle) -> str:
    """Give what a loop is about to call: where its task stands, or the callback's first line; "" if it is no user's."""
    callback: Any = getattr(handle, "_callback", None)
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return of_awaitable(owner.get_coro())
    while isinstance(callback, functools.partial):
        callback = callback.func
    code = getattr(inspect.unwrap(callback) if callable(callback) else callback, "__code__", None)
    return _named(code, code.co_firstlineno) if isinstance(code, CodeType) and not _is_library(code.co_filename) else ""


def chain(awaitable: Any) -> list[Any]:
    """Give the coroutines and generators that have not ended, from an awaitable to the innermost that it waits for.

    The last may be something else, which does not tell what it waits for itself.
    """
    links: list[Any] = []
    while awaitable is not None:
        if inspect.iscoroutine(awaitable):
            frame, below = awaitable.cr_frame, awaitable.cr_await
        elif inspect.isgenerator(awaitable):
            frame, below = awaitable.gi_frame, awaitable.gi_yieldfrom
        else:
            links.append(awaitable)
            break
        if frame is None:
            break
        links.append(awaitable)
        awaitable = below
    return links


def _is_library(file: str) -> bool:
    return "site-packages" in file or file.startswith((_PYTHON, _OWN, "<frozen"))


def _named(code: CodeType, line: int) -> str:
    return f"{code.co_qualname} ({code.co_filename}:{line})"
