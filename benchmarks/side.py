"""One side of `benchmarks.pairs`: a system of the checkout that PYTHONPATH names, which does workloads when told to.

It is run by its path, so that it is there for checkouts that don't have it, and uses nothing but their SDK. It writes
the ids of its processes as a line of JSON; then, for each line like ["fan-100", 6] on its standard input, a line with
the seconds that each of so many times took. An empty line ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import ExitStack

from stepwire.bench.stage import TARGET
from stepwire.bench.workloads import WORKLOADS
from stepwire.client import Client
from stepwire.security import Security
from stepwire.testing.executor import ExecutorProcess, WorkerProcess

WORKERS, SLOTS = 2, 250


def tell(value: object) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def serve(address: str) -> None:
    """Do what the lines ask for."""
    known = {workload.name: workload for workload in WORKLOADS}
    async with Client(address, security=Security()) as client:
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            name, times = json.loads(line)
            tell([await known[name].measure(client) for _ in range(times)])


def main() -> None:
    """Start an executor and workers, and serve."""
    own = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    with ExitStack() as started:
        executor = started.enter_context(ExecutorProcess(environment=own))
        workers = [WorkerProcess(TARGET, executor, slots=SLOTS, environment=own) for _ in range(WORKERS)]
        tell([os.getpid(), executor.pid, *[started.enter_context(worker).pid for worker in workers]])
        asyncio.run(serve(executor.address))


if __name__ == "__main__":
    main()
