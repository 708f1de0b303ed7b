"""What a system is to the runner, and how its processes are started."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from stepwire.testing.process import ManagedProcess

ROOT = Path(__file__).parent.parent.parent
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
"""Python with the packages of the peers."""
HOST = "127.0.0.1"
WORKERS = 2
"""Processes that run steps, wherever a system can use several."""


@dataclass(frozen=True, slots=True)
class System:
    """One that is measured."""

    name: str
    given: str
    """What it runs on: its store and how durable that is, its processes, and what was set otherwise than by default."""
    packages: Sequence[str]
    """Those of its versions that are worth saying."""
    stage: Callable[[], AbstractContextManager[Sequence[str]]]
    """Starts it afresh; gives the command of its client, but for the workload. Raises ProcessError."""
    versions: Callable[[], Mapping[str, str]] = dict
    """Versions of what is no Python package."""
    missing: Callable[[], str] = str
    """Says why it can't be had on this machine; "" if it can."""


class Server(ManagedProcess):
    """A process of a system, which counts as started once `ready` says so of it."""

    def __init__(
        self,
        name: str,
        command: Sequence[object],
        ready: Callable[[Server], bool],
        *,
        folder: Path | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> None:
        given = {name: str(value) for name, value in (variables or {}).items()}
        super().__init__(name, folder, {"PYTHONPATH": str(ROOT), **given})
        self._command = [str(word) for word in command]
        self._ready = ready

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return self._command

    def wait_ready(self, timeout: float) -> None:
        """Return once it does its work. Raises ProcessError after `timeout` seconds."""
        self.wait_until(lambda: self._ready(self), "being ready", timeout)


def app(name: str) -> list[str]:
    """Give the command that runs one of `apps` with the packages of the peers."""
    return [str(BENCH_PYTHON), "-m", f"benchmarks.peers.apps.{name}"]


def free_ports(count: int) -> list[int]:
    """Give ports of the loopback interface on which nobody listens."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def listens(port: int) -> Callable[[object], bool]:
    """Give what says whether somebody listens on a port of the loopback interface."""

    def look(_: object) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, port)) == 0

    return look
