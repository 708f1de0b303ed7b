"""Functions that do what they should not: each gets its own clear error, and its neighbours go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepwire.records import RunState
from tests.end_to_end.processes import System

TARGET = "tests.end_to_end.apps.odd:app"


async def test_each_odd_function_gets_a_clear_error_and_the_others_go_on(tmp_path: Path):
    async with System(tmp_path, target=TARGET) as system:
        await system.start_workers(1)
        assert await system.result(await system.send("odd/no-steps", {})) == "nothing to do"
        for event, kind, words in [
            ("odd/too-many", "TooManyStepsError", "--max-steps=100000"),
            ("odd/waits-for-nothing", "ForeignAwaitError", "step.run"),
            ("odd/foreign", "ForeignAwaitError", "step.run"),
            ("odd/nested", "StepError", "by the code of step 'outer'"),
        ]:
            run = await system.ended(await system.send(event, {}))
            assert run.state is RunState.FAILED
            assert run.failure is not None
            assert (run.failure.type, run.attempt) == (kind, 1), run.failure
            assert words in str(run.failure), run.failure
        assert await system.result(await system.send("odd/no-steps", {})) == "nothing to do"


@pytest.mark.parametrize("step_id", ["🦜 \0 \n é", "x" * 1024], ids=["emoji and NUL", "1,024 bytes"])
async def test_odd_step_ids_are_fine(tmp_path: Path, step_id: str):
    async with System(tmp_path, target=TARGET) as system:
        await system.start_workers(1)
        run_id = await system.send("odd/odd-id", {"id": step_id})
        assert await system.result(run_id) == 42
        assert [step.key.id for step in await system.steps(run_id)] == [step_id]


@pytest.mark.parametrize("step_id", ["", "x" * 10_000], ids=["empty", "10 kB"])
async def test_bad_step_ids_fail_the_run_at_once(tmp_path: Path, step_id: str):
    async with System(tmp_path, target=TARGET) as system:
        await system.start_workers(1)
        run = await system.ended(await system.send("odd/odd-id", {"id": step_id}))
        assert run.failure is not None
        assert (run.failure.type, run.attempt) == ("InvalidStepError", 1)


@pytest.mark.parametrize("event", ["odd/blocks", "odd/body-blocks"])
async def test_code_that_blocks_the_loop_longer_than_any_lease_costs_nothing_but_time(tmp_path: Path, event: str):
    settings = {"heartbeat_interval": 0.5, "session_grace": 0.5}
    async with System(tmp_path, target=TARGET, settings=settings) as system:
        await system.start_workers(1)
        run_id = await system.send(event, {"seconds": 4})
        await system.result(run_id)
        assert {step.attempt for step in await system.steps(run_id)} == {1}
        run = await system.ended(run_id)
        assert run.lost_invocations == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:app", "there is no module 'no_such_module'"),
        ("tests.end_to_end.apps.odd:ap", "did you mean tests.end_to_end.apps.odd:app?"),
        ("tests.end_to_end.apps.odd:double", "not a stepwire.App"),
        ("tests.end_to_end.apps.odd", "module:app"),
        ("broken_module:app", "line 1"),
    ],
)
def test_an_app_that_can_not_be_loaded_is_named(tmp_path: Path, target: str, words: str):
    (tmp_path / "broken_module.py").write_text("def broken(:\n")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-m", "stepwire.worker", target],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
