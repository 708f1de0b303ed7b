"""Durable Task: its Python SDK on the backend in memory that it ships."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.peers.system import HOST, WORKERS, Server, System, app, free_ports, listens


@contextmanager
def stage() -> Iterator[Sequence[str]]:
    """Start the backend and its workers."""
    [port] = free_ports(1)
    address = f"{HOST}:{port}"
    with ExitStack() as started:
        started.enter_context(Server("backend", [*app("durable_task_backend"), port], listens(port)))
        for _ in range(WORKERS):
            command = [*app("durable_task_worker"), address]
            started.enter_context(Server("worker", command, lambda worker: "started" in worker.log))
        yield [*app("durable_task_client"), address]


SYSTEM = System(
    "Durable Task",
    "**nothing is durable**: the backend that its Python SDK ships for tests, in memory, in a process of its own; "
    f"{WORKERS} worker processes; activities are plain functions, gathered by `when_all`; a client with two gRPC calls "
    "for each run",
    ["durabletask", "grpcio"],
    stage,
)
