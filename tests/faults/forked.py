"""Executors and workers forked from a process that has imported everything already: they start in a tenth of a second.

They are processes as others are: with a session, signals, files and sockets of their own. A sweep over every instant at
which one can be killed needs hundreds of them.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from stepwire.sync_client import SyncClient
from stepwire.testing import WorkerProcess
from stepwire.testing.process import ManagedProcess, environment
from tests.faults.tools import FaultyExecutor

PRELOADED = ("stepwire_executor.__main__", "stepwire_executor.server", "stepwire.worker.__main__", "stepwire.testing")
POLL_SECONDS = 0.01


@functools.cache
def server() -> Any:
    """Give the context whose processes are forked; its server starts with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


_one_at_a_time = threading.Lock()
"""multiprocessing reads a process's exit code from a pipe, once; two threads that ask would take it from each other."""


class Child:
    """What ManagedProcess needs of a process: the part of subprocess.Popen that it uses."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid = process.pid

    def poll(self) -> int | None:
        with _one_at_a_time:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired([self._process.name], timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Forked(ManagedProcess):
    """Starts by forking. `before` is called in the child, before its main function; it must be picklable."""

    main = ""
    before: Callable[[], None] | None = None

    def spawn(self) -> None:
        """Fork, and return without waiting for anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = (self.main, list(self.command)[3:], environment(self._environment), self._log, self.before)
        process = server().Process(target=enter, args=arguments, name=self.name, daemon=True)
        with _one_at_a_time:  # it looks at all other processes
            process.start()
        self._process = Child(process)  # type: ignore[assignment]

    def start(self, timeout: float = 30.0) -> Self:
        """As in ManagedProcess."""
        if self.running:
            raise self.error(f"runs already, as process {self.pid}")
        self.spawn()
        try:
            self.wait_ready(timeout)
        except BaseException:
            self._kill_group()
            raise
        return self


class ForkedExecutor(Forked, FaultyExecutor):
    """An executor, forked."""

    main = "stepwire_executor.__main__"

    def spawn(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        super().spawn()


class ForkedWorker(Forked, WorkerProcess):
    """WorkerProcess, forked. `asks` is the executor's true address, if the worker itself is given that of a proxy."""

    main = "stepwire.worker.__main__"
    asks = ""

    def start(self, timeout: float = 30.0) -> Self:
        self._mark = os.urandom(16).hex()
        return super().start(timeout)

    def wait_ready(self, timeout: float) -> None:
        if not self._wait:
            return
        with SyncClient(self.asks or self.executor) as client:
            self.wait_until(lambda: self._connected(client) == 1, "being connected", timeout)


def enter(
    main: str, arguments: Sequence[str], variables: dict[str, str], log: Path, before: Callable[[], None] | None
) -> None:
    """Be the process: the child's whole life."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(variables, GRPC_ENABLE_FORK_SUPPORT="0")
    sys.argv = [main, *arguments]
    if before is not None:
        before()
    sys.exit(sys.modules[main].main())
