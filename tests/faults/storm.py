"""Many workers in one process, each with a stream of its own: what many machines are to an executor.

`python -m tests.faults.storm ADDRESS COUNT SLOTS` serves the app of the end-to-end tests until SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from stepwire.testing.process import ManagedProcess
from stepwire.worker import Worker, logs
from tests.end_to_end.apps.flows import app

ROOT = Path(__file__).parents[2]


class Storm(ManagedProcess):
    """The process. That its workers are connected is for the test to await."""

    def __init__(self, address: str, count: int, *, slots: int, folder: Path, environment: dict[str, str]) -> None:
        path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
        super().__init__("storm", folder, {"PYTHONPATH": path, **environment})
        self._arguments = [address, str(count), str(slots)]

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return [sys.executable, "-m", "tests.faults.storm", *self._arguments]

    def wait_ready(self, timeout: float) -> None:
        """Return at once."""


async def serve(address: str, count: int, slots: int) -> None:
    """Serve until SIGTERM has drained all of them."""
    workers = [Worker(app, address, slots=slots, instance_id=f"crowd-{number}") for number in range(count)]

    def drain() -> None:
        for worker in workers:
            worker.drain()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drain)
    await asyncio.gather(*[worker.run() for worker in workers])


if __name__ == "__main__":
    logs.set_up("info", as_json=False)
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
