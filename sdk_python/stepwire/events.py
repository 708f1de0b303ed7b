"""Events as users send and receive them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepwire.errors import EncodingError
from stepwire.payload import Payload
from stepwire.replay import model
from stepwire.values import Values


@dataclass(frozen=True, slots=True)
class Event:
    """An event to send. An `id` makes it once only, for 24 h. `time` is when it happened; None means now."""

    name: str
    data: Any = None
    id: str = ""
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event that has been received, its data decoded."""

    id: str
    name: str
    data: Any
    time: datetime


def as_event(event: Event | tuple[str, Any]) -> Event:
    """Take an event, or a tuple of name and data. Raises TypeError."""
    if isinstance(event, Event):
        return event
    if isinstance(event, tuple) and len(event) == 2 and isinstance(event[0], str):
        return Event(*event)
    raise TypeError(f"{event!r} is no event: use stepwire.Event(name, data) or a tuple of both")


def outgoing(event: Event, values: Values) -> model.OutgoingEvent:
    """Encode an event's data."""
    data = values.encode(event.data, None, f"data of event {event.name!r}", limit=0)
    return model.OutgoingEvent(event.name, data, event.id, event.time.timestamp() if event.time else None)


def from_output(payload: Payload, values: Values) -> ReceivedEvent:
    """Read the result of a step that waited for an event."""
    fields = Values().decode(payload, None, "the event that was waited for")
    if not isinstance(fields, dict):
        raise EncodingError("the event that was waited for can't be read")
    data = fields.get("data")
    opaque = fields.get("payload")
    if opaque is not None:
        inner = Payload(base64.b64decode(opaque["data"]), opaque["encoding"], opaque["metadata"])
        data = values.decode(inner, None, f"data of event {fields['name']!r}")
    return ReceivedEvent(fields["id"], fields["name"], data, datetime.fromisoformat(fields["time"]))
