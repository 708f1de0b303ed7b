"""Programs of sdk_typescript that serve an app, as processes."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from stepwire.sync_client import SyncClient
from stepwire.testing.process import ManagedProcess
from tools import toolchains

PROGRAMS = toolchains.ROOT / "sdk_typescript" / "build"


@cache
def program(name: str) -> Path:
    """Give a built program, e.g. "tests/apps/fleet"; builds what is stale, in one process at a time."""
    toolchains.PLACE.mkdir(exist_ok=True)
    with (toolchains.PLACE / "typescript.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "typescript"], cwd=toolchains.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return PROGRAMS / f"{name}.js"


def node() -> str:
    """Give the program that runs JavaScript."""
    return str(toolchains.node()[0] / "node")


class TypeScriptWorker(ManagedProcess):
    """`node program.js`, connected to an executor."""

    def __init__(self, name: str, executor: str, environment: Mapping[str, str] | None = None) -> None:
        super().__init__("typescript-worker", None, {"STEPWIRE_EXECUTOR": executor, **(environment or {})})
        self._program = program(name)
        self._executor = executor

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return [node(), "--enable-source-maps", str(self._program)]

    def wait_ready(self, timeout: float) -> None:
        """Return once the executor knows it."""
        with SyncClient(self._executor) as client:
            self.wait_until(
                lambda: any(f"-{self.pid}-" in each.instance_id for each in client.workers()), "connected", timeout
            )
