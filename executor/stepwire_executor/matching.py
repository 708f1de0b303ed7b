"""Whether an event is the one that a step waits for: by equal fields of its JSON data.

Both sides are brought into one canonical text, so that the store finds waits by equality alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from stepwire_core.model import Blob, Event
from stepwire_executor import times
from stepwire_executor.jsontext import JsonError, check_json
from stepwire_proto.v1 import value_pb2

NO_PATHS = "[]"
"""The paths of a wait for any event with its name, and its match."""


MOST_FIELDS = 16
LONGEST_PATH_BYTES = 256
MOST_NAMES = 16
MOST_MATCH_BYTES = 1_024
"""Of a wait's paths and values in canonical form: they are keys of an index, and PostgreSQL takes 2,704 bytes a row."""
SHOWN = 40


def canonical_match(fields: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Bring the fields of a wait (dotted paths and JSON texts) into canonical form: their paths, and their values.

    Raises ValueError for a value that is not a string, number, boolean or null, for a path that is there twice, and for
    what is over a limit.
    """
    if len(fields) > MOST_FIELDS:
        raise ValueError(f"{len(fields)} fields, but a wait has at most {MOST_FIELDS}")
    found: dict[str, Any] = {}
    for path, text in fields:
        check_path(path)
        if path in found:
            raise ValueError(f"field {path!r} is there twice, but each may be named once")
        found[path] = _value(path, text)
    paths = sorted(found)
    canonical = _text(paths), _text([found[path] for path in paths])
    size = sum(map(len, canonical))
    if size > MOST_MATCH_BYTES:
        what = f"paths and values have {size} bytes as JSON in ASCII"
        raise ValueError(f"{what}, but at most {MOST_MATCH_BYTES} together: compare less")
    return canonical


def check_path(path: str) -> None:
    """Raise ValueError for a path that is too long, or leads too deep."""
    size, names = len(path.encode()), path.count(".") + 1
    if size > LONGEST_PATH_BYTES:
        raise ValueError(f"the path {path[:SHOWN]!r}… has {size} bytes, but at most {LONGEST_PATH_BYTES}")
    if names > MOST_NAMES:
        raise ValueError(f"the path {path[:SHOWN]!r}… has {names} names, but at most {MOST_NAMES}")


def _value(path: str, text: str) -> Any:
    """Read what a field is compared with, in canonical form; raises ValueError."""
    size = len(text.encode())
    if size > MOST_MATCH_BYTES:
        raise ValueError(f"field {path!r} is compared with {size} bytes, but at most with {MOST_MATCH_BYTES}")
    try:
        value = check_json(text.encode())
    except JsonError as error:
        raise ValueError(f"field {path!r}: {error}") from None
    if isinstance(value, list | dict):
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        raise ValueError(f"field {path!r} is compared with {shown}: only strings, numbers, true, false and null")
    return _canonical(value)


NO_JSON = object()
"""Data that is not plain JSON: it only matches waits without fields."""


def data_of(event: Event) -> Any:
    """Give an event's data; NO_JSON if it is none. Raises nothing: what was stored is no reason to end the executor."""
    payload = value_pb2.Payload.FromString(event.data)
    if payload.encoding not in ("", "json"):
        return NO_JSON
    try:
        return json.loads(payload.data or b"null")
    except (ValueError, RecursionError):  # input of an invoke, which nobody has checked
        return NO_JSON


def match_for(paths: str, data: Any) -> str | None:
    """Give an event's values at a wait's paths in canonical form; None if one is missing or not comparable."""
    if paths == NO_PATHS:
        return NO_PATHS
    values = []
    for path in names_of(paths):
        value = data
        for name in path:
            if not isinstance(value, dict) or name not in value:
                return None
            value = value[name]
        if isinstance(value, list | dict):
            return None
        values.append(_canonical(value))
    return _text(values)


@lru_cache(10_000)
def names_of(paths: str) -> Sequence[Sequence[str]]:
    """Give the names on each of a wait's paths."""
    return [path.split(".") for path in json.loads(paths)]


def matches_of(all_paths: Sequence[str], data: Any) -> dict[str, str]:
    """Give an event's values for each of several paths that waits have, by the paths; see `data_of`, `match_for`."""
    matches = ((paths, match_for(paths, data)) for paths in all_paths)
    return {paths: match for paths, match in matches if match is not None}


def event_output(event: Event) -> Blob:
    """Give an event as the result of the step that waited for it: JSON with id, name, data and time.

    Data that is not JSON stands under "payload" instead of "data": its encoding, metadata, and bytes in base64.
    """
    payload = value_pb2.Payload.FromString(event.data)
    head = {"id": event.id, "name": event.name, "time": times.iso(event.time)}
    if payload.encoding in ("", "json"):
        text = json.dumps(head)[:-1].encode() + b', "data": ' + (payload.data or b"null") + b"}"
    else:
        encoded = base64.b64encode(payload.data).decode()
        opaque = {"encoding": payload.encoding, "metadata": dict(payload.metadata), "data": encoded}
        text = json.dumps({**head, "payload": opaque}).encode()
    return value_pb2.Payload(data=text, encoding="json").SerializeToString()


def _canonical(value: Any) -> Any:
    """Make equal numbers look the same: 1.0 becomes 1. True stays apart from 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
