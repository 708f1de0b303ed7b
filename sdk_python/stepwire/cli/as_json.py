"""Records as plain JSON values, for `--json`: ISO 8601 times, seconds, payloads decoded if they are JSON."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum

from stepwire.payload import JSON, Payload


def plain(value: object) -> object:
    """Turn a record, or anything made of records, into what `json.dumps` takes."""
    match value:
        case Enum():
            return value.value
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case Payload():
            return payload_value(value)
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and (names := getattr(value, "_fields", ())):
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    return str(value)


def payload_value(payload: Payload) -> object:
    """Give the JSON value in a payload; of another encoding, an object with its name and the bytes in base64."""
    if payload.encoding in (JSON, ""):
        try:
            return json.loads(payload.data) if payload.data else None
        except ValueError:
            pass
    return {"encoding": payload.encoding, "base64": base64.b64encode(payload.data).decode()}
