"""Workers in TypeScript beside workers in Python: the same functions, in turn, each with an executor of its own.

python -m benchmarks.languages [--repeat N] [--json FILE]     (make bench-languages builds what it needs first)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks import command
from stepwire.bench.stage import stage
from stepwire.bench.workloads import WORKLOADS, Figures
from stepwire.client import Client
from stepwire.security import Security
from stepwire.sync_client import SyncClient
from stepwire.testing.process import ManagedProcess
from tools import toolchains

NAMES = ("fan-1000", "chain-3")
WORKERS, SLOTS = 2, 100
PROGRAM = toolchains.ROOT / "sdk_typescript" / "build" / "bench" / "flows.js"

Found = dict[str, list[Figures]]
"""Figures of the workloads, by language."""


class TypeScriptWorker(ManagedProcess):
    """A worker that serves `sdk_typescript/bench/flows.ts`."""

    def __init__(self, executor: str) -> None:
        super().__init__("typescript-worker", None, {"STEPWIRE_EXECUTOR": executor, "SLOTS": str(SLOTS)})
        self._executor = executor

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return [str(toolchains.node()[0] / "node"), str(PROGRAM)]

    def wait_ready(self, timeout: float) -> None:
        """Return once the executor knows it."""
        with SyncClient(self._executor) as client:
            self.wait_until(
                lambda: any(f"-{self.pid}-" in each.instance_id for each in client.workers()), "connected", timeout
            )


@contextmanager
def python() -> Iterator[str]:
    """Start an executor and workers in Python; gives its address."""
    with stage("", WORKERS, SLOTS) as address:
        yield address


@contextmanager
def typescript() -> Iterator[str]:
    """Start an executor and workers in TypeScript; gives its address."""
    with stage("", 0, SLOTS) as address, ExitStack() as started:
        for _ in range(WORKERS):
            started.enter_context(TypeScriptWorker(address))
        yield address


LANGUAGES = {"Python": python, "TypeScript": typescript}


async def measure(addresses: dict[str, str], repeats: int) -> Found:
    """Measure each workload in each language in turn; what comes first only warms up."""
    found = {name: [Figures(each) for each in WORKLOADS if each.name in NAMES] for name in addresses}
    async with (
        Client(addresses["Python"], security=Security()) as first,
        Client(addresses["TypeScript"], security=Security()) as second,
    ):
        clients = {"Python": first, "TypeScript": second}
        for number in range(repeats + 1):
            for name, client in clients.items():
                for figures in found[name]:
                    seconds = [await figures.workload.measure(client) for _ in range(figures.workload.times)]
                    if number:
                        figures.seconds += seconds
                        command.progress(
                            f"{number} of {repeats}, {name}, {figures.workload.name}: {figures.rate:,.0f} steps/s"
                        )
    return found


def table(found: Found) -> str:
    """Write the languages side by side."""
    rows = []
    for name, measured in found.items():
        for figures in measured:
            low, high = figures.spread
            times = [f"{figures.percentile(share) * 1e3:,.1f} ms" for share in (0.5, 0.99)]
            rates = [f"{figures.rate:,.0f}", f"{low:,.0f} to {high:,.0f}"]
            rows.append([figures.workload.name, name, *rates, *times])
    head = ["workload", "workers in", "steps/s", "lowest to highest", "p50", "p99"]
    return command.table(head, sorted(rows, reverse=True))


def main() -> int:
    """Measure and print."""
    given = command.parser("languages", __doc__, 10).parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM.relative_to(toolchains.ROOT)} has not been built: run `make typescript` first")
    with ExitStack() as started:
        addresses = {name: started.enter_context(start()) for name, start in LANGUAGES.items()}
        found = asyncio.run(measure(addresses, given.repeat))
    data = {name: {each.workload.name: each.as_data() for each in measured} for name, measured in found.items()}
    command.show(table(found), data, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
