"""Checks what users give to steps. Every function raises InvalidStepError, which says what to do."""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, TypeVar

from stepwire import arguments
from stepwire.durations import LONGEST_SECONDS, as_float, seconds
from stepwire.errors import InvalidStepError

if TYPE_CHECKING:
    from stepwire.events import Event
    from stepwire.replay.loop import ReplayLoop

T = TypeVar("T")

RESERVED = "stepwire."
FIRST_SECOND = datetime.min.replace(tzinfo=UTC).timestamp()
LONGEST_FILE_NAME = 50
"""In characters; the contract allows a source 256 bytes."""
MOST_PLACES = 10_000

# The contract's limits of what a wait compares: see WaitForEventTarget.fields.
MOST_FIELDS = 16
LONGEST_PATH_BYTES = 256
MOST_NAMES = 16
MOST_MATCH_BYTES = 1_024
_places: dict[tuple[int, int], tuple[CodeType, str]] = {}
"""Sources that were given, by the code and the instruction in it: a loop asks for the same one again and again."""
_OWN = tuple(str(Path(__file__).parent.parent / part) for part in ("body", "replay", "testing"))
"""Where the code stands that is between a user's call and its check."""


def names_arguments(cls: type[T]) -> type[T]:
    """Have a class's methods raise InvalidStepError for arguments that are missing, unknown or too many."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, _naming(method))
    return cls


def _naming(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return method(*args, **options)
        except Exception as error:
            misfit = _misfit(method, args, options) if isinstance(error, TypeError) else None
            loop: ReplayLoop | None = args[0]._invocation.loop if args else None
            if loop is not None and loop.is_hopeless(misfit or error):
                return loop.create_future()
            if misfit is not None:
                raise misfit from None
            raise

    return call


def _misfit(method: Callable[..., Any], args: Any, options: Any) -> InvalidStepError | None:
    """Say what is wrong about the arguments of a call, if it is their number or a name."""
    try:
        inspect.signature(method).bind(*args, **options)
    except TypeError as error:
        return InvalidStepError(f"step.{method.__name__}: {error}")
    return None


def check_id(step_id: object, most_bytes: int) -> None:
    """Check a step's id."""
    if not isinstance(step_id, str):
        raise InvalidStepError(f"a step's id is {step_id!r}, but must be a text")
    if not step_id:
        raise InvalidStepError("a step's id is empty: give each step a name that says what it does")
    if step_id.startswith(RESERVED):
        raise InvalidStepError(f"a step's id is {step_id!r}, but ids that start with {RESERVED!r} are Stepwire's own")
    check_text(step_id, "a step's id")
    if 4 * len(step_id) > most_bytes and (size := len(step_id.encode())) > most_bytes:
        raise InvalidStepError(
            f"step id {step_id[:40]!r}… has {size} bytes, over --max-step-id-bytes={most_bytes}: choose a shorter one"
        )


check_text = functools.partial(arguments.text, error=InvalidStepError)
"""Checks a text that can't be empty."""


def unix_time(step_id: str, when: datetime | float, now: float) -> float:
    """Give the end of a sleep in Unix seconds."""
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise InvalidStepError(f"sleep {step_id!r} is until {when}, which has no time zone: use an aware datetime")
        end = when.timestamp()
    elif isinstance(when, bool) or not isinstance(when, int | float) or not math.isfinite(as_float(when)):
        raise InvalidStepError(
            f"sleep {step_id!r} is until {when!r}, but must be an aware datetime or Unix time in seconds"
        )
    else:
        end = float(when)
    if end < FIRST_SECOND:
        raise InvalidStepError(
            f"sleep {step_id!r} is until {when!r}, which is before the year 1: give a Unix time in seconds"
        )
    if end - now > LONGEST_SECONDS:
        raise InvalidStepError(
            f"sleep {step_id!r} is until {when}, {end - now:g} s ahead, "
            f"over the limit of {LONGEST_SECONDS:g} s (--max-sleep)"
        )
    return end


def limit_of(duration: Any, what: str) -> float:
    """Give a timeout in seconds."""
    return seconds(duration, what, InvalidStepError, may_be_zero=False)


def check_map(step_id: str, fn: object, items: object, concurrency: object) -> None:
    """Check what step.map is given."""
    if not callable(fn):
        raise InvalidStepError(f"step {step_id!r} is to run {fn!r}, which can't be called: give the function itself")
    if not isinstance(items, Iterable):
        raise InvalidStepError(f"step {step_id!r} is to map over {items!r}, which can't be iterated: give it a list")
    if concurrency is None:
        return
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidStepError(
            f"step {step_id!r}: concurrency is {concurrency!r}, but must be a whole number, at least 1"
        )


def check_event(step_id: str, event: Event) -> None:
    """Check an event that is to be sent."""
    check_text(event.name, f"the name of an event that step {step_id!r} sends")
    if not isinstance(event.id, str):
        raise InvalidStepError(f"the id of event {event.name!r} that step {step_id!r} sends is {event.id!r}, no text")
    if event.id:
        check_text(event.id, f"the id of event {event.name!r} that step {step_id!r} sends")
    if event.time is not None and not isinstance(event.time, datetime):
        raise InvalidStepError(
            f"the time of event {event.name!r} that step {step_id!r} sends is {event.time!r}: give a datetime or None"
        )


def fields_of(step_id: str, match: Mapping[str, str | float | bool | None]) -> dict[str, str]:
    """Give the fields that an event must have, their values as JSON text."""
    if not isinstance(match, Mapping):
        raise InvalidStepError(f"wait {step_id!r} matches {match!r}, but must be given paths and their values")
    if len(match) > MOST_FIELDS:
        raise InvalidStepError(f"wait {step_id!r} matches {len(match)} fields, but at most {MOST_FIELDS} are allowed")
    fields = {_path(step_id, path): _json_of(step_id, path, value) for path, value in match.items()}
    size = sum(len(json.dumps(path)) + len(text) + 2 for path, text in fields.items()) + 2  # in two lists
    if size > MOST_MATCH_BYTES:
        raise InvalidStepError(
            f"wait {step_id!r} matches paths and values of {size} bytes as JSON in ASCII, but at most "
            f"{MOST_MATCH_BYTES} together are allowed: compare less, like an id"
        )
    return fields


def _path(step_id: str, path: object) -> str:
    check_text(path, f"a path that wait {step_id!r} matches")
    text = str(path)
    size, names = len(text.encode()), text.count(".") + 1
    if size > LONGEST_PATH_BYTES or names > MOST_NAMES:
        raise InvalidStepError(
            f"wait {step_id!r} matches a path of {size} bytes and {names} names, but at most "
            f"{LONGEST_PATH_BYTES} bytes and {MOST_NAMES} names are allowed: {text[:40]!r}"
        )
    return text


def _json_of(step_id: str, path: str, value: Any) -> str:
    endless = isinstance(value, float) and not math.isfinite(value)
    if endless or not isinstance(value, str | int | float | bool | type(None)):
        raise InvalidStepError(
            f"wait {step_id!r} matches {path!r} with {value!r}: values are texts, numbers, booleans or None"
        )
    if isinstance(value, str) and value:
        check_text(value, f"what wait {step_id!r} matches {path!r} with")
    try:
        return json.dumps(value)
    except ValueError as error:  # an integer of thousands of digits
        raise InvalidStepError(f"wait {step_id!r} matches {path!r} with a value that is no JSON: {error}") from None


def source() -> str:
    """Give file and line of the user's code that is calling, like "flow.py:42"."""
    frame: Any = sys._getframe(2)  # the caller is one of ours
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    if frame is None:
        return ""
    code, at = frame.f_code, frame.f_lasti
    known = _places.get((id(code), at))
    if known is not None and known[0] is code:
        return known[1]
    name: str = code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
    if not name.isascii():
        name = name.encode("utf-8", "replace").decode()
    place = f"{name[-LONGEST_FILE_NAME:]}:{frame.f_lineno}"
    if len(_places) >= MOST_PLACES:
        _places.clear()
    _places[id(code), at] = code, place
    return place
