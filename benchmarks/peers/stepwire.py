"""Stepwire as it is measured beside its peers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.peers.system import ROOT, WORKERS, System
from stepwire.bench import SLOTS
from stepwire.testing.executor import ExecutorProcess, WorkerProcess

APPS = "benchmarks.peers.apps"


@contextmanager
def stage() -> Iterator[Sequence[str]]:
    """Start an executor and its workers."""
    with ExitStack() as started:
        executor = started.enter_context(ExecutorProcess())
        for _ in range(WORKERS):
            started.enter_context(WorkerProcess(f"{APPS}.stepwire_app:app", executor, slots=SLOTS, path=ROOT))
        yield [sys.executable, "-m", f"{APPS}.stepwire_client", executor.address]


SYSTEM = System(
    "Stepwire",
    f"an executor on a SQLite file (WAL, `synchronous=FULL`), {WORKERS} worker processes with {SLOTS} slots each; "
    "a client that sends an event and waits for each run: the sends of one turn go in one call, waits over one stream",
    ["stepwire", "grpcio"],
    stage,
)
