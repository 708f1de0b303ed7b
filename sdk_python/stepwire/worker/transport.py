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
import threading
from collections.abc import Iterator
from typing import Any

from stepwire import forks
from stepwire.channel import (
    Addresses,
    executor_error,
    open_channel,
    unreachable,
)
from stepwire.errors import ExecutorError, StepwireError
from stepwire.frames import FrameError
from stepwire.security import Security
from stepwire.stream_grpc import grpc
from stepwire.visible import one_line
from stepwire.worker.link import LARGEST_MESSAGE_BYTES, Handlers, Link, LinkStream
from stepwire.worker.outbox import Outbox
from stepwire.worker.pulse import Loop, Pulse

log = logging.getLogger("stepwire.worker")

WELCOME_SECONDS = 10.0
GOODBYE_SECONDS = 3.0
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
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]


class Transport:
    """Keeps a stream open until `stop`. Make it in the thread of the user's loop."""

    def __init__(self, address: str, security: Security, outbox: Outbox, handlers: Handlers) -> None:
        self._addresses = Addresses(address)
        self._security = security
        self._outbox = outbox
        self._handlers = handlers
        self._stopping = threading.Event()
        self._is_cut = False
        self._call: Any = None
        self._silence = ""
        self._pulse = Pulse(Loop(handlers.post), handlers.counts, outbox.send_heartbeat, self._silent)
        self._link = Link(outbox, handlers, self._pulse.hear, self._pulse.welcome)
        self._thread = threading.Thread(target=self._run, name="stepwire-transport", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()
        threading.Thread(target=self._pulse.run, name="stepwire-heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Write what is queued, and end the stream cleanly; it is cut if the executor does not end it in time."""
        self._stopping.set()
        self._outbox.finish()
        self._pulse.expect(GOODBYE_SECONDS)

    def wind_down(self) -> None:
        """Open no further stream, and expect the Welcome of one that is being opened soon: it may be on its way."""
        self._stopping.set()
        self._pulse.expect(GOODBYE_SECONDS)

    def wait(self, seconds: float) -> None:
        """Wait until there will be no more streams, for at most so many seconds; called by other threads."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def cut(self) -> None:
        """End the stream at once."""
        self._is_cut = True
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
                delay = self._link.delay()
                log.info("reconnecting to %s in %.1f s", self._addresses.current, delay)
                self._stopping.wait(delay)
        except Exception as unforeseen:  # a fault of this module; without an end the worker would hang
            error = unforeseen
        self._pulse.stop()
        self._handlers.post(self._handlers.ended, error)

    def _connect(self) -> ExecutorError | None:
        """Hold one stream until it ends; gives the error if there must be no other."""
        address = self._addresses.current
        stream, welcomed = self._link.begin(address), threading.Event()
        code, details = "", ""
        error: ExecutorError | None = None
        try:
            metadata = self._security.metadata()
            forks.opened(for_streams=True)
            with open_channel(address, self._security, OPTIONS) as channel:
                connect: Any = channel.stream_stream("/stepwire.v1.WorkerService/Connect")
                self._pulse.expect(WELCOME_SECONDS)
                call = self._call = connect(self._frames(stream, welcomed), metadata=metadata)
                if self._is_cut:  # too early to see the call
                    call.cancel()
                try:
                    for frame in call:
                        if self._link.receive(stream, frame):
                            welcomed.set()
                    code, details = call.code().name, call.details() or ""
                finally:
                    self._call = None
                    self._pulse.expect(None)
                    welcomed.set()
                    self._link.end(stream)
                    call.cancel()
        except grpc.RpcError as status:
            refused, _ = executor_error(status, address)
            if not self._stopping.is_set():
                refused = unreachable(refused, address, self._security)
            code, details = refused.code, str(refused)
            if status.code() in FATAL:
                message = f"the executor at {address} refuses this worker: {details}"
                error = ExecutorError(code, message, refused.fields)
        except RuntimeError as starved:  # no thread can be started that writes: another time one can
            details = str(starved)
        except FrameError as garbage:
            code, details = "INTERNAL", str(garbage)
        except StepwireError as unfit:  # a file of ours that was good at the start, and may be again
            details = str(unfit)
        if error is None and not self._stopping.is_set():
            silence, self._silence = self._silence, ""
            self._addresses.leave(address)
            log.warning("the stream to %s is lost: %s", address, silence or one_line(f"{code} {details}"))
        return error

    def _frames(self, stream: LinkStream, welcomed: threading.Event) -> Iterator[bytes]:
        """Give what is to be written; gRPC calls this in a thread of its own."""
        yield from self._link.hello(stream)
        welcomed.wait()
        while stream.number and (batch := self._outbox.next_batch(stream.number)):
            yield from self._link.frames(stream, batch)

    def _silent(self, seconds: float) -> None:
        """Give a stream up from which nothing has come for too long."""
        self._silence = f"nothing has come for {seconds:.1f} s"
        self._hang_up()

    def _hang_up(self) -> None:
        call = self._call
        if call is not None:
            call.cancel()
