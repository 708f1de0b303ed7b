"""A system of several executors on one PostgreSQL database: one works, the others stand by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stepwire.testing import ExecutorProcess
from tests.end_to_end.processes import FLOWS, System, until
from tests.faults.tools import hold
from tests.histories.database import Database

TAKEOVER_SECONDS = 1.0
SETTINGS = {"takeover_after": TAKEOVER_SECONDS, "session_grace": 5, "heartbeat_interval": 1, "drain_seconds": 10}
HEALTH = health_pb2.HealthCheckResponse


class StandbySystem(System):
    """Everything is written down; when it ends without an error, that is held against the promises.

    `clocks` are the environments of executors, one for each, if their clocks are to be wrong.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        count: int = 2,
        settings: Mapping[str, object] | None = None,
        target: str = FLOWS,
        clocks: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.history = folder / "history"
        super().__init__(folder, target=target, environment={"STEPWIRE_HISTORY": str(self.history)})
        self.url = url
        own = {"history": self.history, "store": url, **SETTINGS, **(settings or {})}
        self.executors = [
            ExecutorProcess(settings=own, folder=folder / f"executor-{n}", environment=clocks[n] if clocks else None)
            for n in range(count)
        ]
        self.executor = self.executors[0]
        self.database = Database()
        """What the store held in the end."""

    @property
    def address(self) -> str:
        return ",".join(executor.address for executor in self.executors)

    async def __aenter__(self) -> Self:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STEPWIRE_HISTORY", str(self.history))
            for executor in self.executors:
                await asyncio.to_thread(executor.start)
            assert self.client is not None  # it is made here, so that it writes a history
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._check()
        except BaseException as found:
            kind, error, trace = type(found), found, found.__traceback__
            raise
        finally:
            if error is not None:
                for executor in self.executors[1:]:
                    print(
                        f"--- {executor.name} {executor.pid}, exit code {executor.returncode}\n{executor.log[-4000:]}"
                    )
            await super().__aexit__(kind, error, trace)
            for executor in self.executors:
                executor.destroy()

    async def _check(self) -> None:
        for worker in (*self.workers, *self.others):
            await asyncio.to_thread(worker.stop)
        for executor in self.executors:
            if executor.running:
                assert await asyncio.to_thread(executor.stop) == 0, executor.log
        self.database = await hold(self.history, self.url)
        assert self.database.runs, "nothing was run"

    async def active(self, other_than: ExecutorProcess | None = None) -> ExecutorProcess:
        """Wait until one of the executors works, another than is given, and give it."""
        found: list[ExecutorProcess] = []

        async def is_there() -> bool:
            others = [executor for executor in self.executors if executor is not other_than and executor.running]
            found[:] = [executor for executor in others if await serves(executor)]
            return len(found) == 1

        await until(is_there, "one executor works")
        return found[0]

    def standby(self, active: ExecutorProcess) -> ExecutorProcess:
        """Give one that does not work."""
        return next(executor for executor in self.executors if executor is not active)


async def serves(executor: ExecutorProcess) -> bool:
    """Whether an executor says that it takes work."""
    async with grpc.aio.insecure_channel(executor.address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == HEALTH.SERVING)
