"""What the fuzz is made of: it repeats itself by its seed, and leaves no field of the contract out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from stepwire_proto.v1 import value_pb2, worker_pb2
from tests.fuzz.alive import Alive, is_map
from tests.fuzz.clients import methods
from tests.fuzz.grammar import INT64, UINT64, Grammar, nested

SEED = 7
TRIES, MOST_TRIES = 400, 5_000


def grammar(seed: int = SEED) -> Grammar:
    return Grammar(random.Random(seed), Alive())


def requests() -> list[Descriptor]:
    """Give the types of all that is sent to an executor or a worker."""
    streamed = [worker_pb2.WorkerMessage.DESCRIPTOR, worker_pb2.ExecutorMessage.DESCRIPTOR]
    return [*streamed, *(method.input_type for method in methods())]


def fields_of(descriptor: Descriptor, seen: set[str]) -> Iterator[str]:
    """Give all fields that a message can have inside of it."""
    for field in descriptor.fields:
        yield field.full_name
        inner: Any = field.message_type
        if inner is not None and inner.full_name not in seen and not is_map(field):
            seen.add(inner.full_name)
            yield from fields_of(inner, seen)


def set_in(message: Message) -> Iterator[tuple[FieldDescriptor, Any]]:
    """Give all fields that are set in a message, with their values."""
    for field, value in message.ListFields():
        yield field, value
        if field.message_type is not None and not is_map(field):
            for inner in value if field.is_repeated else (value,):
                yield from set_in(inner)


@pytest.mark.parametrize("descriptor", requests(), ids=lambda descriptor: descriptor.name)
def test_every_field_of_every_message_is_filled(descriptor: Descriptor) -> None:
    made, missing = grammar(), {*fields_of(descriptor, {descriptor.full_name})}
    for _ in range(MOST_TRIES):
        missing -= {field.full_name for field, _ in set_in(made.of(descriptor))}
        if not missing:
            return
    raise AssertionError(f"never filled: {sorted(missing)}")


def test_the_same_seed_makes_the_same_messages() -> None:
    def make(seed: int) -> list[bytes]:
        made = grammar(seed)
        return [made.damage(made.make(worker_pb2.WorkerMessage).SerializeToString()) for _ in range(50)]

    assert make(1) == make(1) != make(2)


LONG = ("x" * 257, "x" * 1025)
"""Of which the lengths matter."""


def test_numbers_and_texts_have_their_extremes() -> None:
    made, seen = grammar(), set()
    for _ in range(TRIES):
        for field, value in set_in(made.make(worker_pb2.WorkerMessage)):
            if field.message_type is None and not field.is_repeated:
                seen.add((field.cpp_type, value))
    for kind, values in (
        (FieldDescriptor.CPPTYPE_UINT64, (1, UINT64)),
        (FieldDescriptor.CPPTYPE_INT64, (-INT64 - 1, INT64)),
        (FieldDescriptor.CPPTYPE_STRING, ("\0", "\x1b[2J\x1b]0;title\x07\r\n", *LONG)),
        (FieldDescriptor.CPPTYPE_DOUBLE, (float("inf"), float("-inf"))),
    ):
        known = {value for kind_of_it, value in seen if kind_of_it == kind}
        lengths = {len(value) for value in known if isinstance(value, str)}
        assert all(value in known or (value in LONG and len(value) in lengths) for value in values)
    assert any(value != value for kind, value in seen if kind == FieldDescriptor.CPPTYPE_DOUBLE), "no NaN"


def test_what_was_seen_is_used_again() -> None:
    made = grammar()
    made.alive.learn(value_pb2.Attempt(run_id="a-run", fence=4711))
    used = [made.make(worker_pb2.WorkerMessage) for _ in range(TRIES)]
    assert sum("a-run" in str(each) for each in used) > TRIES / 10
    assert sum("4711" in str(each) for each in used) > TRIES / 20


def test_a_mutation_changes_a_message_and_leaves_its_copy_alone() -> None:
    made = grammar()
    hello = worker_pb2.WorkerMessage(hello=worker_pb2.Hello(app="app", tasks=["a", "b"]))
    changed = set()
    for _ in range(100):
        copied = worker_pb2.WorkerMessage.FromString(hello.SerializeToString())
        made.mutate(copied)
        changed.add(copied.SerializeToString(deterministic=True))
    assert len(changed) > 50


def test_damaged_bytes_are_often_unreadable_and_at_times_not() -> None:
    made, unreadable = grammar(), 0
    kind = message_factory.GetMessageClass(worker_pb2.WorkerMessage.DESCRIPTOR)
    for _ in range(TRIES):
        data = made.damage(made.make(worker_pb2.WorkerMessage).SerializeToString())
        try:
            kind.FromString(data)
        except DecodeError:
            unreadable += 1
    assert TRIES / 5 < unreadable < TRIES * 4 / 5


def test_what_is_nested_too_deep_can_not_be_parsed() -> None:
    value_pb2.Failure.FromString(nested(90, 0x32, b""))
    with pytest.raises(DecodeError):
        value_pb2.Failure.FromString(nested(110, 0x32, b""))
