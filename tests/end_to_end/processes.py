"""A whole system for a test: an executor, worker processes and a client, and what can be done to them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import stepwire
from stepwire.client import Client
from stepwire.records import Run, Step, WorkerInfo, WorkerState
from stepwire.testing import ExecutorProcess, WorkerProcess
from stepwire.testing.process import ManagedProcess
from tests.end_to_end import history

ROOT = Path(__file__).parents[2]
FLOWS = "tests.end_to_end.apps.flows:app"
PATIENCE_SECONDS = 60.0


class System:
    """Use it as `async with System(tmp_path) as system:`. Everything that it started ends with it."""

    def __init__(
        self,
        folder: Path,
        *,
        target: str = FLOWS,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.target = target
        self.log = folder / "flows.log"
        self.executor = ExecutorProcess(settings=settings, folder=folder / "executor")
        self.workers: list[WorkerProcess] = []
        self.others: list[ManagedProcess] = []
        """What else was started for it, and ends with it."""
        self.outages: list[history.Outage] = []
        self._environment = {"FLOWS_LOG": str(self.log), **(environment or {})}
        self._client: Client | None = None

    @property
    def address(self) -> str:
        """Where workers and the client connect to."""
        return self.executor.address

    @property
    def client(self) -> Client:
        """A client of the executor; it survives restarts."""
        if self._client is None:
            self._client = Client(self.address, retry_for=PATIENCE_SECONDS)
        return self._client

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.executor.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()
        if error is not None:
            for process in (self.executor, *self.workers, *self.others):
                print(f"--- {process.name} {process.pid}, exit code {process.returncode}\n{process.log[-4000:]}")
        for process in (*self.workers, *self.others, self.executor):
            process.destroy()

    async def start_workers(
        self,
        count: int,
        *,
        slots: int = 8,
        address: str = "",
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> list[WorkerProcess]:
        """Start worker processes and wait until all are connected; `address` is where they are to find the executor."""
        started = []
        for _ in range(count):
            worker = WorkerProcess(
                self.target,
                address or self.address,
                slots=slots,
                path=ROOT,
                folder=self.folder,
                environment={**self._environment, **(environment or {})},
                **options,
            )
            self.workers.append(worker)
            started.append(await asyncio.to_thread(worker.start))
        await self.connected(sum(worker.running for worker in self.workers) * options.get("processes", 1))
        return started

    async def connected(self, count: int) -> list[WorkerInfo]:
        """Wait until so many workers are connected."""
        found: list[WorkerInfo] = []

        async def enough() -> bool:
            nonlocal found
            workers = await self.client.workers()
            found = [worker for worker in workers if worker.state is WorkerState.CONNECTED]
            return len(found) == count

        await until(enough, f"{count} workers are connected")
        return found

    async def kill_executor(self) -> None:
        """End the executor with SIGKILL and start it again, on the same store and port."""
        killed_at = time.time()
        await asyncio.to_thread(self.executor.kill)
        await asyncio.to_thread(self.executor.start)
        self.outages.append(history.Outage(killed_at, time.time()))

    def kill_process(self, pid: int) -> None:
        """End one of the worker processes with SIGKILL, as it is known from the history."""
        assert pid in [worker.pid for worker in self.workers], f"{pid} is not one of ours"
        os.kill(pid, signal.SIGKILL)

    async def send(self, name: str, data: Any = None, **options: Any) -> str:
        """Send an event that starts one run; gives its id."""
        receipt = await self.client.send(name, data, **options)
        (run_id,) = receipt.run_ids
        return run_id

    async def result(self, run_id: str, timeout: float = PATIENCE_SECONDS) -> Any:
        """Wait for a run's output."""
        await self.ended(run_id, timeout)
        return await self.client.result(run_id)

    async def ended(self, run_id: str, timeout: float = PATIENCE_SECONDS) -> Run:
        """Wait for a run's end, whatever it is."""
        try:
            return await self.client.wait(run_id, timeout)
        except TimeoutError:
            await self.describe(run_id)
            raise

    async def describe(self, run_id: str) -> None:
        """Print what a run that does not end waits for, and who is there."""
        print(await self.client.get(run_id))
        for cause in await self.client.why(run_id):
            print(cause)
        for step in await self.steps(run_id):
            if not step.state.ended:
                print(step)
        for worker in await self.client.workers():
            print(worker)

    async def failure(self, run_id: str) -> stepwire.Failure:
        """Wait for a run's end, which must be a failure or a cancellation."""
        run = await self.ended(run_id)
        assert run.failure is not None, f"the run has {run.state}"
        return run.failure

    async def steps(self, run_id: str) -> list[Step]:
        """Give a run's steps with everything."""
        return [step async for step in self.client.steps(run_id, outputs=True)]

    def lines(self) -> list[history.Line]:
        """Give what step code has written so far."""
        return history.read(self.log)

    def begun(self, run_id: str, step: str) -> list[history.Line]:
        """Give the beginnings of a step's attempts."""
        return history.attempts(self.lines(), run_id)[step]

    async def has_begun(self, run_id: str, step: str, times: int = 1) -> list[history.Line]:
        """Wait until a step's code has begun so many times."""
        await until(lambda: len(self.begun(run_id, step)) >= times, f"step {step} begins {times} times")
        return self.begun(run_id, step)

    def open_gate(self, name: str) -> None:
        """Let the steps go on that wait at a gate."""
        self.log.with_name(name).touch()

    async def check(self, run_id: str) -> None:
        """Hold what the run's code did against what was recorded."""
        history.check_promises(self.lines(), run_id, await self.steps(run_id), self.outages)


async def until(reached: Callable[[], Any], what: str, timeout: float = PATIENCE_SECONDS) -> None:
    """Poll until `reached`, sync or async, is true."""
    deadline = time.monotonic() + timeout
    while True:
        value = reached()
        if await value if asyncio.iscoroutine(value) else value:
            return
        assert time.monotonic() < deadline, f"after {timeout:g} s it is still not so that {what}"
        await asyncio.sleep(0.02)
