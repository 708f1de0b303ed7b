"""A process under test: started for a case, watched, and killed with all that it started when the case is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence

from stepwire_conformance.transcript import FailedError

MOST_OUTPUT = 4000
START_SECONDS = 60.0
"""How long a process may take until it connects or listens. No rule bounds it: machines differ."""


class Process:
    """One process in a group of its own. Its output goes to a file.

    `STEPWIRE_*` variables of the surroundings do not reach it, those in `environment` do.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("STEPWIRE_")}
        self._environment = {**surroundings, "PYTHONUNBUFFERED": "1", **environment}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it. Raises FailedError if there is no such command."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._output,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise FailedError(f"{self._command[0]!r} can't be started: {error.strerror}") from None

    @property
    def output(self) -> str:
        """The end of what it has written."""
        size = os.fstat(self._output.fileno()).st_size
        start = max(0, size - MOST_OUTPUT)
        return os.pread(self._output.fileno(), MOST_OUTPUT, start).decode(errors="replace")

    def terminate(self) -> None:
        """Send SIGTERM to it."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for its end; gives the exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def destroy(self) -> None:
        """Kill it and all that it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self._output.close()
