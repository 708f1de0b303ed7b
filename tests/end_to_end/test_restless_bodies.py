"""A body that does not come to rest, or does not end, costs its own run only: its worker serves the others and ends."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import pytest

from stepwire.records import RunState, StepState
from stepwire.testing import WorkerProcess
from tests.end_to_end.apps import restless
from tests.end_to_end.processes import System, until

TARGET = "tests.end_to_end.apps.restless:app"


@pytest.mark.parametrize("name", ["polls", "asks-for-nothing", "maps-nothing"])
async def test_a_body_that_polls_fails_with_its_line_while_others_go_on(tmp_path: Path, name: str):
    async with System(tmp_path, target=TARGET) as system:
        (worker,) = await system.start_workers(1)
        polling = [await system.send(f"restless/{name}", {}) for _ in range(3)]
        plain = [await system.send("restless/plain", {}) for _ in range(3)]
        assert await asyncio.gather(*map(system.result, plain)) == [1, 1, 1]
        for run in await asyncio.gather(*map(system.ended, polling)):
            assert run.failure is not None
            assert (run.state, run.failure.type, run.attempt) == (RunState.FAILED, "SpinningBodyError", 1)
            assert f"{restless.__file__}:" in run.failure.message
        assert await asyncio.to_thread(worker.stop) == 0


async def test_a_replay_of_a_body_that_polls_fails_too(tmp_path: Path):
    async with System(tmp_path, target=TARGET, settings={"session_grace": 0.5}) as system:
        (worker,) = await system.start_workers(1)
        run_id = await system.send("restless/polls", {})
        await asyncio.to_thread(worker.kill)
        await system.start_workers(1)
        run = await system.ended(run_id)
        assert run.failure is not None
        assert run.failure.type == "SpinningBodyError"


async def test_the_timeout_of_a_run_and_its_cancellation_end_a_body_that_polls(tmp_path: Path):
    async with System(tmp_path, target=TARGET) as system:
        (worker,) = await system.start_workers(1)
        run = await system.ended(await system.send("restless/polls-slowly", {}))
        assert run.failure is not None
        assert (run.state, run.failure.type) == (RunState.FAILED, "RunTimeoutError")
        cancelled = await system.send("restless/polls-slowly", {})
        assert (await system.client.cancel(cancelled, "enough")).state is RunState.CANCELLED
        assert await system.result(await system.send("restless/plain", {})) == 1
        assert await asyncio.to_thread(worker.stop) == 0


@pytest.mark.parametrize("name", ["swallows", "swallows-in-a-thread"])
async def test_a_body_that_catches_everything_is_abandoned_when_its_run_is_cancelled(tmp_path: Path, name: str):
    async with System(tmp_path, target=TARGET) as system:
        (worker,) = await system.start_workers(1)
        for _ in range(3):
            run_id = await system.send(f"restless/{name}", {})
            await until(functools.partial(has_polled, system, run_id), "a poll")
            assert (await system.client.cancel(run_id, "no longer needed")).state is RunState.CANCELLED
            assert await system.result(await system.send("restless/plain", {})) == 1
        await until(lambda: has_logged(worker, 3), "three warnings")
        assert f"{restless.__file__}:" in worker.log
        assert await asyncio.to_thread(worker.stop) == 0


@pytest.mark.parametrize("name", ["swallows", "swallows-in-a-thread"])
async def test_a_body_that_catches_everything_does_not_keep_its_worker_from_draining(tmp_path: Path, name: str):
    async with System(tmp_path, target=TARGET) as system:
        (worker,) = await system.start_workers(1)
        run_id = await system.send(f"restless/{name}", {})
        await until(functools.partial(has_polled, system, run_id), "a poll")
        assert await asyncio.to_thread(worker.stop) == 0
        assert (await system.client.get(run_id)).state is RunState.RUNNING


async def has_polled(system: System, run_id: str) -> bool:
    states = {step.key.id: step.state for step in await system.steps(run_id)}
    return states.get("poll") is StepState.SUCCEEDED and "pause" in states


async def has_logged(worker: WorkerProcess, times: int) -> bool:
    return worker.log.count("it is abandoned") == times
