"""The worker's pulse: heartbeats, and a watch over the executor's silence and the user's loop.

It has a thread of its own, which user code can't block: a blocked loop is seen, named in the log and told to the
executor, and costs no lease.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

from stepwire import places, wire
from stepwire_proto.v1 import worker_pb2

log = logging.getLogger("stepwire.worker")

LAG_SECONDS = 1.0
TICK_SECONDS = 0.5
MOST_FRAMES = 12


class Loop:
    """The user's loop, seen from outside: how late it is, and what blocks it. Made in the loop's own thread."""

    def __init__(self, post: Callable[..., None]) -> None:
        self._post = post
        self._thread = threading.get_ident()
        self._asked: float | None = None
        self._told = False

    def lag(self) -> float:
        """Give how long the loop has owed its answer, in seconds; 0 if it has answered. Asks anew then."""
        now = time.monotonic()
        if self._asked is None:
            self._told = False
            self._asked = now
            self._post(self._answer)
            return 0.0
        lag = now - self._asked
        if lag > LAG_SECONDS and not self._told:
            self._told = True
            log.warning(
                "%s has blocked the event loop for %.1f s: make the step sync, so that it gets a thread, or await\n%s",
                self.place(),
                lag,
                self.stack(),
            )
        return lag

    def stack(self) -> str:
        """Give what the loop's thread does, as text, innermost last."""
        frame = self._frame()
        return "".join(traceback.format_stack(frame)[-MOST_FRAMES:]) if frame is not None else ""

    def place(self) -> str:
        """Give where the user's code stands."""
        return places.of_thread(self._thread)

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._thread)

    def _answer(self) -> None:
        self._asked = None


class Pulse:
    """Beats until `stop`. `beat` is given heartbeats, `silent` the seconds of a silence that is too long.

    The executor answers every heartbeat: while a stream is open, something comes in every interval.
    """

    def __init__(
        self,
        loop: Loop,
        counts: Callable[[], tuple[int, int]],
        beat: Callable[[worker_pb2.WorkerMessage], None],
        silent: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._counts = counts
        self._beat = beat
        self._silent = silent
        self._nudge = threading.Event()
        self._stopping = False
        self._interval = 3.0
        self._next_beat = 0.0
        self._heard = clock()
        self._patience: float | None = None
        """How long a silence may be, in seconds; None if it does not matter."""

    def expect(self, seconds: float | None) -> None:
        """Take a silence of more than this for the other side's death from now on; None: there is no other side."""
        self._heard = self._clock()
        self._patience = seconds

    def welcome(self, interval: float) -> None:
        """Beat at least this often, in seconds, and take a silence of twice that for the executor's death."""
        self._interval = interval
        self._next_beat = 0.0
        self.expect(2 * interval)
        self._nudge.set()

    def hear(self) -> None:
        """Note that a frame has come."""
        self._heard = self._clock()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopping = True
        self._nudge.set()

    def run(self) -> None:
        """Beat: the thread's work."""
        while True:
            begun = self._clock()
            self._nudge.wait(self.tick_seconds)
            self._nudge.clear()
            if self._stopping:
                return
            self.tick(begun)

    @property
    def tick_seconds(self) -> float:
        """How long to wait before the next tick."""
        return min(self._interval / 6, TICK_SECONDS)

    def tick(self, begun: float) -> None:
        """Beat if it is time, and listen; `begun` is when the wait for this tick began."""
        self._beat_if_due(self._loop.lag())
        now = self._clock()
        if now - begun > 3 * self.tick_seconds:  # the process stood still: what has come meanwhile is not read yet
            self._heard = now
            return
        silence = now - self._heard
        if self._patience is not None and silence > self._patience:
            self.expect(None)
            self._silent(silence)

    def _beat_if_due(self, lag: float) -> None:
        now = self._clock()
        if now < self._next_beat:
            return
        self._next_beat = now + self._interval / 3
        message = worker_pb2.WorkerMessage()
        heartbeat = message.heartbeat
        heartbeat.attempts_in_hand, heartbeat.live_invocations = self._counts()
        if lag > LAG_SECONDS:
            wire.put_duration(heartbeat.loop_lag, lag)
            heartbeat.blocking_stack = self._loop.stack()
        self._beat(message)
