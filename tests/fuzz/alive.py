"""Values that mean something to whoever is fuzzed: ids, fences and names, learnt from every message that is seen.

A value is remembered under the name of its field, and a message under its type. So what a new field holds is used
again the day that the field is added.
"""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

MOST = 64
"""Values that are remembered of a kind: a newer one takes the place of an older one."""
LARGEST = 4096
"""Bytes from which on a message is not worth remembering."""

SAME = {
    "resume_session": "session_id",
    "run_ids": "run_id",
    "forgotten_run_ids": "run_id",
    "parent_run_id": "run_id",
    "child_run_id": "run_id",
    "Run.id": "run_id",
    "eager_fence": "fence",
    "current_fence": "fence",
    "function_ids": "function_id",
    "FunctionOptions.id": "function_id",
    "Event.name": "event_name",
    "Event.id": "event_id",
    "TaskStart.name": "tasks",
    "TaskTarget.name": "tasks",
    "page_token": "next_page_token",
}
"""Fields that hold the same kind of thing."""
VAGUE = {"id", "name", "key", "value", "data", "number", "seconds", "nanos"}
"""Names that mean something only together with their message's."""


def kind_of(field: FieldDescriptor) -> str:
    """Name the kind of thing that a field holds."""
    full = f"{getattr(field.containing_type, 'name', '')}.{field.name}"
    return SAME.get(full) or SAME.get(field.name) or (full if field.name in VAGUE else field.name)


def is_map(field: FieldDescriptor) -> bool:
    """Say whether a field is a map, which descriptors show as repeated messages."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


class Alive:
    """What one peer has been given, or has said of itself. Take a value with a seeded `dice`."""

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {}
        self._messages: dict[str, list[Message]] = {}
        self._count = 0

    def add(self, kind: str, *values: Any) -> None:
        """Remember values of a kind, e.g. "function_id"."""
        for value in values:
            self._keep(self._values.setdefault(kind, []), value)

    def learn(self, message: Message) -> None:
        """Remember a message and all that is in it."""
        if message.ByteSize() > LARGEST:
            return
        self._keep(self._messages.setdefault(message.DESCRIPTOR.full_name, []), message)
        for field, value in message.ListFields():
            if is_map(field):
                continue
            for each in value if field.is_repeated else (value,):
                if field.message_type is not None:
                    self.learn(each)
                elif field.type not in (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM):
                    self._keep(self._values.setdefault(kind_of(field), []), each)

    def value(self, dice: random.Random, field: FieldDescriptor) -> Any:
        """Give a value of the kind that a field holds; None if none is known."""
        return _one(dice, self._values.get(kind_of(field), []))

    def message(self, dice: random.Random, full_name: str) -> Message | None:
        """Give a message of a type that was seen; None if there was none. It is not to be changed."""
        found: Message | None = _one(dice, self._messages.get(full_name, []))
        return found

    def _keep(self, kept: list[Any], value: Any) -> None:
        if value in kept[-8:]:
            return
        self._count += 1
        if len(kept) < MOST:
            kept.append(value)
        else:
            kept[self._count % MOST] = value


def _one(dice: random.Random, values: list[Any]) -> Any:
    """Choose by one draw, however many there are: so what is drawn next does not depend on what is known."""
    drawn = dice.getrandbits(32)
    return values[drawn % len(values)] if values else None
