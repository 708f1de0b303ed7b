"""Makes messages of any type from its descriptor, changes good ones, and damages their bytes.

It knows no message of the contract by name, so that a new message and a new field are fuzzed the day that they are
added. All is drawn from a seeded `random.Random`. What the system under test has given, the values of `Alive`, gets
messages past the first checks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from stepwire_executor.frames import varint
from tests.fuzz.alive import Alive, is_map

Made = TypeVar("Made", bound=Message)

INT32, UINT32, INT64, UINT64 = (1 << 31) - 1, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1
SIGNED = [0, 1, -1, 2, 999_999_999, 1_000_000_000, -1_000_000_000]
DOUBLES = [0.0, -0.0, 1.0, 0.5, -1.0, 5e-324, 1.8e308 / 1.8, -1e308, float("inf"), float("-inf"), float("nan")]
BOUNDS = (40, 127, 128, 129, 255, 256, 257, 512, 513, 1023, 1024, 1025, 16_385, 65_537)
"""Lengths on both sides of what the contract allows somewhere."""
TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "/",
    "a/b",
    "a",
    "json",
    "binary",
    "stepwire/",
    "stepwire-x",
    "*",
    ".",
    "..",
    "..." * 20,
    "a.b.c",
    "'",
    "'; DROP TABLE runs; --",
    "%s%n%d{0}{x.__class__}",
    "\x1b[2J\x1b]0;title\x07\r\n",
    "\u202ereversed\u2066",
    "\ufeff",
    "\ufffe\uffff",
    "\U0001f600" * 3,
    "\U0010ffff",
    "e\u0301" * 50,
    "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    "k=v",
    "0" * 26,
    "0" * 26 + "-" + "0" * 16 + "-0",
]
JSON = [
    "null",
    "1",
    '"x"',
    "[1,2,3]",
    '{"a":{"b":[{"c":1}]},"doc":"x"}',
    "",
    "{",
    "[" * 300,
    "[" * 190 + "]" * 190,
    "1e999",
    "-1e-999",
    "NaN",
    "9" * 4_300,
    "9" * 4_301,
    "18446744073709551616",
    '"\\u0000"',
    '"a\\u0000b"',
    '{"\\u0000":1}',
    '"\\ud800"',
    '{"a":1,"a":2}',
    "\ufeff1",
    '"\u2028"',
]
"""JSON, and what is nearly JSON: in texts and, as UTF-8, in bytes."""
SECONDS = [0, 1, 2, 60, 86_400, 366 * 86_400, 366 * 86_400 + 1, 315_576_000_000, 315_576_000_001, 253_402_300_799]
NANOS = [0, 1, 5_000_000, 999_999_999, 1_000_000_000, INT32, -1, -INT32 - 1]

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-INT32 - 1, INT32),
    FieldDescriptor.CPPTYPE_UINT32: (0, UINT32),
    FieldDescriptor.CPPTYPE_INT64: (-INT64 - 1, INT64),
    FieldDescriptor.CPPTYPE_UINT64: (0, UINT64),
}


def text_of(dice: random.Random, largest: int) -> str:
    """Make a text: of few characters mostly, or of a length at a bound."""
    how = dice.random()
    if how < 0.5:
        return dice.choice(TEXTS)
    if how < 0.7:
        return dice.choice(JSON)
    if how < 0.9:
        length = dice.choice(BOUNDS)
        return (dice.choice("aé\u20ac\0.[") * length)[:length]
    if how < 0.98:
        return "".join(chr(dice.choice((dice.randrange(0xD800), dice.randrange(0x80)))) for _ in range(12))
    return "x" * dice.randrange(largest)


class Grammar:
    """Makes the messages of one peer. `largest` is the most bytes of one value."""

    def __init__(self, dice: random.Random, alive: Alive, largest: int = 60_000) -> None:
        self.dice = dice
        self.alive = alive
        self.largest = largest
        self._special: dict[str, Callable[[Message], None]] = {
            Duration.DESCRIPTOR.full_name: self._time,
            Timestamp.DESCRIPTOR.full_name: self._time,
        }

    def make(self, kind: type[Made]) -> Made:
        """Make a message of a type."""
        message = kind()
        self.fill(message, 0)
        return message

    def of(self, descriptor: Descriptor) -> Message:
        """Make a message of a descriptor's type."""
        return self.make(message_factory.GetMessageClass(descriptor))

    def fill(self, message: Message, depth: int) -> None:
        """Set fields of an empty message at random: of each oneof at most one."""
        descriptor = message.DESCRIPTOR
        special = self._special.get(descriptor.full_name)
        if special is not None:
            special(message)
            return
        if depth and self.dice.random() < 0.35:
            known = self.alive.message(self.dice, descriptor.full_name)
            if known is not None:
                message.CopyFrom(known)
                return
        left_out = {
            field.name
            for oneof in descriptor.oneofs
            for field in self._but_one(oneof.fields)
        }  # fmt: skip
        for field in descriptor.fields:
            if field.name in left_out:
                continue
            if field.containing_oneof is not None or self.dice.random() < (0.75 if depth < 3 else 0.4):
                self.set(message, field, depth)

    def set(self, message: Message, field: Any, depth: int = 0) -> None:
        """Give a field a new value, whatever it has."""
        message.ClearField(field.name)
        if is_map(field):
            self._map(getattr(message, field.name), field)
        elif field.is_repeated:
            self._repeated(getattr(message, field.name), field, depth)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            if depth < self._deepest(field):
                self.fill(inner, depth + 1)
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field: FieldDescriptor) -> Any:
        """Make a value of a scalar field: one that is alive, or an extreme."""
        how = self.dice.random()
        known = self.alive.value(self.dice, field)
        if known is not None and how < 0.5:
            if how < 0.45 or field.cpp_type not in _INTEGERS:
                return known
            return self._fit(field, known + self.dice.choice((-1, 1)))
        return self.extreme(field)

    def extreme(self, field: Any) -> Any:
        """Make an extreme value of a scalar field, or a plausible small one."""
        dice = self.dice
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_BOOL:
                return dice.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                known = [value.number for value in field.enum_type.values]
                return dice.choice([*known, *known, len(known), 99, -1, INT32, -INT32 - 1])
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return dice.choice(DOUBLES)
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                if dice.random() < 0.2:
                    return dice.randbytes(dice.choice((1, 7, 40)))
                return text_of(dice, self.largest).encode()
            case FieldDescriptor.CPPTYPE_STRING:
                return text_of(dice, self.largest)
        least, most = _INTEGERS[field.cpp_type]
        if dice.random() < 0.5:
            return dice.randrange(5)
        return self._fit(field, dice.choice([*SIGNED, 1 << 16, 1 << 31, 1 << 32, (1 << 53) + 1, most - 1, most, least]))

    def mutate(self, message: Message, times: int = 1) -> None:
        """Change some places of a message, anywhere inside of it."""
        for _ in range(times):
            places = list(_places(message))
            if not places:
                return
            holder, field = self.dice.choice(places)
            how = self.dice.random()
            if how < 0.15:
                holder.ClearField(field.name)
            elif how < 0.3 and field.is_repeated and not is_map(field):
                self._shuffle(getattr(holder, field.name), field)
            else:
                self.set(holder, field, 1)

    def damage(self, data: bytes) -> bytes:
        """Make bytes that a parser may stumble over, out of those of a message."""
        dice = self.dice
        at = dice.randrange(len(data) + 1)
        match dice.randrange(8):
            case 0:
                return data[:at]
            case 1:
                return data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at:]
            case 2:
                return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
            case 3:  # text that is no UTF-8: a lone surrogate, a cut sequence, an overlong NUL
                bad = dice.choice((b"\xed\xa0\x80", b"\xe2\x82", b"\xc0\x80", b"\xff"))
                return data[:at] + bad + data[at + len(bad) :]
            case 4:  # a field that nobody knows, of any wire type, a group too
                tag = varint(dice.choice((19, 1000, (1 << 29) - 1)) << 3 | dice.randrange(8))
                return data + tag + dice.choice((b"", b"\0", b"\x05hello", b"\xff" * 11))
            case 5:
                return nested(dice.choice((90, 110, 5_000)), dice.choice((0x0A, 0x32, 0x3A)), data)
            case 6:
                return data + data
        return dice.randbytes(dice.choice((0, 1, 2, 30, 300)))

    def _but_one(self, fields: Sequence[Any]) -> list[Any]:
        chosen = self.dice.randrange(len(fields)) if self.dice.random() > 0.05 else -1
        return [field for at, field in enumerate(fields) if at != chosen]

    def _deepest(self, field: FieldDescriptor) -> int:
        if field.message_type is field.containing_type:  # it can hold itself for ever
            return self.dice.choice((1, 3, 5, 30))
        return 6

    def _count(self) -> int:
        how = self.dice.random()
        if how < 0.2:
            return 0
        return 1 if how < 0.6 else 2 if how < 0.8 else 5 if how < 0.97 else self.dice.choice((101, 300))

    def _repeated(self, values: Any, field: FieldDescriptor, depth: int) -> None:
        count = self._count()
        if field.message_type is None:
            made = [self.scalar(field) for _ in range(count)]
            values.extend(made)
        else:
            if depth > 3:
                count = min(count, 1)
            made = []
            for _ in range(min(count, 5)):
                made.append(values.add())
                if depth < self._deepest(field):
                    self.fill(made[-1], depth + 1)
            for number in range(count - len(made)):  # many of the same few, which is quicker to make
                values.add().CopyFrom(made[number % 5])
        if made and self.dice.random() < 0.2:
            values.extend(made[:1])

    def _map(self, values: Any, field: Any) -> None:
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        for _ in range(self._count()):
            if value.message_type is not None:
                self.fill(values[self.extreme(key)], 3)
            else:
                values[self.extreme(key)] = self.extreme(value)

    def _shuffle(self, values: Any, field: FieldDescriptor) -> None:
        """Turn the order of a repeated field, leave an element out, or have one twice."""
        kept = list(values)
        how = self.dice.randrange(3)
        if how == 0:
            kept.reverse()
        elif how == 1:
            kept = kept[1:]
        else:
            kept = [*kept, *kept[:1]]
        if field.message_type is not None:
            kept = [_copy(each) for each in kept]
        del values[:]
        values.extend(kept)

    def _time(self, message: Any) -> None:
        """Fill a Duration or Timestamp: one of every second makes sense."""
        if self.dice.random() < 0.5:
            message.seconds, message.nanos = (
                self.dice.choice((0, 0, 0, 1)),
                self.dice.choice((0, 1_000_000, 50_000_000)),
            )
            return
        message.seconds = self.dice.choice([*SECONDS, *(-each - 1 for each in SECONDS), INT64, -INT64 - 1])
        message.nanos = self.dice.choice(NANOS)

    def _fit(self, field: FieldDescriptor, value: int) -> int:
        least, most = _INTEGERS[field.cpp_type]
        return min(max(value, least), most)


def nested(depth: int, tag: int, data: bytes) -> bytes:
    """Put bytes into a field inside of itself, so many times; too deep for parsers, which stop at 100."""
    head = bytearray()
    size = len(data)
    for _ in range(depth):
        inner = bytes([tag]) + varint(size)
        head[:0] = inner
        size += len(inner)
    return bytes(head) + data


def _copy(message: Message) -> Message:
    made = type(message)()
    made.CopyFrom(message)
    return made


def _places(message: Message) -> Any:
    """Give all fields of a message and of what is set in it, each with the message that holds it."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
    for field, value in message.ListFields():
        if field.message_type is not None and not is_map(field):
            for inner in value[:3] if field.is_repeated else (value,):
                yield from _places(inner)
