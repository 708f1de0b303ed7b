"""A system whose processes are forked, for tests that need many, and the runs that must end well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from stepwire.records import RunState, StepState
from stepwire.testing import WorkerProcess
from tests.end_to_end.processes import FLOWS, System, until
from tests.end_to_end.test_chaos import expected, is_right
from tests.faults.forked import ForkedExecutor, ForkedWorker
from tests.faults.tools import FaultySystem

HEARTBEAT_SECONDS = 0.5
GRACE_SECONDS = 0.5
SETTINGS = {"heartbeat_interval": HEARTBEAT_SECONDS, "session_grace": GRACE_SECONDS, "max_lost_invocations": 100}


class FastSystem(FaultySystem):
    """`FaultySystem`, forked. `before` is called in the executor's process, before anything else.

    With a `clock` the executor is a new process all the same: a clock takes effect at the start only.
    """

    def __init__(
        self,
        folder: Path,
        *,
        target: str = FLOWS,
        settings: Mapping[str, object] | None = None,
        clock: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(folder, target=target, settings={**SETTINGS, **(settings or {})}, clock=clock)
        if clock is None:
            forked = ForkedExecutor(settings=self.executor.settings, folder=folder / "executor")
            forked.before = before
            self.executor = forked
        self.wanted: dict[str, Any] = {}
        """The output that each run must have."""

    async def __aenter__(self) -> Self:
        await System.__aenter__(self)
        # At once, since several systems may begin beside each other: a client writes its history where it is made.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STEPWIRE_HISTORY", str(self.history))
            assert self.client is not None
        return self

    async def _check(self) -> None:
        await super()._check()
        assert self.database.runs.keys() >= self.wanted.keys(), "runs that were acknowledged are gone"

    async def fork_worker(self, address: str = "", *, slots: int = 8, wait: bool = True) -> WorkerProcess:
        """Start a worker, which finds the executor at `address`; by default wait until it is connected."""
        worker = ForkedWorker(
            self.target,
            address or self.executor,
            slots=slots,
            folder=self.folder,
            environment=self._environment,
            options={"drain_seconds": 5.0},
            wait=wait,
        )
        worker.asks = self.executor.address
        self.workers.append(worker)
        return await asyncio.to_thread(worker.start)

    async def launch(self, name: str, data: Any = None, output: Any = None, **options: Any) -> str:
        """Start a run that must end well, with this output or the one that is known; gives its id."""
        run_id = await self.send(f"flows/{name}", data, **options)
        self.wanted[run_id] = expected(name, data) if output is None else output
        return run_id

    async def load(self) -> None:
        """Start runs, and return while they are in the middle of their steps."""
        before = len(self.lines())
        for _ in range(3):
            await self.launch("fan-out", {"count": 40, "seconds": 0.1})
        await self.launch("flaky")
        await self.launch("clumsy-body")
        await until(lambda: len(self.lines()) > before + 30, "everybody works")

    async def all_end(self) -> None:
        """Wait until all that was launched has ended as it must."""
        for run_id, output in self.wanted.items():
            run = await self.ended(run_id)
            assert run.state is RunState.SUCCEEDED, f"{run.function} {run_id}: {run.state} {run.failure}"
            result = await self.client.result(run_id)
            assert is_right(run.function, result, output), f"{run.function} {run_id} gave {result}, not {output}"

    async def reaches(self, run_id: str, step: str, state: StepState) -> None:
        """Wait until a step is in a state."""

        async def reached() -> bool:
            states = {f"{each.key.id}:{each.key.index}": each.state for each in await self.steps(run_id)}
            return states.get(step) is state

        await until(reached, f"step {step} is {state}")
