"""Wide fan-outs over two workers, which are then both killed: the run goes on from its journal alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stepwire.records import StepState
from tests.end_to_end.processes import System

TARGET = "tests.end_to_end.apps.scale:app"


@pytest.mark.parametrize("count", [1_000, 10_000])
async def test_a_wide_fan_out_is_recorded_once_and_replays_after_both_workers_are_killed(tmp_path: Path, count: int):
    async with System(tmp_path, target=TARGET) as system:
        await system.start_workers(2, slots=50)
        run_id = await system.send("scale/wide", {"count": count})
        await until_waiting(system, run_id, count)
        used = {step.worker for step in await system.steps(run_id) if step.key.id == "double"}
        assert len(used) == 2
        for worker in system.workers:
            system.kill_process(worker.pid)
        for worker in system.workers:
            await asyncio.to_thread(worker.restart)
        await system.connected(2)
        await system.client.send("scale/go-on", {})
        assert await system.result(run_id) == count * (count - 1)
        steps = await system.steps(run_id)
        assert len(steps) == count + 2
        assert sorted(step.sequence for step in steps) == list(range(1, count + 3))
        assert {step.state for step in steps} == {StepState.SUCCEEDED}
        assert {step.attempt for step in steps if step.key.id == "double"} == {1}


async def until_waiting(system: System, run_id: str, count: int) -> None:
    """Wait until all steps of the fan-out are recorded and the run waits for its event."""
    while True:
        counts = (await system.client.get(run_id)).step_counts
        if counts[StepState.SUCCEEDED] == count and counts[StepState.WAITING] == 1:
            return
        await asyncio.sleep(0.1)
