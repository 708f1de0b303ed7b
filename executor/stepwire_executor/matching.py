"""Whether an event is the one that a step waits for: by equal fields of its JSON data.

Both sides are brought into one canonical text, so that the store finds waits by equality alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stepwire_executor import times
from stepwire_executor.core.model import Blob, Event
from stepwire_proto.v1 import value_pb2

NO_PATHS = "[]"
"""The paths of a wait for any event with its name, and its match."""


def canonical_match(fields: Mapping[str, str]) -> tuple[str, str]:
    """Bring the fields of a wait (dotted path to JSON text) into canonical form: their paths, and their values.

    Raises ValueError for a value that is not a string, number, boolean or null.
    """
    paths = sorted(fields)
    values = []
    for path in paths:
        value = json.loads(fields[path])
        if isinstance(value, list | dict):
            raise ValueError(
                f"field {path!r} is compared with {fields[path]}: only strings, numbers, true, false and null"
            )
        values.append(_canonical(value))
    return _text(paths), _text(values)


def match_for(paths: str, data: Any) -> str | None:
    """Give an event's values at a wait's paths in canonical form; None if one is missing or not comparable."""
    values = []
    for path in json.loads(paths):
        value = data
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                return None
            value = value[name]
        if isinstance(value, list | dict):
            return None
        values.append(_canonical(value))
    return _text(values)


def matches_of(all_paths: Sequence[str], event: Event) -> dict[str, str]:
    """Give an event's values for each of several paths that waits have, by the paths; see `match_for`.

    Data that is not plain JSON only matches waits without fields. It is parsed once, if anybody wants to know.
    """
    found = {paths: paths for paths in all_paths if paths == NO_PATHS}
    if len(found) < len(all_paths):
        payload = value_pb2.Payload.FromString(event.data)
        if payload.encoding in ("", "json"):
            data = json.loads(payload.data or b"null")
            for paths in all_paths:
                match = match_for(paths, data)
                if match is not None:
                    found[paths] = match
    return found


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
