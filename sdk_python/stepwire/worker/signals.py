"""A worker process ends when it is told to, though user code blocks its event loop.

A thread reads SIGTERM and SIGINT from Python's wakeup descriptor, which C code writes to whatever the main thread does.
The first signal drains. The drain ends at its deadline or at the second signal. The worker's loop is asked to do all of
that. If it does not answer, the thread does without it: it says Draining, gives back what is in hand, closes the stream
and ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from stepwire.worker.pulse import Loop

if TYPE_CHECKING:
    from stepwire.worker.worker import Worker

log = logging.getLogger("stepwire.worker")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TICK_SECONDS = 0.1
ANSWER_SECONDS = 0.5
"""How long the loop may take to answer; after that the thread acts without it."""
EXIT_SECONDS = 4.0
"""How long the end of the process may take after the drain: the stream's end, and what the program does at its exit."""
AGAIN_SECONDS = 0.05
LAST_RESORT_SECONDS = 8.0
"""How long the thread's own end of things may take: it writes a log line, which may block, and waits for the stream."""


class Signals:
    """Notices signals for one worker from its making on. Make it in the main thread, before the loop runs.

    `leave` ends the process at once, with an exit code.
    """

    def __init__(
        self, worker: Worker, loop: asyncio.AbstractEventLoop, leave: Callable[[int], object] = os._exit
    ) -> None:
        self._worker = worker
        self._loop = loop
        self._leave = leave
        self._seen = Loop(_nobody)
        self._read = 0
        """Signals that came through the descriptor."""
        self._handled = 0
        """Signals that Python's handler was called for: later, but also if user code took the descriptor away."""
        self._handled_at = 0.0
        """When it was called first, by the monotonic clock."""
        self._first: threading.Event | None = None
        """Set once the loop has got to the first signal; none before the thread has."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        for number in SIGNALS:
            signal.signal(number, self._handle)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        _OfChildren(self._writer, self._handle)
        threading.Thread(target=self._run, name="stepwire-signals", daemon=True).start()

    def _handle(self, _: int, __: FrameType | None) -> None:
        self._handled += 1
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:  # full of what will wake the thread as well
            return
        if self._handled == 1:
            self._handled_at = time.monotonic()
        elif self._is_blocked():
            # Code that blocks the loop may keep the interpreter's lock, too (a regular expression does), and has let
            # this handler in only: the thread needs the lock to end the process, or even to take the first signal.
            time.sleep(LAST_RESORT_SECONDS)

    def _is_blocked(self) -> bool:
        """Whether the loop has not got to the first signal, or not even the thread has, though it had the time."""
        if self._first is None:
            return time.monotonic() - self._handled_at > ANSWER_SECONDS
        return not self._first.is_set()

    @property
    def _count(self) -> int:
        return max(self._read, self._handled)

    def _listen(self, seconds: float | None) -> None:
        """Wait for something on the descriptor, for at most so many seconds."""
        if select.select([self._reader], [], [], seconds)[0]:
            self._read += sum(number in SIGNALS for number in os.read(self._reader, 4096))

    def _wait(self, seconds: float, reached: Callable[[], bool]) -> bool:
        """Wait until something is reached; False if it is not after so many seconds."""
        end = time.monotonic() + seconds
        while not reached():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._listen(min(left, TICK_SECONDS))
        return True

    def _run(self) -> None:
        while self._count == 0:
            self._listen(None)
        first = self._first = self._ask_to_drain()
        end = time.monotonic() + self._worker.drain_seconds
        self._wait(ANSWER_SECONDS, lambda: first.is_set() or self._count > 1)
        while True:
            if not first.is_set():
                self._worker.announce_drain()
            left = end - time.monotonic()
            if self._count > 1 or left <= 0:
                break
            self._listen(min(left, TICK_SECONDS))
        count = self._count
        if self._wait(ANSWER_SECONDS, self._ask_to_drain().is_set):  # a second time: this ends the drain
            self._wait(EXIT_SECONDS, lambda: self._count > max(count, 2))
        self._end()

    def _ask_to_drain(self) -> threading.Event:
        """Have the worker drain, for the second time at once; the event is set when the loop has got to it."""
        answered = threading.Event()

        def drain() -> None:
            self._worker.drain()
            answered.set()

        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended, but the process has not
            self._loop.call_soon_threadsafe(drain)
        return answered

    def _end(self) -> None:
        """End the process from here, since the main thread does not."""
        threading.Thread(target=self._leave_anyway, name="stepwire-last-resort", daemon=True).start()
        log.warning("%s keeps this worker from ending: the process ends without it", self._seen.place())
        self._worker.surrender()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._leave(0)

    def _leave_anyway(self) -> None:
        time.sleep(LAST_RESORT_SECONDS)
        self._leave(0)


class _OfChildren:
    """Gives forked children the signals of a plain program: what they get is not for this worker.

    A signal that comes before a child has let go of the worker's descriptor would drain the worker; so none comes then.
    """

    def __init__(self, descriptor: int, handler: Callable[[int, FrameType | None], None]) -> None:
        self._descriptor = descriptor
        self._handler = handler
        self._masks = threading.local()
        self._is_child = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._begin_child)

    def _hold(self) -> None:
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def _let_go(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _begin_child(self) -> None:
        if not self._is_child:
            self._is_child = True
            descriptor = signal.set_wakeup_fd(-1)
            if descriptor not in (-1, self._descriptor):  # user code has set another
                signal.set_wakeup_fd(descriptor)
            for number in SIGNALS:
                if signal.getsignal(number) == self._handler:
                    is_interrupt = number == signal.SIGINT
                    signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
        try:
            self._let_go()
        except KeyboardInterrupt:  # it came early, and what a fork's handler raises is lost: it comes again
            again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()


def _nobody(*_: object) -> None:
    """Take the place of who would be asked something: the loop's lag is the pulse's affair."""
