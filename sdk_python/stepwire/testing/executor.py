"""A real executor and real workers as processes of a test: on a free port, with a store in a temporary folder."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from stepwire.testing.ports import HOST, HeldPort
from stepwire.testing.process import ManagedProcess, ProcessError

if TYPE_CHECKING:
    from stepwire.sync_client import SyncClient

MARK = "test-process"
"""Label by which a worker process is told from others."""


class ExecutorProcess(ManagedProcess):
    """`python -m stepwire_executor` on a free port of the loopback interface, with a SQLite store of its own.

    `settings` are the executor's: `{"session_grace": "2"}` is its flag `--session-grace 2`. The store lies in
    `folder`, or in a temporary folder; port and store stay the same over `stop`, `kill` and `restart`.
    `STEPWIRE_*` variables of the surroundings do not reach it, those in `environment` do.

        with ExecutorProcess() as executor:
            client = stepwire.Client(executor.address)
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, object] | None = None,
        folder: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("executor", folder, environment or {})
        self.settings = dict(settings or {})
        self._held = HeldPort()
        self._port = 0

    @property
    def _ready_file(self) -> Path:
        return self.folder / "ready"

    @property
    def port(self) -> int:
        """The port that it listens on. Raises ProcessError before the first start."""
        if not self._port:
            raise ProcessError("the executor has not been started: its port is not known yet")
        return self._port

    @property
    def address(self) -> str:
        """Where clients and workers find it, e.g. "127.0.0.1:40123". Raises ProcessError before the first start."""
        return f"{HOST}:{self.port}"

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        options: dict[str, object] = {
            "store": f"sqlite:///{self.folder / 'stepwire.db'}",
            "host": HOST,
            "port": self._port or self._held.number,
            "ready_file": self._ready_file,
            **self.settings,
        }
        flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        return [sys.executable, "-m", "stepwire_executor", *flags]

    def start(self, timeout: float = 30.0) -> Self:
        """Start it and wait until it takes calls. Raises ProcessError if it does not within `timeout` seconds."""
        self._ready_file.unlink(missing_ok=True)
        return super().start(timeout)

    def wait_ready(self, timeout: float) -> None:
        """Return once it takes calls. Raises ProcessError after `timeout` seconds."""
        self.wait_until(self._listens, "taking calls", timeout)

    def _listens(self) -> bool:
        if not self._ready_file.exists():
            return False
        self._port = int(self._ready_file.read_text().rpartition(":")[2])
        return True


def _address(executor: ExecutorProcess | str) -> str:
    return executor if isinstance(executor, str) else executor.address


class CommandWorker(ManagedProcess):
    """A worker in any language: a command that finds its executor by the variable STEPWIRE_EXECUTOR.

    It counts as started when the executor knows a worker that it did not know before; so start one after the other.
    """

    def __init__(
        self,
        command: Sequence[str],
        executor: ExecutorProcess | str,
        *,
        folder: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("worker", folder, environment or {})
        self._command = list(command)
        self._executor = executor
        self._known: set[str] = set()

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return self._command

    def start(self, timeout: float = 30.0) -> Self:
        """Start it and wait until it is connected. Raises ProcessError if it is not within `timeout` seconds."""
        self._environment["STEPWIRE_EXECUTOR"] = _address(self._executor)
        with self._client() as client:
            self._known = {worker.session_id for worker in client.workers()}
        return super().start(timeout)

    def wait_ready(self, timeout: float) -> None:
        """Return once a worker is connected that was not before. Raises ProcessError after `timeout` seconds."""
        with self._client() as client:
            self.wait_until(
                lambda: any(worker.session_id not in self._known for worker in client.workers()),
                "being connected",
                timeout,
            )

    def _client(self) -> SyncClient:
        from stepwire.sync_client import SyncClient

        return SyncClient(_address(self._executor))


class WorkerProcess(ManagedProcess):
    """`python -m stepwire.worker module:app`, connected to an executor.

    `target` is the app, `path` a folder to import its module from (besides this process's own `sys.path`). `options`
    are further flags: `{"drain_seconds": 1}` is `--drain-seconds 1`. It counts as started when the executor knows all
    of its `processes`; with `wait=False` that is not waited for.
    """

    def __init__(
        self,
        target: str,
        executor: ExecutorProcess | str,
        *,
        slots: int = 8,
        processes: int = 1,
        path: str | os.PathLike[str] | None = None,
        options: Mapping[str, object] | None = None,
        folder: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        folders = [os.fspath(path)] if path is not None else []
        search = os.pathsep.join([*folders, *(entry for entry in sys.path if entry)])
        super().__init__("worker", folder, {"PYTHONPATH": search, **(environment or {})})
        self.target = target
        self._executor = executor
        self._options = {"slots": slots, "processes": processes, **(options or {})}
        self._processes = processes
        self._wait = wait
        self._mark = ""

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        options = {"executor": self.executor, "label": f"{MARK}={self._mark}", **self._options}
        flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        return [sys.executable, "-m", "stepwire.worker", self.target, *flags]

    @property
    def executor(self) -> str:
        """The address of its executor."""
        return _address(self._executor)

    def start(self, timeout: float = 30.0) -> Self:
        """Start it and wait until it is connected. Raises ProcessError if it is not within `timeout` seconds."""
        self._mark = uuid.uuid4().hex
        return super().start(timeout)

    def wait_ready(self, timeout: float) -> None:
        """Return once all of its processes are connected. Raises ProcessError after `timeout` seconds."""
        if self._wait:
            from stepwire.sync_client import SyncClient

            with SyncClient(self.executor) as client:
                self.wait_until(lambda: self._connected(client) == self._processes, "being connected", timeout)

    def _connected(self, client: SyncClient) -> int:
        """Count those of its processes that the executor knows."""
        return sum(worker.labels.get(MARK) == self._mark and worker.state == "connected" for worker in client.workers())
