"""Frames and fragments, as the contract has them, for either direction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError

from stepwire_proto.v1 import worker_pb2

MAX_FRAME_BYTES = 1 << 20
OVERHEAD_BYTES = 64
"""What frame, message and fragment add to a piece, at the most."""

Message = TypeVar("Message", worker_pb2.WorkerMessage, worker_pb2.ExecutorMessage)
FRAMES: dict[type, Any] = {
    worker_pb2.WorkerMessage: worker_pb2.WorkerFrame,
    worker_pb2.ExecutorMessage: worker_pb2.ExecutorFrame,
}


class FrameError(Exception):
    """A frame or a fragment breaks the contract."""


class Framer(Generic[Message]):
    """Makes the frames of one stream and one direction."""

    def __init__(self, kind: type[Message]) -> None:
        self._kind: type[Message] = kind
        self._fragments = 0

    def frames(self, messages: Iterable[Message], fragment_bytes: int = 0, unknown: bytes = b"") -> Iterator[bytes]:
        """Give one frame with all messages, or, if one is too large or `fragment_bytes` is set, several.

        `unknown` is put before and after the messages: fields of a frame that are serialized already.
        """
        messages = list(messages)
        whole: bytes = unknown + FRAMES[self._kind](messages=messages).SerializeToString() + unknown
        if len(whole) <= MAX_FRAME_BYTES and not fragment_bytes:
            yield whole
            return
        most = fragment_bytes or MAX_FRAME_BYTES - OVERHEAD_BYTES
        for message in messages:
            if message.ByteSize() <= most and not fragment_bytes:
                yield FRAMES[self._kind](messages=[message]).SerializeToString()
                continue
            self._fragments += 1
            data = message.SerializeToString()
            for start in range(0, len(data), most):
                last = start + most >= len(data)
                part = worker_pb2.Fragment(id=self._fragments, data=data[start : start + most], last=last)
                yield FRAMES[self._kind](messages=[self._kind(fragment=part)]).SerializeToString()


class Joiner(Generic[Message]):
    """Reads the frames of one stream and one direction, and puts fragments together. `count` is of all fragments."""

    def __init__(self, kind: type[Message]) -> None:
        self._kind: type[Message] = kind
        self._pieces: list[bytes] = []
        self._id = 0
        self._open = False
        self.count = 0

    def messages(self, frame: bytes) -> list[Message]:
        """Give the messages that a frame has brought. Raises FrameError."""
        try:
            parsed = FRAMES[self._kind].FromString(frame)
        except DecodeError:
            raise FrameError(f"{len(frame)} bytes are no {FRAMES[self._kind].DESCRIPTOR.name}") from None
        if not parsed.messages:
            raise FrameError("a frame without a message")
        found: list[Message] = []
        for message in parsed.messages:
            if message.HasField("fragment"):
                whole = self._join(message.fragment)
                if whole is None:
                    continue
                message = self._kind.FromString(whole)
            if message.WhichOneof("kind") is None:
                raise FrameError("a message without a kind, or of one that this contract does not have")
            found.append(message)
        return found

    def _join(self, fragment: worker_pb2.Fragment) -> bytes | None:
        self.count += 1
        if self._open and fragment.id != self._id:
            raise FrameError(f"a fragment of message {fragment.id} before the last one of message {self._id}")
        if not self._open and fragment.id <= self._id:
            raise FrameError(f"fragments {fragment.id} after those of {self._id}: ids grow by one for each message")
        self._id, self._open = fragment.id, not fragment.last
        self._pieces.append(fragment.data)
        if self._open:
            return None
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole
