"""Threads for sync user code. They are daemons: code that never ends does not keep the process from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from stepwire.errors import NoThreadError

IDLE_SECONDS = 30.0


class Threads:
    """Runs calls in threads, which are made when they are needed. `most` at once, or None for no limit.

    One that has had nothing to do for `idle_seconds` ends: what a burst needed is not kept for ever. A call must not
    raise: what it has to say is its own affair.
    """

    def __init__(self, name: str, most: int | None = None, idle_seconds: float = IDLE_SECONDS) -> None:
        self._name = name
        self._idle_seconds = idle_seconds
        self._most = most
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        """Threads that wait for a call, less the calls that wait for a thread."""

    def run(self, call: Callable[[], None]) -> None:
        """Run a call, now or when a thread is free. Raises NoThreadError if it needs a thread that can't be started."""
        with self._lock:
            self._idle -= 1
            more = self._idle < 0 and (self._most is None or self._threads < self._most)
            if more:
                self._threads += 1
                self._idle += 1
        if more:
            self._start()
        self._calls.put(call)

    def _start(self) -> None:
        try:
            threading.Thread(target=self._main, name=f"{self._name}-{self._threads}", daemon=True).start()
        except (RuntimeError, MemoryError) as refused:
            with self._lock:
                self._threads -= 1
            raise NoThreadError(
                f"no thread can be started beside {threading.active_count()} others ({refused}): "
                "raise the limit of the process or its container (pids, memory), or give the worker fewer slots"
            ) from refused

    def lend(self, more: int) -> None:
        """Allow so many more threads, or fewer: one that does not come back takes no other call's place."""
        with self._lock:
            if self._most is None:
                return
            self._most += more
            start = more > 0 and self._idle < 0
            if start:
                self._threads += 1
                self._idle += 1
        if start:
            try:
                self._start()
            except NoThreadError:  # the calls that wait go on waiting for the others
                with self._lock:
                    self._idle -= 1

    def close(self) -> None:
        """Let the threads end after what they have; running calls are not waited for."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _main(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=self._idle_seconds)
            except Empty:
                with self._lock:
                    if self._idle <= 0:  # a call is on its way
                        continue
                    self._idle -= 1
                    self._threads -= 1
                return
            if call is None:
                return
            call()
            del call  # or its values would live until the next one comes
            with self._lock:
                self._idle += 1
