"""A worker in a thread of the test's own process: what a test patches, and its debugger, reach the code of steps."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from types import TracebackType
from typing import Any, Self

from stepwire.app import App
from stepwire.errors import StepwireError
from stepwire.records import WorkerState
from stepwire.sync_client import SyncClient
from stepwire.worker import Worker

POLL_SECONDS = 0.02


class WorkerThread:
    """Serves an app from a thread with an event loop of its own; `options` are those of Worker.

    It is a context manager: entering connects it, leaving drains it for at most `drain_seconds`.
    """

    def __init__(self, app: App, executor: str, *, drain_seconds: float = 1.0, **options: Any) -> None:
        self._executor = executor
        self._drain_seconds = drain_seconds
        self._worker = Worker(app, executor, drain_seconds=drain_seconds, **options)
        self._thread = threading.Thread(target=self._run, name="stepwire-test-worker", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._error: BaseException | None = None

    @property
    def instance_id(self) -> str:
        """What the executor calls this worker."""
        return self._worker.instance_id

    def start(self, timeout: float = 30.0) -> Self:
        """Start the thread, and return when the executor knows the worker.

        Raises what the worker ended with, for example ExecutorError if it was refused, or StepwireError after `timeout`
        seconds.
        """
        self._thread.start()
        self._running.wait(timeout)
        deadline = time.monotonic() + timeout
        with SyncClient(self._executor) as client:
            while not is_connected(client, self.instance_id):
                if self._error is not None:
                    raise self._error
                if time.monotonic() > deadline:
                    raise StepwireError(f"worker {self.instance_id} did not get to {self._executor} in {timeout:g} s")
                time.sleep(POLL_SECONDS)
        return self

    def stop(self) -> None:
        """Drain the worker, and wait for its end; what has not finished by then is given back to the executor."""
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended by itself
                self._loop.call_soon_threadsafe(self._worker.drain)
        self._thread.join(self._drain_seconds + 30.0)
        if self._thread.is_alive():
            raise StepwireError(f"worker {self.instance_id} did not end {self._drain_seconds + 30:g} s after its drain")

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
            self._running.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running.set()
        await self._worker.run()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def is_connected(client: SyncClient, instance_id: str) -> bool:
    """Whether the executor knows a worker and gives it work."""
    return any(
        worker.instance_id == instance_id and worker.state is WorkerState.CONNECTED for worker in client.workers()
    )
