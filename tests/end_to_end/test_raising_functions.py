"""Whatever user code raises is a recorded failure: no worker ends of it, no slot is lost, each attempt is reported."""

from __future__ import annotations

import asyncio
from pathlib import Path

from stepwire.records import RunState
from tests.end_to_end.apps.raising import ODD, STEPS
from tests.end_to_end.processes import System

TARGET = "tests.end_to_end.apps.raising:app"


async def test_whatever_is_raised_is_the_failure_of_its_run_and_the_only_slot_is_free_again(tmp_path: Path):
    async with System(tmp_path, target=TARGET) as system:
        (worker,) = await system.start_workers(1, slots=1)
        events = [(f"raise/{body}", {"what": what}) for what in ODD for body in ("body", "sync-body", "group-body")]
        events += [("raise/step", {"what": what, "where": where}) for what in ODD for where in STEPS]
        tasks = ("in_async_step", "in_sync_step")
        events += [("raise/task", {"what": what, "where": where}) for what in ODD for where in tasks]
        runs = [await system.send(name, data) for name, data in events]
        ended = await asyncio.gather(*map(system.ended, runs))
        for (name, data), run in zip(events, ended, strict=True):
            assert run.state is RunState.FAILED, (name, data)
            assert run.failure is not None
            failure = run.failure.cause if run.failure.type == "StepError" else run.failure
            assert failure is not None
            wanted = {data["what"]} | ({"ExceptionGroup"} if data["what"] in ("circle", "vast") else set())
            if name == "raise/group-body":
                wanted |= {"ExceptionGroup", "BaseExceptionGroup"}
            assert failure.type in wanted, (name, data)
        assert worker.running
