"""What a worker says and hears on its streams, one after the other, whatever carries them: no threads, no gRPC."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stepwire import wire
from stepwire.frames import Framer, Joiner, executor_messages
from stepwire.visible import one_line
from stepwire.worker.outbox import Outbox
from stepwire_proto.v1 import worker_pb2

log = logging.getLogger("stepwire.worker")

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
GRACE_SHARE = 6
"""No delay is longer than one in so many parts of the grace, lest a single failure to connect costs the attempts."""
GOOD_SECONDS = 1.0
"""A stream counts as good once it has lived so long after its Welcome: the backoff begins anew."""
TOLD_AFTER = 3
"""So many streams in a row that did not are told, and then whenever there are twice as many."""
LARGEST_MESSAGE_BYTES = 64 << 20

# What an executor may say, whatever it says: see GoAway and Welcome in the contract.
LONGEST_AWAY_SECONDS = 300.0
DEFAULT_HEARTBEAT_SECONDS = 3.0
LEAST_HEARTBEAT_SECONDS, MOST_HEARTBEAT_SECONDS = 0.01, 60.0
LEAST_GRACE_SECONDS = 0.1


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


class LinkStream:
    """One stream to an address: its number in the outbox, 0 before its Welcome; how its frames are made and read."""

    def __init__(self, address: str, frame_bytes: int) -> None:
        self.address = address
        self.number = 0
        self.framer = Framer(worker_pb2.WorkerMessage, frame_bytes)
        self.joiner = Joiner(LARGEST_MESSAGE_BYTES)


class Link:
    """The session over its streams. `hear` and `pulse` are told of the executor's signs of life."""

    def __init__(
        self,
        outbox: Outbox,
        handlers: Handlers,
        hear: Callable[[], None],
        pulse: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._welcomed_at = 0.0
        self._short = 0
        """Streams in a row that were cut soon after their Welcome."""
        self._outbox = outbox
        self._handlers = handlers
        self._hear = hear
        self._pulse = pulse
        self._session = ""
        self._frame_bytes = 1 << 20
        self._failures = 0
        self._away_seconds = 0.0
        self._grace = LONGEST_DELAY_SECONDS * GRACE_SHARE

    def begin(self, address: str) -> LinkStream:
        """Begin a stream."""
        return LinkStream(address, self._frame_bytes)

    def hello(self, stream: LinkStream) -> Iterator[bytes]:
        """Give the frames to begin with."""
        hello = self._handlers.hello()
        hello.resume_session = self._session
        return stream.framer.frames([worker_pb2.WorkerMessage(hello=hello)])

    def frames(self, stream: LinkStream, batch: Iterable[worker_pb2.WorkerMessage]) -> Iterator[bytes]:
        """Give the frames of a batch that the outbox gave for this stream, after its Welcome."""
        return stream.framer.frames(batch)

    def receive(self, stream: LinkStream, frame: bytes) -> bool:
        """Take a frame; says whether it has brought the Welcome. Raises FrameError."""
        messages = executor_messages(frame, stream.joiner)
        self._hear()
        welcomed = not stream.number and bool(messages) and messages[0].HasField("welcome")
        if welcomed:
            self._welcome(stream, messages.pop(0).welcome)
        for message in messages:
            if message.HasField("go_away"):
                self._go_away(message.go_away)
        if messages and stream.number:
            self._handlers.post(self._handlers.received, stream.number, messages)
        return welcomed

    def end(self, stream: LinkStream) -> None:
        """Note that a stream has ended, whatever ended it."""
        self._outbox.shut()
        if stream.number:
            self._note_life(stream)
            self._handlers.post(self._handlers.lost, stream.number)

    def _note_life(self, stream: LinkStream) -> None:
        """Note how long a stream has lived that had its Welcome."""
        if self._clock() - self._welcomed_at >= GOOD_SECONDS:
            self._failures = self._short = 0
        elif not self._away_seconds:
            self._short += 1
            if (
                self._short >= TOLD_AFTER
                and self._short % TOLD_AFTER == 0
                and (self._short // TOLD_AFTER).bit_count() == 1
            ):
                log.warning(
                    "%d streams to %s were cut right after their Welcome: it looks like a proxy that limits the bodies "
                    "or the time of requests; a stream has neither end nor size (docs/operation.md, behind a proxy)",
                    self._short,
                    stream.address,
                )

    def delay(self) -> float:
        """Give the seconds until the next try to connect: full jitter over a backoff, or what the executor wished."""
        longest = min(LONGEST_DELAY_SECONDS, self._grace / GRACE_SHARE)
        ceiling = min(longest, FIRST_DELAY_SECONDS * 2**self._failures)
        delay = self._away_seconds + random.uniform(0, ceiling)
        self._failures = min(self._failures + 1, 20)
        self._away_seconds = 0.0
        return delay

    def _welcome(self, stream: LinkStream, welcome: worker_pb2.Welcome) -> None:
        self._session = welcome.session_id
        self._frame_bytes = welcome.limits.max_frame_bytes or self._frame_bytes
        self._welcomed_at = self._clock()
        if wire.seconds(welcome.session_grace) > 0:
            self._grace = wire.bounded_seconds(welcome.session_grace, LEAST_GRACE_SECONDS, wire.LONGEST_SECONDS)
        stream.framer.max_frame_bytes = self._frame_bytes
        stream.number = self._outbox.open(attempt.fence for attempt in welcome.unwanted_attempts)
        log.info("connected to %s%s", stream.address, ", session resumed" if welcome.resumed else "")
        self._handlers.post(self._handlers.welcomed, stream.number, welcome)
        interval = DEFAULT_HEARTBEAT_SECONDS
        if wire.seconds(welcome.heartbeat_interval) > 0:
            interval = wire.bounded_seconds(welcome.heartbeat_interval, LEAST_HEARTBEAT_SECONDS, MOST_HEARTBEAT_SECONDS)
        self._pulse(interval)

    def _go_away(self, message: worker_pb2.GoAway) -> None:
        log.info("the executor goes away: %s", one_line(message.reason))
        self._away_seconds = wire.bounded_seconds(message.reconnect_delay, 0.0, LONGEST_AWAY_SECONDS)
