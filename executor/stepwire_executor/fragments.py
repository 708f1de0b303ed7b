"""Messages that came in fragments, until their last piece is there, and how much all streams may leave unfinished."""

from __future__ import annotations

from collections import Counter

from stepwire_executor.stream import Ended, Stream
from stepwire_proto.v1 import worker_pb2

MOST_BYTES = 256 << 20
"""Of all unfinished messages; no fewer than two of the largest may have."""


class Fragments:
    """Joins the fragments of all streams; `largest` is the most that a message may have."""

    def __init__(self, largest: int, most_bytes: int = MOST_BYTES) -> None:
        self._largest = largest
        self._most_bytes = max(most_bytes, 2 * largest)
        self._unfinished: dict[Stream, tuple[int, bytearray]] = {}
        """With their ids, in the order in which they were begun. Joined already: pieces may be of two bytes each."""
        self.held_bytes = 0

    def add(self, stream: Stream, fragment: worker_pb2.Fragment, field: str) -> bytes | None:
        """Take a piece; gives the whole after the last one. Raises Ended."""
        if stream.ending.done():
            return None
        number, joined = self._unfinished.setdefault(stream, (fragment.id, bytearray()))
        if fragment.id != number:
            message = f"fragment {fragment.id} while {number} is not complete"
            raise Ended("INVALID_ARGUMENT", message, f"{field}.fragment.id")
        joined += fragment.data
        self.held_bytes += len(fragment.data)
        if len(joined) > self._largest:
            size = self._largest
            raise Ended("RESOURCE_EXHAUSTED", f"a message of over {size} bytes in fragments: outputs have a limit")
        if fragment.last:
            self.drop(stream)
            return bytes(joined)
        if self.held_bytes > self._most_bytes:
            self._make_room()
        return None

    def held_of(self, stream: Stream) -> int:
        """Give the bytes that have come of a stream's unfinished message."""
        return len(self._unfinished.get(stream, (0, b""))[1])

    def drop(self, stream: Stream) -> None:
        """Forget what has come of a message."""
        _, joined = self._unfinished.pop(stream, (0, b""))
        self.held_bytes -= len(joined)

    def _make_room(self) -> None:
        """End streams of the token that holds the most, the oldest message first, until the others' messages fit.

        It holds no less than the piece that was too much, so that its streams are enough.
        """
        held: Counter[str] = Counter()
        for stream, (_, joined) in self._unfinished.items():
            held[stream.caller.name] += len(joined)
        ((name, size),) = held.most_common(1)
        message = f"unfinished fragments have {size} bytes, of {self._most_bytes} that all may have"
        for stream in [each for each in self._unfinished if each.caller.name == name]:
            self.drop(stream)
            stream.end("RESOURCE_EXHAUSTED", f"{message}: send the pieces of a message without delay; reconnect")
            if self.held_bytes <= self._most_bytes:
                return
