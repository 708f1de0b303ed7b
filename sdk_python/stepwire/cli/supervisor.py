"""Child processes of `stepwire dev`: started in a group of their own, read line by line, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Sequence

MAX_LINE_BYTES = 64 * 1024
"""A log line that is longer is cut into several."""

KILL_GRACE_SECONDS = 5.0


class Child:
    """One child process. `say(name, line)` is given each line that it writes.

    It has a process group of its own, so that a Ctrl-C at the terminal reaches only us and we choose the order.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], say: Callable[[str, str], None]) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "stepwire.lifeline", module, *arguments]
        self._say = say
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it (again)."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, process_group=0, env=_environment()
        )
        self._reading = asyncio.create_task(self._read(self._process), name=f"output of {self.name}")

    async def wait(self) -> int:
        """Wait until it has ended and all that it wrote was said; give its exit code, negative for a signal."""
        assert self._process is not None
        assert self._reading is not None
        code = await self._process.wait()
        done, _ = await asyncio.wait([self._reading], timeout=1)
        if not done:
            self._reading.cancel()
        return code

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def stop(self, grace_seconds: float) -> int | None:
        """Send SIGTERM, wait, and kill what is still there; give the exit code, None if it was never started."""
        if self._process is None:
            return None
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self._process.wait()), grace_seconds)
        except TimeoutError:
            self._say(self.name, f"did not stop within {grace_seconds:g} s; killing it")
            self.kill()
        return await self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, which passes on what its own children need to know."""
        if self.is_running:
            assert self._process is not None
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process and its own children."""
        if self.is_running:
            assert self._process is not None
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(MAX_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                lines.append(rest)
                rest = b""
            for line in lines:
                self._say(self.name, line.decode(errors="replace").rstrip("\r"))
        if rest:
            self._say(self.name, rest.decode(errors="replace"))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def describe_exit(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"
