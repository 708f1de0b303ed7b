"""Fixtures for pytest, loaded by it wherever Stepwire is installed: nothing is imported before a fixture is used.

    def test_signup(stepwire_worker, stepwire_client):
        stepwire_worker(app)
        receipt = stepwire_client.send("user/signed.up", {"email": "ada@example.org"})
        assert stepwire_client.result(receipt.run_ids[0], timeout=10) == "welcome"

Each test has an executor of its own, with an empty store. In async tests use
`stepwire.Client(stepwire_executor.address)` instead of `stepwire_client`, which blocks.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from stepwire.app import App
    from stepwire.sync_client import SyncClient
    from stepwire.testing.executor import ExecutorProcess, WorkerProcess
    from stepwire.testing.worker import WorkerThread


class StartWorker(Protocol):
    """What the fixture `stepwire_worker` gives."""

    def __call__(
        self,
        app: App | str,
        *,
        slots: int = 8,
        processes: int = 1,
        path: str | os.PathLike[str] | None = None,
        **more: Any,
    ) -> WorkerThread | WorkerProcess:
        """Start a worker and return when it is connected.

        An App is served by a thread of this process, where patches and breakpoints work; "module:app" by a process of
        its own, or `processes` of them, which imports the module from `path` too. `more` goes to WorkerThread or
        WorkerProcess.
        """


@pytest.fixture
def stepwire_executor() -> Iterator[ExecutorProcess]:
    """A real executor of this test's own: on a free port, with an empty store in a temporary folder.

    It can be stopped, killed and started again; its output is shown when the test fails.
    """
    from stepwire.testing.executor import ExecutorProcess

    executor = ExecutorProcess()
    try:
        yield executor.start()
        if executor.running:
            executor.stop()
    finally:
        show(executor)
        executor.destroy()


@pytest.fixture
def stepwire_worker(stepwire_executor: ExecutorProcess) -> Iterator[StartWorker]:
    """A function that starts workers for the test's executor; they end with the test. See StartWorker."""
    with contextlib.ExitStack() as started:

        def start(
            app: App | str,
            *,
            slots: int = 8,
            processes: int = 1,
            path: str | os.PathLike[str] | None = None,
            **more: Any,
        ) -> WorkerThread | WorkerProcess:
            if not isinstance(app, str):
                from stepwire.testing.worker import WorkerThread

                if processes != 1 or path is not None:
                    raise ValueError('an App object is served by one thread: give "module:app" to start processes')
                return started.enter_context(WorkerThread(app, stepwire_executor.address, slots=slots, **more))
            from stepwire.testing.executor import WorkerProcess

            worker = WorkerProcess(app, stepwire_executor, slots=slots, processes=processes, path=path, **more)
            started.callback(worker.destroy)
            started.callback(show, worker)
            return worker.start()

        yield start


@pytest.fixture
def stepwire_client(stepwire_executor: ExecutorProcess) -> Iterator[SyncClient]:
    """A client of the test's executor, for code without asyncio."""
    from stepwire.sync_client import SyncClient

    with SyncClient(stepwire_executor.address) as client:
        yield client


def show(process: ExecutorProcess | WorkerProcess) -> None:
    """Write a process's output where pytest captures it, to be shown if the test fails."""
    if process.log:
        sys.stdout.write(f"--- output of {process.name} {process.pid}\n{process.log}")
