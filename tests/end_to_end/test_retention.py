"""Runs that ended long ago are removed by a real executor, while others live and new ones come."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwire.errors import ExecutorError
from stepwire.records import RunState
from tests.end_to_end.processes import System, until


async def test_ended_runs_go_and_what_lives_stays(tmp_path: Path):
    async with System(tmp_path, settings={"retention": "1s"}) as system:
        await system.start_workers(1)
        held = await system.send("flows/gates", {"gates": ["late"]})
        ended = [await system.send("flows/fan-out", {"count": 6}) for _ in range(5)]
        await system.has_begun(held, "gate:0")

        async def is_alone() -> bool:
            return [run.id async for run in system.client.list()] == [held]

        await until(is_alone, "the ended runs are removed")
        for run_id in ended:
            with pytest.raises(ExecutorError, match=f"run '{run_id}' does not exist") as refused:
                await system.client.get(run_id, steps=True)
            assert refused.value.code == "NOT_FOUND"
        with pytest.raises(ExecutorError, match="does not exist"):
            await system.client.result(ended[0])

        await system.kill_executor()
        assert (await system.client.get(held)).state is RunState.RUNNING
        system.open_gate("late")
        assert len(await system.result(held)) == 1
        await system.check(held)
        assert await system.result(await system.send("flows/fan-out", {"count": 6}))
