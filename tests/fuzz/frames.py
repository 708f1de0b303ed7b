"""Frames and fragments as no SDK would make them, of messages in either direction."""

from __future__ import annotations

import random

from stepwire.frames import fragments
from stepwire_executor.frames import varint
from stepwire_proto.v1 import worker_pb2


def frame_of(data: bytes) -> bytes:
    """Write a frame around one message, whatever its bytes are."""
    return b"\x0a" + varint(len(data)) + data


def cut(dice: random.Random, data: bytes, number: int) -> list[worker_pb2.Fragment]:
    """Cut a serialized message into one to four fragments, however small it is."""
    pieces = fragments(data, max(1, len(data) // dice.choice((1, 2, 3))))
    last = len(pieces) - 1
    return [worker_pb2.Fragment(id=number, data=piece, last=at == last) for at, piece in enumerate(pieces)]
