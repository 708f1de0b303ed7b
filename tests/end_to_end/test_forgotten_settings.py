"""A setting that is missing where a run goes on is the run's error, by its own name, and can be put right."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import stepwire
from stepwire.records import RunState
from tests.end_to_end.apps.settings import SETTING
from tests.end_to_end.processes import System, until

APP = "tests.end_to_end.apps.settings:app"
LOCKED = "tests.end_to_end.apps.settings:locked"
KEY = {"TEST_KEY": "sesame"}
PATIENT = {"TEST_RETRIES": "90"}
SETTINGS = {"session_grace": 0.5}
BODIES = ["copies", "copies-in-a-thread"]


async def waits_at_the_gate(system: System, run_id: str) -> bool:
    return "gate" in [step.key.id for step in await system.steps(run_id)]


async def moved(system: System, event: str, environment: dict[str, str], then: dict[str, str]) -> str:
    """Begin a run on one machine, and have it go on upon another one."""
    (first,) = await system.start_workers(1, environment=environment)
    run_id = await system.send(event)
    await until(lambda: waits_at_the_gate(system, run_id), "the body waits")
    await asyncio.to_thread(first.kill)
    await system.start_workers(1, environment=then)
    await system.client.send("settings/open")
    return run_id


@pytest.mark.parametrize("body", BODIES)
async def test_what_a_body_raises_in_a_replay_is_the_failure_and_is_retried(tmp_path: Path, body: str):
    async with System(tmp_path, target=APP, settings=SETTINGS) as system:
        run = await system.ended(await moved(system, f"settings/{body}", {SETTING: "b"}, {}))
        assert run.failure is not None
        assert (run.state, run.failure.type, run.failure.message) == (RunState.FAILED, "KeyError", f"'{SETTING}'")
        assert run.attempt == 3, "the body was retried by its own policy"
        assert "Raised in a replay, after entry " in run.failure.stack
        assert f"in {body.replace('-', '_')}" in run.failure.stack


@pytest.mark.parametrize("body", BODIES)
async def test_a_run_goes_on_once_the_setting_is_there(tmp_path: Path, body: str):
    async with System(tmp_path, target=APP, settings=SETTINGS) as system:
        run_id = await moved(system, f"settings/{body}", {SETTING: "b", **PATIENT}, PATIENT)
        await until(lambda: has_been_retried(system, run_id), "the body is retried")
        await asyncio.to_thread(system.workers[-1].kill)
        await system.start_workers(1, environment={SETTING: "b", **PATIENT})
        assert await system.result(run_id) == "b"


async def has_been_retried(system: System, run_id: str) -> bool:
    return (await system.client.get(run_id)).attempt > 1


async def test_results_that_a_codec_can_not_read_are_an_error_that_is_retried(tmp_path: Path):
    async with System(tmp_path, target=LOCKED, settings=SETTINGS) as system:
        run = await system.ended(await moved(system, "locked/reads", KEY, {}))
        assert run.failure is not None
        assert (run.state, run.attempt) == (RunState.FAILED, 3)
        assert "'TEST_KEY'" in str(run.failure)
        assert run.failure.type != stepwire.NonDeterminismError.__name__
