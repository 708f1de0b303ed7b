"""The stream to the executor, in threads of its own: user code that blocks its loop costs the worker no lease.

One thread reads, gRPC's own thread writes what the outbox has, a third one beats (`pulse.py`). It is gRPC's sync stack,
as two asyncio loops in one process slow each other down. Measured with a fan-out over one stream (grpcio 1.85, CPython
3.11, two cores; client and server on the same machine), two runs of each:

| | sync stack | grpc.aio in a thread |
|---|---|---|
| a message there and back | 311 and 464 µs | 496 and 570 µs |
| a step, 100 slots | 11 and 13 µs | 12 and 18 µs |
| a step, 1,000 slots | 8 and 9 µs | 9 and 13 µs |
| CPU time of the client | 0.6 and 0.8 s | 0.8 and 1.0 s |
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stepwire import wire
from stepwire.channel import executor_error  # before grpc: it sets what must be set before that is imported
from stepwire.errors import ExecutorError
from stepwire.frames import FrameError, Framer, Joiner, executor_messages
from stepwire.worker.outbox import Outbox
from stepwire.worker.pulse import Loop, Pulse
from stepwire_proto.v1 import worker_pb2

import grpc  # isort: skip

log = logging.getLogger("stepwire.worker")

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
WELCOME_SECONDS = 10.0
GOODBYE_SECONDS = 3.0
LARGEST_MESSAGE_BYTES = 64 << 20
FATAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""Statuses after which a worker must not connect again without a change."""
OPTIONS = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the transport tells the worker. `post` has a function called on the user's loop; so are those below it."""

    hello: Callable[[], worker_pb2.Hello]
    """Called in a thread of the transport, for each stream."""
    counts: Callable[[], tuple[int, int]]
    """Attempts in hand and live invocations; called in the pulse's thread."""
    post: Callable[..., None]
    welcomed: Callable[[int, worker_pb2.Welcome], None]
    received: Callable[[int, list[worker_pb2.ExecutorMessage]], None]
    lost: Callable[[int], None]
    ended: Callable[[Exception | None], None]
    """There will be no more streams: as asked, or because of the error."""


class Transport:
    """Keeps a stream open until `stop`. Make it in the thread of the user's loop."""

    def __init__(self, address: str, outbox: Outbox, handlers: Handlers) -> None:
        self._address = address
        self._outbox = outbox
        self._handlers = handlers
        self._stopping = threading.Event()
        self._session = ""
        self._frame_bytes = 1 << 20
        self._failures = 0
        self._away_seconds = 0.0
        self._call: Any = None
        self._silence = ""
        self._pulse = Pulse(Loop(handlers.post), handlers.counts, outbox.send_heartbeat, self._silent)

    def start(self) -> None:
        """Begin to connect."""
        threading.Thread(target=self._run, name="stepwire-transport", daemon=True).start()
        threading.Thread(target=self._pulse.run, name="stepwire-heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Write what is queued, and end the stream cleanly; it is cut if the executor does not end it in time."""
        self._stopping.set()
        self._outbox.finish()
        self._pulse.expect(GOODBYE_SECONDS)

    def cut(self) -> None:
        """End the stream at once."""
        self._stopping.set()
        self._outbox.finish()
        self._hang_up()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            while not self._stopping.is_set():
                error = self._connect()
                if error is not None or self._stopping.is_set():
                    break
                ceiling = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**self._failures)
                delay = self._away_seconds + random.uniform(0, ceiling)
                self._failures = min(self._failures + 1, 20)
                self._away_seconds = 0.0
                log.info("reconnecting to %s in %.1f s", self._address, delay)
                self._stopping.wait(delay)
        except Exception as unforeseen:  # a fault of this module; without an end the worker would hang
            error = unforeseen
        self._pulse.stop()
        self._handlers.post(self._handlers.ended, error)

    def _connect(self) -> ExecutorError | None:
        """Hold one stream until it ends; gives the error if there must be no other."""
        stream = _Stream()
        code, details = "", ""
        error: ExecutorError | None = None
        try:
            with grpc.insecure_channel(self._address, OPTIONS) as channel:
                connect: Any = channel.stream_stream("/stepwire.v1.WorkerService/Connect")
                self._pulse.expect(WELCOME_SECONDS)
                call = self._call = connect(self._frames(stream))
                if self._stopping.is_set():  # `cut` may have come too early to see the call
                    call.cancel()
                try:
                    self._read(call, stream)
                    code, details = call.code().name, call.details() or ""
                finally:
                    self._call = None
                    self._pulse.expect(None)
                    stream.welcomed.set()
                    self._outbox.shut()
                    call.cancel()
        except grpc.RpcError as status:
            refused, _ = executor_error(status, self._address)
            code, details = refused.code, str(refused)
            if status.code() in FATAL:
                message = f"the executor at {self._address} refuses this worker: {details}"
                error = ExecutorError(code, message, refused.fields)
        except FrameError as garbage:
            code, details = "INTERNAL", str(garbage)
        if stream.number:
            self._handlers.post(self._handlers.lost, stream.number)
        if error is None and not self._stopping.is_set():
            silence, self._silence = self._silence, ""
            log.warning("the stream to %s is lost: %s", self._address, silence or f"{code} {details}".rstrip())
        return error

    def _read(self, call: Any, stream: _Stream) -> None:
        joiner = Joiner(LARGEST_MESSAGE_BYTES)
        for frame in call:
            messages = executor_messages(frame, joiner)
            self._pulse.hear()
            if not stream.number and messages and messages[0].HasField("welcome"):
                self._welcome(stream, messages.pop(0).welcome)
            for message in messages:
                if message.HasField("go_away"):
                    self._go_away(message.go_away)
            if messages and stream.number:
                self._handlers.post(self._handlers.received, stream.number, messages)

    def _welcome(self, stream: _Stream, welcome: worker_pb2.Welcome) -> None:
        self._session = welcome.session_id
        self._frame_bytes = welcome.limits.max_frame_bytes or self._frame_bytes
        self._failures = 0
        stream.number = self._outbox.open(attempt.fence for attempt in welcome.unwanted_attempts)
        log.info("connected to %s%s", self._address, ", session resumed" if welcome.resumed else "")
        self._handlers.post(self._handlers.welcomed, stream.number, welcome)
        stream.welcomed.set()
        self._pulse.welcome(wire.seconds(welcome.heartbeat_interval) or 3.0)

    def _go_away(self, message: worker_pb2.GoAway) -> None:
        log.info("the executor goes away: %s", message.reason)
        self._away_seconds = wire.seconds(message.reconnect_delay)

    def _frames(self, stream: _Stream) -> Iterator[bytes]:
        """Give what is to be written; gRPC calls this in a thread of its own."""
        hello = self._handlers.hello()
        hello.resume_session = self._session
        framer = Framer(worker_pb2.WorkerMessage, self._frame_bytes)
        yield from framer.frames([worker_pb2.WorkerMessage(hello=hello)])
        stream.welcomed.wait()
        framer.max_frame_bytes = self._frame_bytes
        while stream.number and (batch := self._outbox.next_batch(stream.number)):
            yield from framer.frames(batch)

    def _silent(self, seconds: float) -> None:
        """Give a stream up from which nothing has come for too long."""
        self._silence = f"nothing has come for {seconds:.1f} s"
        self._hang_up()

    def _hang_up(self) -> None:
        call = self._call
        if call is not None:
            call.cancel()


class _Stream:
    """One stream: its number in the outbox, 0 before its Welcome; `welcomed` is set then, and when it has ended."""

    def __init__(self) -> None:
        self.number = 0
        self.welcomed = threading.Event()
