"""Workers in TypeScript beside workers in Python: the same functions, in turn, each with an executor of its own.

python -m benchmarks.languages [--repeat N] [--json FILE]     (make bench-languages builds what it needs first)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager

from benchmarks import command
from stepwire.bench import SLOTS
from stepwire.bench.stage import stage
from stepwire.bench.workloads import WORKLOADS, Figures
from stepwire.client import Client
from stepwire.security import Security
from stepwire.testing import CommandWorker
from tools import toolchains

NAMES = ("fan-1000", "chain-3")
WORKERS = 2
PROGRAM = toolchains.ROOT / "sdk_typescript" / "build" / "bench" / "flows.js"

Found = dict[str, list[Figures]]
"""Figures of the workloads, by language."""


@contextmanager
def typescript(options: Sequence[str]) -> Iterator[str]:
    """Start an executor and workers in TypeScript, with options for node; gives the executor's address."""
    served = [str(toolchains.node()[0] / "node"), *options, str(PROGRAM)]
    with stage("", 0, SLOTS) as address, ExitStack() as started:
        for _ in range(WORKERS):
            started.enter_context(CommandWorker(served, address, environment={"SLOTS": str(SLOTS)}))
        yield address


async def measure(addresses: Mapping[str, str], repeats: int) -> Found:
    """Measure each workload in each language in turn; what comes first only warms up."""
    found = {name: [Figures(each) for each in WORKLOADS if each.name in NAMES] for name in addresses}
    async with AsyncExitStack() as connected:
        clients = {
            name: await connected.enter_async_context(Client(address, security=Security()))
            for name, address in addresses.items()
        }
        for number in range(repeats + 1):
            for name, client in clients.items():
                for figures in found[name]:
                    seconds = [await figures.workload.measure(client) for _ in range(figures.workload.times)]
                    if number:
                        figures.seconds += seconds
                        said = f"{name}, {figures.workload.name}: {figures.rate:,.0f} steps/s"
                        command.progress(f"{number} of {repeats}, {said}")
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
    parser = command.parser("languages", __doc__, 10)
    parser.add_argument("--node", action="append", default=[], metavar="OPTION", help="for node: --node=--cpu-prof")
    given = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM.relative_to(toolchains.ROOT)} has not been built: run `make typescript` first")
    with ExitStack() as started:
        scenes = {"Python": stage("", WORKERS, SLOTS), "TypeScript": typescript(given.node)}
        addresses = {name: started.enter_context(scene) for name, scene in scenes.items()}
        found = asyncio.run(measure(addresses, given.repeat))
    data = {name: {each.workload.name: each.as_data() for each in measured} for name, measured in found.items()}
    command.show(table(found), data, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
