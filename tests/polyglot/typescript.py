"""Programs of sdk_typescript that serve an app, as commands."""

from __future__ import annotations

import fcntl
import subprocess
from functools import cache
from pathlib import Path

from stepwire.records import WorkerState
from stepwire.testing import CommandWorker
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


def command(name: str) -> list[str]:
    """Give the command of a program, which is built if it is stale."""
    return [str(toolchains.node()[0] / "node"), "--enable-source-maps", str(program(name))]


class TypeScriptWorker(CommandWorker):
    """A program of sdk_typescript as a worker; it counts as started once the executor knows this very process."""

    def __init__(self, name: str, executor: str, *, folder: Path | None = None) -> None:
        super().__init__(command(name), executor, folder=folder)

    def wait_ready(self, timeout: float) -> None:
        """Return once it is connected. Raises ProcessError after `timeout` seconds."""
        with self._client() as client:
            self.wait_until(
                lambda: any(
                    f"-{self.pid}-" in worker.instance_id and worker.state is WorkerState.CONNECTED
                    for worker in client.workers()
                ),
                "being connected",
                timeout,
            )
