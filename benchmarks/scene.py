"""Fresh processes to measure: an executor with a SQLite file of its own, and workers of the benchmarks' app."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwire.bench import SLOTS
from stepwire.bench.workloads import ended
from stepwire.client import Client
from stepwire.security import Security
from stepwire.testing.executor import ExecutorProcess, WorkerProcess

TARGET = "benchmarks.apps:app"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Scene:
    """Processes that run, each with its `pid`."""

    executor: ExecutorProcess
    workers: list[WorkerProcess]

    def client(self, token: str = "") -> Client:
        """Make a client of the executor."""
        return Client(self.executor.address, security=Security(token=token))


@contextmanager
def scene(workers: int = 2, slots: int = SLOTS, environment: Mapping[str, str] | None = None) -> Iterator[Scene]:
    """Start an executor and workers of one process each. Raises ProcessError if they don't start."""
    with ExitStack() as started:
        executor = started.enter_context(ExecutorProcess(environment=environment))
        yield Scene(executor, [started.enter_context(worker(executor, slots, environment)) for _ in range(workers)])


def worker(
    executor: ExecutorProcess | str,
    slots: int = SLOTS,
    environment: Mapping[str, str] | None = None,
    *,
    wait: bool = True,
) -> WorkerProcess:
    """Give a worker that is still to be started; its start waits until the executor knows it, if it is to `wait`."""
    return WorkerProcess(TARGET, executor, slots=slots, path=ROOT, environment=environment, wait=wait)


async def run(client: Client, function: str, **data: Any) -> None:
    """Start one run of a function and wait for its end. Raises StepwireError if it does not do all of its steps."""
    receipt = await client.send(f"benchmarks/{function}", data)
    await ended(client, receipt.run_ids[0], data["count"])
