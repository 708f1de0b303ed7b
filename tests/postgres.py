"""Real PostgreSQL servers for tests: made in a temporary folder, on a free port of the loopback interface."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from stepwire.testing.process import ManagedProcess
from tools import needs

HOST = "127.0.0.1"
USER = "stepwire"
SETTINGS = {
    "listen_addresses": HOST,
    "fsync": "off",  # of the machine's crash there is no test; what a killed server has written is there all the same
    "max_connections": 40,
    "shared_buffers": "32MB",
    "restart_after_crash": "on",
    "log_min_messages": "warning",
}


@cache
def binaries() -> Path:
    """Give the folder of PostgreSQL's programs."""
    found = needs.postgresql()
    assert found, "there is no initdb of PostgreSQL: `python -m tools.needs` installs it, or says what to do"
    return Path(found)


def _as_user() -> tuple[Sequence[str], int | None]:
    """Give the words before a command of PostgreSQL, which root may not run, and the id of the user that runs it."""
    if os.geteuid() != 0:
        return (), None
    return ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"), 65534


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Cluster(ManagedProcess):
    """A server. Use it as a context manager; `stop`, `kill` and `start` keep its folder and port.

    `of` makes it a standby of another one.
    """

    def __init__(self, of: Cluster | None = None, **settings: object) -> None:
        folder = Path(tempfile.mkdtemp(prefix="stepwire-postgres-"))
        super().__init__("postgres", None, {})
        self._folder = folder
        self._settings = {**SETTINGS, **settings}
        self._of = of
        self._count = 0
        self.port = free_port()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        given = {**self._settings, "port": self.port, "unix_socket_directories": self.folder}
        flags = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        return [*_as_user()[0], str(binaries() / "postgres"), "-D", str(self.data), *flags]

    def start(self, timeout: float = 60.0) -> Cluster:
        """Make the cluster if there is none, start it, and wait until it takes connections."""
        if not self.data.exists():
            user = _as_user()[1]
            if user is not None:
                os.chown(self.folder, user, user)
            if self._of is None:
                self.run("initdb", "-D", self.data, "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
            else:
                source = ("-h", HOST, "-p", self._of.port, "-U", USER)
                self.run("pg_basebackup", *source, "-D", self.data, "-R", "-c", "fast", "--no-sync")
        super().start(timeout)
        return self

    def wait_ready(self, timeout: float) -> None:
        """Return once it takes connections."""
        words = [str(binaries() / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port)]
        self.wait_until(lambda: subprocess.run(words).returncode == 0, "taking connections", timeout)

    def run(self, program: str, *words: object) -> str:
        """Run one of PostgreSQL's programs, which must succeed; gives what it says."""
        command = [*_as_user()[0], str(binaries() / program), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def sql(self, text: str, database: str = "postgres") -> str:
        """Execute SQL; gives the rows as lines."""
        target = ("-h", HOST, "-p", self.port, "-U", USER, "-d", database)
        return self.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *target, "-c", text).strip()

    def database(self) -> str:
        """Make an empty database; gives its name."""
        self._count += 1
        name = f"test_{self._count}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def url(self, database: str) -> str:
        """Give what --store takes."""
        return f"postgresql://{USER}@{HOST}:{self.port}/{database}"

    def stop(self, timeout: float = 30.0) -> int:
        """Stop it in good order, whoever is connected."""
        self.signal(signal.SIGINT)
        return self.wait(timeout)

    def stop_at_once(self) -> int:
        """Stop it as `pg_ctl -m immediate` does: without writing anything any more."""
        self.signal(signal.SIGQUIT)
        return self.wait()

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("pg_ctl", "promote", "-w", "-D", self.data)

    def terminate_all(self) -> None:
        """Terminate the connections of all executors."""
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stepwire'")

    def destroy(self) -> None:
        """End it and remove its folder."""
        super().destroy()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
