"""Where workloads are measured: an executor, fresh or somebody's, and fresh workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from stepwire.bench import SLOTS
from stepwire.bench.workloads import Figures, Workload
from stepwire.client import Client
from stepwire.security import PREFIXES, Security
from stepwire.testing.executor import ExecutorProcess, WorkerProcess

TARGET = "stepwire.bench.flows:app"


@contextmanager
def stage(executor: str, workers: int, slots: int) -> Iterator[str]:
    """Start workers, and an executor with a SQLite file of its own unless `executor` names one; gives its address.

    Raises ProcessError if they don't start.
    """
    shown = {name: value for name, value in os.environ.items() if executor and name.startswith(PREFIXES)}
    with ExitStack() as started:
        address = executor or started.enter_context(ExecutorProcess()).address
        for _ in range(workers):
            started.enter_context(WorkerProcess(TARGET, address, slots=slots, environment=shown))
        yield address


def measure(
    workloads: Sequence[Workload],
    repeats: int,
    *,
    executor: str = "",
    workers: int = 2,
    slots: int = SLOTS,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Figures]:
    """Measure workloads one after the other, each in fresh processes; what comes first only warms up.

    Raises StepwireError if a process does not start, or a run does not come to what it should.
    """
    found = []
    for workload in workloads:
        figures = Figures(workload)
        with stage(executor, workers, slots) as address:
            security = None if executor else Security()  # a fresh one asks for nothing
            asyncio.run(_measure(Client(address, security=security), figures, repeats, progress))
        found.append(figures)
    return found


async def _measure(client: Client, figures: Figures, repeats: int, progress: Callable[[str], None]) -> None:
    workload = figures.workload
    async with client:
        for _ in range(workload.times):
            await workload.measure(client)
        for number in range(1, repeats + 1):
            figures.seconds += [await workload.measure(client) for _ in range(workload.times)]
            progress(f"{workload.name}: {number} of {repeats}, {figures.rate:,.0f} steps/s")
