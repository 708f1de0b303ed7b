"""A process that a test owns: started, watched, and never left behind. It knows nothing of what the process does."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from stepwire import private
from stepwire.errors import StepwireError
from stepwire.testing import guard

POLL_SECONDS = 0.02
"""How often a process is looked at while something is waited for."""

_living: set[ManagedProcess] = set()


@atexit.register
def _kill_all() -> None:
    for process in list(_living):
        process.destroy()


class ProcessError(StepwireError):
    """A process of a test did not start, ended too early or did not end; the message shows the end of its output."""


class ManagedProcess:
    """One child process and what it starts itself: killed at the latest when this process ends, be it by SIGKILL.

    It is a context manager, sync and async: entering starts the process, leaving stops it. The folder `folder` holds
    what it writes; without one given it is temporary and removed by `destroy`.
    """

    def __init__(self, name: str, folder: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> None:
        self.name = name
        self._folder = None if folder is None else Path(folder)
        self._temporary = folder is None
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        raise NotImplementedError

    def wait_ready(self, timeout: float) -> None:
        """Return once the process does its work. Raises ProcessError after `timeout` seconds."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """Where its files are."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"stepwire-{self.name}-"))
            _living.add(self)
        return self._folder

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}-{id(self):x}.log"

    @property
    def pid(self) -> int:
        """The process's id. Raises ProcessError if it was never started."""
        if self._process is None:
            raise ProcessError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal's number; None while it runs or before its start."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        """Everything that the process has written to stdout and stderr, over all its starts; "" after `destroy`."""
        known = self._folder is not None and self._log.exists()
        return self._log.read_text(errors="replace") if known else ""

    def start(self, timeout: float = 30.0) -> Self:
        """Start the process and wait until it is ready. Raises ProcessError if it is not after `timeout` seconds."""
        if self.running:
            raise ProcessError(f"{self.name} runs already, as process {self.pid}")
        private.make_folders(self.folder)
        _living.add(self)
        with os.fdopen(private.open_to_append(self._log), "ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(self._environment),
                start_new_session=True,
            )
        try:
            self.wait_ready(timeout)
        except BaseException:
            self._kill_group()
            raise
        return self

    def stop(self, timeout: float = 30.0) -> int:
        """Send SIGTERM, wait for the drain to end, and return the exit code.

        Raises ProcessError, after killing it, if the process still runs after `timeout` seconds.
        """
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """Send SIGKILL, to the process alone, and wait for its end; nothing of it can be said goodbye to."""
        if self.running:
            self.signal(signal.SIGKILL)
        self.wait(30.0)

    def restart(self, timeout: float = 30.0) -> Self:
        """Start it again as it was: with the same folder and options. Kills it first if it still runs."""
        self.kill()
        return self.start(timeout)

    def signal(self, number: int) -> None:
        """Send a signal to the process, e.g. `signal.SIGSTOP`."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end of the process and return its exit code.

        Raises ProcessError, after killing it, if it still runs after `timeout` seconds.
        """
        if self._process is None:
            raise ProcessError(f"{self.name} has not been started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._kill_group()
            raise self.error(f"still ran after {timeout:g} s and was killed") from None

    def destroy(self) -> None:
        """Kill the process and all that it started, and remove the folder if it is a temporary one."""
        self._kill_group()
        if self._temporary and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        _living.discard(self)

    def error(self, what: str) -> ProcessError:
        """Make an error about the process that shows the end of its output."""
        lines = self.log.splitlines()[-40:]
        shown = "\n".join(f"  {line}" for line in lines) if lines else "  nothing"
        return ProcessError(f"{self.name} {what}; its last output was\n{shown}")

    def wait_until(self, reached: Callable[[], bool], what: str, timeout: float) -> None:
        """Poll until `reached` is true. Raises ProcessError if the process ends before, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not reached():
            if not self.running:
                raise self.error(f"ended with exit code {self.returncode} before {what}")
            if time.monotonic() > deadline:
                raise self.error(f"did not get to {what} within {timeout:g} s")
            time.sleep(POLL_SECONDS)

    def _kill_group(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _leave(self) -> None:
        try:
            if self.running:
                self.stop()
        finally:
            self.destroy()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._leave)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Give this process's environment without the variables of Stepwire, with the mark of its guard, and `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPWIRE_")}
    return {**kept, **guard.mark(), "PYTHONUNBUFFERED": "1", **extra}
