"""Somebody else on the same executor: an honest worker and client of another app, and how long each of its runs takes.

    python -m tests.fuzz.victim ADDRESS FILE

Writes a line into the file for each run: when it was begun by the monotonic clock, how long it took, what was wrong.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import stepwire
from stepwire.testing.process import ManagedProcess
from stepwire.worker import Worker

APP = "victim"
PAUSE_SECONDS = 0.05
"""Between two runs."""
LONGEST_SECONDS = 60.0
"""A run that takes longer counts as one that does not end."""

app = stepwire.App(APP)


async def triple(n: int) -> int:
    return n * 3


@app.function("victim", trigger="victim/go")
async def victim(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    first = await step.run("first", triple, 1)
    pair = await step.map("each", triple, range(first))
    return [first, *pair]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the victim. `began` is by the monotonic clock, which all processes share."""

    began: float
    seconds: float
    wrong: str


class Victim(ManagedProcess):
    """The process; it counts as started when its first run has ended."""

    def __init__(self, address: str, folder: Path, token: str) -> None:
        super().__init__("victim", folder, {"STEPWIRE_TOKEN": token})
        self._address = address

    @property
    def _file(self) -> Path:
        return self.folder / "victim.runs"

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return [sys.executable, "-m", "tests.fuzz.victim", self._address, str(self._file)]

    def wait_ready(self, timeout: float) -> None:
        """Return once its first run has ended."""
        self.wait_until(lambda: bool(self.runs()), "its first run has ended", timeout)

    def runs(self) -> list[Run]:
        """Give its runs so far."""
        if not self._file.exists():
            return []
        lines = self._file.read_text().rpartition("\n")[0].splitlines()  # the last one may be half written
        return [Run(**json.loads(line)) for line in lines]


async def begin_runs(client: stepwire.Client, file: Path) -> None:
    """Begin one run after the other, for ever."""
    while not (await client.send("victim/go")).run_ids:  # noqa: ASYNC110 - its function is not registered
        await asyncio.sleep(PAUSE_SECONDS)
    with file.open("w", buffering=1) as lines:
        while True:
            began, wrong = time.monotonic(), ""
            try:
                receipt = await client.send("victim/go")
                (run_id,) = receipt.run_ids
                result = await client.result(run_id, LONGEST_SECONDS)
                if result != [3, 0, 3, 6]:
                    wrong = f"run {run_id} gave {result}"
            except (stepwire.StepwireError, TimeoutError, ValueError) as error:
                wrong = f"{type(error).__name__}: {error}"
            run = {"began": began, "seconds": time.monotonic() - began, "wrong": wrong}
            print(json.dumps(run), file=lines)
            await asyncio.sleep(PAUSE_SECONDS)


async def main(address: str, file: Path) -> None:
    """Serve and begin runs until SIGTERM."""
    async with stepwire.Client(address) as client, asyncio.TaskGroup() as group:
        group.create_task(Worker(app, address).run())
        group.create_task(begin_runs(client, file))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
