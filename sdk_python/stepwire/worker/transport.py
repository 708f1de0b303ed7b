"""The stream to the executor, in threads of its own: user code that blocks its loop does not cost the worker its lease.

gRPC's sync stack is used, because a second asyncio loop in the process would slow both down. One thread reads, gRPC's
own thread writes what the outbox has, one sends heartbeats and watches the user's loop.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from stepwire import wire
from stepwire.errors import ExecutorError
from stepwire.frames import FrameError, Framer, Joiner, executor_messages
from stepwire.worker.outbox import Outbox
from stepwire_proto.v1 import worker_pb2

log = logging.getLogger("stepwire.worker")

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
WELCOME_SECONDS = 10.0
LAG_SECONDS = 1.0
LARGEST_MESSAGE_BYTES = 64 << 20
FATAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}
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
    """What the transport tells the worker. `post` has a function called on the user's loop."""

    post: Callable[..., None]
    hello: Callable[[], worker_pb2.Hello]
    """Called in the transport's thread, for each stream."""
    welcomed: Callable[[int, worker_pb2.Welcome], None]
    received: Callable[[int, list[worker_pb2.ExecutorMessage]], None]
    lost: Callable[[int], None]
    ended: Callable[[ExecutorError | None], None]
    """There will be no more streams: as asked, or because the executor refuses this worker."""
    counts: Callable[[], tuple[int, int]]
    """Attempts in hand and live invocations; called in the heartbeat's thread."""


class Transport:
    """Keeps a stream open until `stop`."""

    def __init__(self, address: str, outbox: Outbox, handlers: Handlers) -> None:
        self._address = address
        self._outbox = outbox
        self._handlers = handlers
        self._stopping = threading.Event()
        self._session = ""
        self._interval = 3.0
        self._frame_bytes = 1 << 20
        self._failures = 0
        self._away_seconds = 0.0
        self._call: grpc.Call | None = None
        self._last_heard = time.monotonic()
        self._user_thread = threading.get_ident()
        self._pinged: float | None = None
        self._lag = 0.0
        self._told_of_lag = False
        self._threads = [
            threading.Thread(target=self._run, name="stepwire-transport", daemon=True),
            threading.Thread(target=self._beat, name="stepwire-heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Begin to connect; call it in the thread of the user's loop."""
        self._user_thread = threading.get_ident()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Write what is queued, and end the stream cleanly."""
        self._stopping.set()
        self._outbox.finish()

    def cut(self) -> None:
        """End the stream at once."""
        self._stopping.set()
        self._outbox.finish()
        call = self._call
        if call is not None:
            call.cancel()

    def _run(self) -> None:
        error = None
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
        self._stopping.set()
        self._handlers.post(self._handlers.ended, error)

    def _connect(self) -> ExecutorError | None:
        """Hold one stream until it ends; gives the error if there must be no other."""
        stream = 0
        try:
            with grpc.insecure_channel(self._address, OPTIONS) as channel:
                connect: Any = channel.stream_stream(
                    "/stepwire.v1.WorkerService/Connect",
                )
                greeted = _Welcomed()
                self._last_heard = time.monotonic()
                call = self._call = connect(self._frames(greeted))
                if self._stopping.is_set():
                    call.cancel()
                joiner = Joiner(LARGEST_MESSAGE_BYTES)
                try:
                    for frame in call:
                        self._last_heard = time.monotonic()
                        messages = executor_messages(frame, joiner)
                        if not stream and messages and messages[0].HasField("welcome"):
                            stream = self._welcome(messages.pop(0).welcome)
                            greeted.set(stream)
                        for message in messages:
                            if message.HasField("go_away"):
                                self._go_away(message.go_away)
                        if messages and stream:
                            self._handlers.post(self._handlers.received, stream, messages)
                    code, details = call.code(), call.details() or ""
                finally:
                    self._call = None
                    greeted.set(0)
                    self._outbox.shut()
                    call.cancel()
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
        except FrameError as error:
            code, details = grpc.StatusCode.INTERNAL, str(error)
        if stream:
            self._handlers.post(self._handlers.lost, stream)
        if code in FATAL:
            return ExecutorError(code.name, f"the executor at {self._address} refuses this worker: {details}")
        if not self._stopping.is_set():
            log.warning("the stream to %s is lost: %s %s", self._address, getattr(code, "name", code), details)
        return None

    def _welcome(self, welcome: worker_pb2.Welcome) -> int:
        self._session = welcome.session_id
        self._interval = wire.seconds(welcome.heartbeat_interval) or 3.0
        self._frame_bytes = welcome.limits.max_frame_bytes or self._frame_bytes
        self._failures = 0
        stream = self._outbox.open(attempt.fence for attempt in welcome.unwanted_attempts)
        log.info("connected to %s%s", self._address, ", session resumed" if welcome.resumed else "")
        self._handlers.post(self._handlers.welcomed, stream, welcome)
        return stream

    def _go_away(self, message: worker_pb2.GoAway) -> None:
        log.info("the executor goes away: %s", message.reason)
        self._away_seconds = wire.seconds(message.reconnect_delay)

    def _frames(self, greeted: _Welcomed) -> Iterator[bytes]:
        """Give what is to be written; gRPC calls this in a thread of its own."""
        hello = self._handlers.hello()
        hello.resume_session = self._session
        framer = Framer(worker_pb2.WorkerMessage, self._frame_bytes)
        yield from framer.frames([worker_pb2.WorkerMessage(hello=hello)])
        stream = greeted.wait()
        framer.max_frame_bytes = self._frame_bytes
        while stream and (batch := self._outbox.next_batch(stream)):
            yield from framer.frames(batch)

    def _beat(self) -> None:
        while not self._stopping.wait(min(self._interval / 3, LAG_SECONDS / 2)):
            self._measure_lag()
            heartbeat = worker_pb2.Heartbeat()
            heartbeat.attempts_in_hand, heartbeat.live_invocations = self._handlers.counts()
            if self._lag > LAG_SECONDS:
                wire.put_duration(heartbeat.loop_lag, self._lag)
                heartbeat.blocking_stack = self._stack()
            self._outbox.send_heartbeat(worker_pb2.WorkerMessage(heartbeat=heartbeat))
            silence = time.monotonic() - self._last_heard
            call = self._call
            if call is not None and silence > max(2 * self._interval, WELCOME_SECONDS) and not self._outbox.stream:
                log.warning("no Welcome from %s for %.0f s", self._address, silence)
                call.cancel()

    def _measure_lag(self) -> None:
        """Ask the user's loop for an answer, and see how long it owes the one before."""
        now = time.monotonic()
        if self._pinged is None:
            self._lag = 0.0
            self._told_of_lag = False
            self._pinged = now
            self._handlers.post(self._answered)
            return
        self._lag = now - self._pinged
        if self._lag > LAG_SECONDS and not self._told_of_lag:
            self._told_of_lag = True
            log.warning(
                "step code has blocked the event loop for %.1f s: make it sync, so that it gets a thread, or await\n%s",
                self._lag,
                self._stack(),
            )

    def _answered(self) -> None:
        self._pinged = None

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._user_thread)
        return "".join(traceback.format_stack(frame)[-12:]) if frame is not None else ""


class _Welcomed:
    """The number of a stream, once its Welcome has come; 0 if it ended before."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._stream = 0

    def set(self, stream: int) -> None:
        if not self._known.is_set():
            self._stream = stream
            self._known.set()

    def wait(self) -> int:
        self._known.wait()
        return self._stream
