"""Messages into frames: as few as fit, and fragments of what fits none. Journals in pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwire_executor.core.model import Step
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


def frames(stream: Stream, messages: Sequence[worker_pb2.ExecutorMessage], limit: int) -> list[bytes]:
    """Serialize messages into frames of at most `limit` bytes; one that fits none is cut into fragments."""
    parts: list[bytes] = []
    for message in messages:
        data = message.SerializeToString()
        if len(data) + 16 <= limit:
            parts.append(data)
            continue
        stream.fragment_id += 1
        size = limit - 64
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            fragment = worker_pb2.Fragment(id=stream.fragment_id, data=piece, last=at + size >= len(data))
            parts.append(worker_pb2.ExecutorMessage(fragment=fragment).SerializeToString())
    return pack(parts, limit)


def pack(parts: Sequence[bytes], limit: int) -> list[bytes]:
    """Put serialized messages into as few frames as fit; a repeated field is its parts one after the other."""
    packed: list[bytes] = []
    frame: list[bytes] = []
    size = 0
    for part in parts:
        head = b"\x0a" + varint(len(part))
        if frame and size + len(head) + len(part) > limit:
            packed.append(b"".join(frame))
            frame, size = [], 0
        frame += (head, part)
        size += len(head) + len(part)
    if frame:
        packed.append(b"".join(frame))
    return packed


def varint(value: int) -> bytes:
    """Write a number as Protobuf does (https://protobuf.dev/programming-guides/encoding/#varints)."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
