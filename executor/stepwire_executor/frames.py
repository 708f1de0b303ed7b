"""Messages into frames: as few as fit, and fragments of what fits none. Journals in pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from stepwire_core.model import Step
from stepwire_executor.stream import Stream
from stepwire_proto.v1 import worker_pb2

PAGE_BYTES = 256 * 1024
"""Journal entries are paged at about this size."""


def pages(journal: Sequence[Step]) -> Iterator[list[Step]]:
    """Give journal entries in pages of about `PAGE_BYTES`."""
    page: list[Step] = []
    size = 0
    for step in journal:
        page.append(step)
        size += len(step.output or b"") + 64
        if size > PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def frames(stream: Stream, messages: list[worker_pb2.ExecutorMessage], limit: int) -> Iterator[bytes]:
    """Serialize messages into as few frames of at most `limit` bytes as fit; one that fits none becomes fragments.

    Each message is taken from the list when its turn comes: however large they are together, they are not in memory
    twice.
    """
    frame: list[bytes] = []
    size = 0
    messages.reverse()
    while messages:
        for part in parts(stream, messages.pop(), limit):
            head = field_head(len(part))  # a repeated field is its parts one after the other
            length = len(head) + len(part)
            if frame and size + length > limit:
                yield b"".join(frame)
                frame, size = [], 0
            frame += (head, part)
            size += length
    if frame:
        yield b"".join(frame)


def parts(stream: Stream, message: worker_pb2.ExecutorMessage, limit: int) -> Iterable[bytes]:
    """Serialize a message, in fragments if it is too large for a frame."""
    data = message.SerializeToString()
    return (data,) if len(data) + 16 <= limit else fragments(stream, data, limit)


def fragments(stream: Stream, data: bytes, limit: int) -> Iterator[bytes]:
    """Cut a serialized message into fragments, each of them a message that fits a frame."""
    stream.fragment_id += 1
    size = limit - 64
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        fragment = worker_pb2.Fragment(id=stream.fragment_id, data=piece, last=at + size >= len(data))
        yield worker_pb2.ExecutorMessage(fragment=fragment).SerializeToString()


def field_head(length: int) -> bytes:
    """Write what stands before field 1 of a message if that is bytes of this length, or a message."""
    if length < 0x80:
        return bytes((0x0A, length))
    if length < 0x4000:
        return bytes((0x0A, length & 0x7F | 0x80, length >> 7))
    return b"\x0a" + varint(length)


def varint(value: int) -> bytes:
    """Write a number as Protobuf does (https://protobuf.dev/programming-guides/encoding/#varints)."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
