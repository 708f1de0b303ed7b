"""A scripted worker: sends what a test says over a real stream, and keeps what comes back."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from stepwire.frames import FrameError, Framer, Joiner, executor_messages
from stepwire_proto.v1 import worker_pb2


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Give the metadata that shows a token."""
    return (("authorization", f"Bearer {token}"),) if token else ()


class Peer:
    """One stream. Frames are bytes, so that a test can send anything. With `reads` False it never reads."""

    def __init__(self, address: str, token: str = "", *, reads: bool = True) -> None:
        self._channel = grpc.insecure_channel(address)
        self._out: queue.Queue[bytes | None] = queue.Queue()
        self._in: queue.Queue[worker_pb2.ExecutorMessage] = queue.Queue()
        self._framer = Framer(worker_pb2.WorkerMessage)
        self.largest_frame_bytes = 0
        """Of the frames that have come."""
        connect: Any = self._channel.stream_stream("/stepwire.v1.WorkerService/Connect")
        self.call = connect(self._frames(), metadata=bearer(token))
        self.ended = threading.Event()
        self.error: Any = None
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def _frames(self) -> Iterator[bytes]:
        while (frame := self._out.get()) is not None:
            yield frame

    def _read(self) -> None:
        joiner = Joiner()
        try:
            for data in self.call:
                self.largest_frame_bytes = max(self.largest_frame_bytes, len(data))
                for message in executor_messages(data, joiner):
                    self._in.put(message)
        except (grpc.RpcError, FrameError) as error:
            self.error = error
        self.ended.set()

    @property
    def unsent(self) -> int:
        """How many frames gRPC has not taken yet."""
        return self._out.qsize()

    def frame(self, data: bytes) -> None:
        """Send raw bytes as a frame."""
        self._out.put(data)

    def send(self, **message: Any) -> None:
        """Send one message of a kind, e.g. `heartbeat=Heartbeat()`."""
        self.frame(worker_pb2.WorkerFrame(messages=[worker_pb2.WorkerMessage(**message)]).SerializeToString())

    def send_in_fragments(self, **message: Any) -> None:
        """Send one message of a kind as an SDK does: in fragments, if it is too large for a frame."""
        for frame in self._framer.frames([worker_pb2.WorkerMessage(**message)]):
            self.frame(frame)

    def hello(self, **fields: Any) -> None:
        """Send a Hello with sensible fields, but for those given."""
        sensible: dict[str, Any] = {
            "min_protocol": 1,
            "max_protocol": 1,
            "instance_id": f"peer-{id(self):x}",
            "app": "app",
            "slots": 4,
            "max_invocations": 10,
        }
        self.send(hello=worker_pb2.Hello(**{**sensible, **fields}))

    def next(self, kind: str, timeout: float = 10.0) -> Any:
        """Give the next message of a kind, its fragments put together; others are dropped."""
        while True:
            message = self._in.get(timeout=timeout)
            if message.WhichOneof("kind") == kind:
                return getattr(message, kind)

    def any(self, timeout: float) -> worker_pb2.ExecutorMessage | None:
        """Give the next message, whatever it is, its fragments put together; None if none comes in time."""
        try:
            return self._in.get(timeout=timeout)
        except queue.Empty:
            return None

    def welcome(self, **fields: Any) -> worker_pb2.Welcome:
        """Say Hello and wait for the Welcome."""
        self.hello(**fields)
        welcome = self.next("welcome")
        assert isinstance(welcome, worker_pb2.Welcome)
        return welcome

    def status(self, timeout: float = 10.0) -> tuple[grpc.StatusCode, str]:
        """Wait for the end of the stream; gives its status."""
        assert self.ended.wait(timeout), "the stream is still open"
        return self.call.code(), self.call.details()

    def close(self) -> None:
        """End the stream and the channel."""
        self._out.put(None)
        self.call.cancel()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def violations(error: grpc.RpcError) -> list[str]:
    """Give the paths of the fields that a status blames."""
    status: Any = rpc_status.from_call(error)
    paths = []
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            paths += [violation.field for violation in bad.field_violations]
    return paths


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, list[str]]:
    """Make a call that must fail; gives code, message, and the fields to blame."""
    try:
        call()
    except grpc.RpcError as error:
        status: Any = error
        return status.code(), status.details(), violations(error)
    raise AssertionError("the call was taken")


def until(reached: Callable[[], bool]) -> None:
    """Poll until something is true; a test that waits in vain ends by its own timeout."""
    while not reached():
        time.sleep(0.02)
