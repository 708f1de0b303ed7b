"""Two versions of an app, connected at the same time: a run ends in the version that began it, while that lives."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from stepwire.records import RunState
from stepwire.testing import WorkerProcess
from tests.end_to_end.processes import System, until

APP = "tests.end_to_end.apps.versions:app"


async def start(system: System, version: str) -> WorkerProcess:
    """Start a worker of a version beside those that run."""
    [worker] = await system.start_workers(1, environment={"APP_VERSION": version})
    return worker


async def begin(system: System, name: str) -> str:
    """Begin a run, and return when it waits for its event."""
    run_id = await system.send("versions/begun", {"run": name})

    async def waits() -> bool:
        return any(step.key.id == "go on" for step in await system.steps(run_id))

    await until(waits, f"run {name} waits")
    return run_id


@pytest.mark.parametrize("fault", ["none", "executor killed", "older worker cut off"])
async def test_each_version_ends_what_it_has_begun(tmp_path: Path, fault: str) -> None:
    async with System(tmp_path, target=APP, settings={"heartbeat_interval": 0.3}) as system:
        old_worker = await start(system, "1")
        old = await begin(system, "old")
        await start(system, "2")
        new = await begin(system, "new")
        if fault == "executor killed":
            await system.kill_executor()
            await system.connected(2)
        elif fault == "older worker cut off":
            old_worker.signal(signal.SIGSTOP)
            await system.connected(1)
            old_worker.signal(signal.SIGCONT)
            await system.connected(2)
        for name in ("old", "new"):
            await system.client.send("versions/went-on", {"run": name})
        assert await system.client.result(old, 30) == ["1", "1", "1"]
        assert await system.client.result(new, 30) == ["2", "2", "2"]
        newest = await begin(system, "newest")
        await system.client.send("versions/went-on", {"run": "newest"})
        assert await system.client.result(newest, 30) == ["2", "2", "2"]


async def test_a_run_whose_version_is_gone_for_good_goes_to_another_and_says_what_does_not_fit(tmp_path: Path) -> None:
    async with System(tmp_path, target=APP) as system:
        old_worker = await start(system, "1")
        old = await begin(system, "old")
        await start(system, "2")
        old_worker.stop()
        await system.client.send("versions/went-on", {"run": "old"})
        run = await system.ended(old)
        assert run.state is RunState.FAILED
        assert run.failure is not None
        assert run.failure.type == "NonDeterminismError"
        assert "begin in version 1" in run.failure.message
        assert "begin in version 2" in run.failure.message
