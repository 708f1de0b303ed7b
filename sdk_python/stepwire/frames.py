"""Messages into frames and back: batching, and fragments of what is too large for a frame.

A frame is a repeated field of messages, whose serialized form is, for each message, a tag, its length and its bytes. So
frames are joined from serialized messages, which costs less than half of building a frame message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage

from stepwire.errors import StepwireError
from stepwire_proto.v1 import worker_pb2

DEFAULT_MAX_FRAME_BYTES = 1024 * 1024
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
LEAST_FRAME_BYTES = 1024
FRAGMENT_OVERHEAD = 64
"""Bytes that frame, message and fragment add to a piece, at the most."""
_TAG = b"\x0a"  # field 1, length-delimited: `messages` of WorkerFrame and ExecutorFrame

Message = TypeVar("Message", worker_pb2.WorkerMessage, worker_pb2.ExecutorMessage)
Parsed = TypeVar("Parsed", bound=ProtobufMessage)


class FrameError(StepwireError):
    """The other side has sent frames or fragments that break the contract: the stream can't go on."""


def _length(size: int) -> bytes:
    """Encode a length as Protobuf does."""
    encoded = bytearray()
    while size > 127:
        encoded.append(size & 127 | 128)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)


_SHORT = tuple(_TAG + _length(size) for size in range(4096))


class Framer(Generic[Message]):
    """Makes the frames of one stream and one direction. `max_frame_bytes` may be changed in between."""

    def __init__(self, kind: type[Message], max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self._kind: type[Message] = kind
        self._fragments = 0
        self.max_frame_bytes = max_frame_bytes

    def frames(self, messages: Iterable[Message]) -> Iterator[bytes]:
        """Give serialized frames that hold the messages in their order, as few as possible.

        A message that is too large for a frame becomes fragments, each in a frame of its own. Zero `max_frame_bytes`
        means that there is no limit. Frames are made one by one: other frames may be sent in between.
        """
        limit = max(self.max_frame_bytes, LEAST_FRAME_BYTES) if self.max_frame_bytes else 0
        parts: list[bytes] = []
        size = 0
        for message in messages:
            data = message.SerializeToString()
            length = len(data)
            head = _SHORT[length] if length < 4096 else _TAG + _length(length)
            whole = len(head) + length
            if limit and size + whole > limit:
                if parts:
                    yield b"".join(parts)
                    parts, size = [], 0
                if whole > limit:
                    yield from self._fragmented(data, limit)
                    continue
            parts.append(head)
            parts.append(data)
            size += whole
        if parts:
            yield b"".join(parts)

    def _fragmented(self, data: bytes, limit: int) -> Iterator[bytes]:
        self._fragments += 1
        number = self._fragments
        pieces = fragments(data, limit - FRAGMENT_OVERHEAD)
        for index, piece in enumerate(pieces):
            message = self._kind()
            message.fragment.id = number
            message.fragment.data = piece
            message.fragment.last = index == len(pieces) - 1
            serialized = message.SerializeToString()
            yield _TAG + _length(len(serialized)) + serialized


def fragments(data: bytes, limit: int) -> list[bytes]:
    """Cut a serialized message into pieces of at most `limit` bytes; at least one."""
    return [data[start : start + limit] for start in range(0, len(data), limit)] or [b""]


class Joiner:
    """Puts the fragments of one stream and one direction together. Holds at most `max_message_bytes`."""

    def __init__(self, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._joined = bytearray()
        """Not a list: pieces may be of a few bytes each."""
        self._id = 0
        """Of the last fragment."""
        self._open = False

    def add(self, fragment: worker_pb2.Fragment) -> bytes | None:
        """Take a fragment; gives the serialized message after its last one, None before.

        Raises FrameError for a fragment of another message before the last one has come, an id that does not grow, or a
        message that is too large.
        """
        if self._open and fragment.id != self._id:
            raise FrameError(f"fragment {fragment.id} came before the last one of {self._id}")
        if not self._open and fragment.id <= self._id:
            raise FrameError(f"fragment {fragment.id} came after the last one of {self._id}: ids must grow")
        self._id = fragment.id
        self._joined += fragment.data
        if len(self._joined) > self._max_message_bytes:
            raise FrameError(
                f"the fragments {fragment.id} have more than {self._max_message_bytes} bytes, the most that is taken"
            )
        self._open = not fragment.last
        if self._open:
            return None
        whole, self._joined = bytes(self._joined), bytearray()
        return whole


def worker_messages(frame: bytes, joiner: Joiner) -> list[worker_pb2.WorkerMessage]:
    """Read a worker's frame, its fragments put together. Raises FrameError."""
    return _messages(_parsed(worker_pb2.WorkerFrame, frame).messages, worker_pb2.WorkerMessage, joiner)


def executor_messages(frame: bytes, joiner: Joiner) -> list[worker_pb2.ExecutorMessage]:
    """Read an executor's frame, its fragments put together. Raises FrameError."""
    return _messages(_parsed(worker_pb2.ExecutorFrame, frame).messages, worker_pb2.ExecutorMessage, joiner)


def _parsed(kind: type[Parsed], data: bytes) -> Parsed:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise FrameError(f"{len(data)} bytes can't be read as {kind.DESCRIPTOR.name}: {error}") from None


def _messages(messages: Iterable[Message], kind: type[Message], joiner: Joiner) -> list[Message]:
    found: list[Message] = []
    for message in messages:
        if not message.HasField("fragment"):
            found.append(message)
            continue
        whole = joiner.add(message.fragment)
        if whole is not None:
            joined = _parsed(kind, whole)
            if joined.HasField("fragment"):
                raise FrameError(f"the fragments {message.fragment.id} hold another fragment")
            found.append(joined)
    return found
