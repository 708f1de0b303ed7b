"""Threads for sync code: as many as are needed, and no longer than they are."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from stepwire.worker.threads import Threads

NAME = "burst"


def living() -> int:
    return sum(thread.name.startswith(NAME) for thread in threading.enumerate())


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.01)


def test_what_a_burst_has_needed_ends_when_it_is_idle() -> None:
    threads, gate, done = Threads(NAME, idle_seconds=0.05), threading.Event(), threading.Semaphore(0)

    def call() -> None:
        gate.wait()
        done.release()

    for _ in range(2):  # the second time after all threads have ended
        for _ in range(20):
            threads.run(call)
        assert living() == 20
        gate.set()
        for _ in range(20):
            assert done.acquire(timeout=10)
        until(lambda: living() == 0)
        gate.clear()
    threads.close()


def test_a_call_that_comes_as_a_thread_ends_is_run() -> None:
    threads, done, dice = Threads(NAME, idle_seconds=0.002), threading.Semaphore(0), random.Random(1)
    for _ in range(1_000):
        for _ in range(dice.randrange(1, 4)):
            threads.run(done.release)
            assert done.acquire(timeout=10)
        time.sleep(dice.choice((0.0, 0.0019, 0.002, 0.0021, 0.003)))
    until(lambda: living() == 0)
    threads.close()


def test_no_more_threads_than_allowed() -> None:
    threads, gate, done = Threads(NAME, most=3), threading.Event(), threading.Semaphore(0)

    def call() -> None:
        gate.wait()
        done.release()

    for _ in range(10):
        threads.run(call)
    assert living() == 3
    gate.set()
    for _ in range(10):
        assert done.acquire(timeout=10)
    threads.close()
    until(lambda: living() == 0)
