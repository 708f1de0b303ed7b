"""One app that Python and TypeScript workers serve at once: each function by one language, tasks by both."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stepwire.records import StepState
from stepwire.testing import CommandWorker, WorkerProcess
from stepwire.testing.process import ManagedProcess
from tests.end_to_end.processes import ROOT, System, until
from tests.polyglot import typescript

APP = "tests.polyglot.fleet:app"
COUNT = 1_000
SLOTS = 16
"""Of each worker."""
SUM = sum(n * n for n in range(COUNT))


class Fleet:
    """A worker of each language, by its name."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.serving: dict[str, ManagedProcess] = {}
        self.workers: list[ManagedProcess] = []
        """All that were ever started; they end with the test."""

    async def start(self, language: str) -> None:
        if language == "python":
            worker: ManagedProcess = WorkerProcess(APP, self.system.address, slots=SLOTS, path=ROOT)
        else:
            worker = CommandWorker(typescript.command("tests/apps/fleet"), self.system.address)
        self.workers.append(worker)
        self.serving[language] = await asyncio.to_thread(worker.start)

    async def begin_half(self, language: str, gate: Path) -> str:
        """Begin a run whose first half is done, and whose second waits at a gate, with all slots taken."""
        run_id = await self.system.send(f"fleet/from-{language}", {"count": COUNT, "gate": str(gate)})

        async def waits() -> bool:
            workers = await self.system.client.workers()
            steps = await self.system.steps(run_id)
            done = sum(step.state is StepState.SUCCEEDED for step in steps)
            return done == COUNT // 2 and all(worker.slots_taken == SLOTS for worker in workers)

        await until(waits, "half of the steps are done, and all slots are taken")
        return run_id


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    settings = {"heartbeat_interval": 0.3, "session_grace": 1}
    async with System(tmp_path, settings=settings) as system:
        fleet = Fleet(system)
        try:
            for language in ("python", "typescript"):
                await fleet.start(language)
            yield fleet
        finally:
            for worker in fleet.workers:
                worker.destroy()


@pytest.mark.parametrize("language", ["python", "typescript"])
async def test_a_fan_out_is_spread_over_both_languages(fleet: Fleet, tmp_path: Path, language: str) -> None:
    gate = tmp_path / "gate"
    run_id = await fleet.begin_half(language, gate)
    gate.touch()
    output = await fleet.system.result(run_id)
    assert output["sum"] == SUM
    shares = {name: output["by"].count(name) for name in fleet.serving}
    assert sum(shares.values()) == COUNT
    assert min(shares.values()) >= SLOTS, "as many waited at the gate in each"


@pytest.mark.parametrize("killed", ["python", "typescript"])
@pytest.mark.parametrize("language", ["python", "typescript"])
async def test_a_fan_out_survives_the_death_of_either_in_the_middle(
    fleet: Fleet, tmp_path: Path, language: str, killed: str
) -> None:
    gate = tmp_path / "gate"
    run_id = await fleet.begin_half(language, gate)
    fleet.serving[killed].signal(signal.SIGKILL)
    gate.touch()
    if killed == language:  # nobody else has the function's code
        await fleet.start(killed)
    output = await fleet.system.result(run_id)
    assert output["sum"] == SUM
    steps = await fleet.system.steps(run_id)
    assert {step.state for step in steps} == {StepState.SUCCEEDED}
    assert len(steps) == COUNT + 1
    assert {step.attempt for step in steps} == {1, 2}, "what ran in the worker that was killed is tried once more"


@pytest.mark.parametrize("drained", ["python", "typescript"])
async def test_a_drain_in_the_middle_costs_no_attempt(fleet: Fleet, tmp_path: Path, drained: str) -> None:
    gate = tmp_path / "gate"
    (language,) = fleet.serving.keys() - {drained}
    run_id = await fleet.begin_half(language, gate)
    fleet.serving[drained].signal(signal.SIGTERM)
    # How many it has in hand is its own view: some may be on their way, or their results not yet acknowledged.
    await until(lambda: "draining: " in fleet.serving[drained].log, "it drains")
    gate.touch()
    assert await asyncio.to_thread(fleet.serving[drained].wait) == 0
    output = await fleet.system.result(run_id)
    assert output["sum"] == SUM
    assert {step.attempt for step in await fleet.system.steps(run_id)} == {1}
