"""The worker in Rust: the kit's verdict, a fan-out shared with Python, and what comes of killing and cutting."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.kit import outcomes, run_kit
from tests.end_to_end.processes import System, until
from tests.faults.proxy import Proxy
from tests.polyglot.task_worker import TaskWorker, check_security, done_by, idle
from tools import toolchains

APP = "examples.mixed_languages:app"
CRATE = toolchains.ROOT / "examples" / "rust_worker"
NOTES = [f"The sea and the sun of day {number} " * 60 for number in range(400)]
LEAST_CASES = 78
"""How many cases of the kit are about workers that have tasks only, as far as we know."""

pytestmark = [
    pytest.mark.needs("rust"),
    pytest.mark.timeout(600),  # the first time it compiles tonic
]


def cargo(*words: str) -> str:
    """Run cargo in the crate; it must succeed. Gives what it says."""
    variables = toolchains.environment(*toolchains.rust())
    done = subprocess.run(["cargo", *words], cwd=CRATE, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"cargo {' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of its programs, compiled once."""
    cargo("build", "--locked", "--quiet", "--bins")
    return CRATE / "target" / "debug"


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    settings = {"session_grace": "3s", "heartbeat_interval": "1s"}
    async with System(tmp_path, target=APP, settings=settings) as made:
        await made.start_workers(1, slots=4)
        yield made


def test_it_compiles_without_a_warning_and_passes_its_own_tests() -> None:
    said = cargo("test", "--locked", "--quiet", "--lib")
    assert "warning" not in said, said
    assert "test result: ok. 8 passed" in said


@pytest.mark.needs("rustfmt")
def test_it_is_formatted_and_clippy_finds_nothing() -> None:
    cargo("fmt", "--check")
    cargo("clippy", "--locked", "--quiet", "--all-targets", "--", "--deny", "warnings")


def test_it_passes_every_case_that_is_about_tasks(programs: Path, tmp_path: Path) -> None:
    code, report, output = run_kit(tmp_path, "worker", "--", str(programs / "conformance"))
    found = outcomes(report)
    assert code == 0, output
    assert [case for case, outcome in found.items() if outcome == "failed"] == [], output
    assert list(found.values()).count("passed") >= LEAST_CASES


async def test_one_fan_out_is_shared_by_both_languages(system: System, programs: Path) -> None:
    async with TaskWorker(programs / "rust_worker", system.address) as worker:
        run_id = await system.send("album/arrived", {"notes": NOTES, "pictures": []})
        await finish(system, run_id)
        steps = await system.steps(run_id)
    assert 0 < sum(worker.mark in step.worker for step in steps) < len(NOTES)
    assert {step.attempt for step in steps} == {1}


async def test_what_a_killed_worker_had_in_hand_is_done_by_another(system: System, programs: Path) -> None:
    first, second = (TaskWorker(programs / "rust_worker", system.address) for _ in range(2))
    async with first, second:
        run_id = await system.send("album/arrived", {"notes": NOTES, "pictures": []})
        await until(lambda: done_by(system, run_id, first, 4), "the first has done some")
        first.kill()
        await finish(system, run_id)
        steps = await system.steps(run_id)
    kinds = {failed.failure.type for step in steps for failed in step.failed_attempts if failed.failure}
    assert kinds <= {"WorkerLostError"}


async def test_a_drained_worker_finishes_what_it_has_and_nothing_is_tried_twice(system: System, programs: Path) -> None:
    async with TaskWorker(programs / "rust_worker", system.address) as worker:
        run_id = await system.send("album/arrived", {"notes": NOTES, "pictures": []})
        await until(lambda: done_by(system, run_id, worker, 4), "it has done some")
        assert await asyncio.to_thread(worker.stop) == 0
        assert [each for each in await system.client.workers() if worker.mark in each.instance_id] == []
        await finish(system, run_id)
        steps = await system.steps(run_id)
    assert {step.attempt for step in steps} == {1}


async def test_results_of_a_lost_connection_are_sent_again(system: System, programs: Path) -> None:
    async with Proxy(system.address) as proxy:
        worker = TaskWorker(programs / "rust_worker", proxy.address, client=system.address)
        async with worker:
            run_id = await system.send("album/arrived", {"notes": NOTES, "pictures": []})
            for cut in range(1, 4):
                await until(lambda cut=cut: proxy.accepted >= cut, "it is back")
                await until(lambda done=5 * cut: done_by(system, run_id, worker, done), "it goes on")
                proxy.reset()
            await finish(system, run_id)
            steps = await system.steps(run_id)
            await until(lambda: proxy.accepted >= 4, "it is back after the last cut")
            await until(lambda: idle(system, worker), "its slots are free")
    assert {step.attempt for step in steps} == {1}, "within the grace no attempt is lost"


def test_it_shows_its_token_over_tls_and_ends_without_a_valid_one(programs: Path, tmp_path: Path) -> None:
    check_security(programs / "rust_worker", tmp_path)


async def finish(system: System, run_id: str) -> None:
    output = await system.result(run_id)
    per_note = 60 * len(NOTES)
    assert output["words"] == {"the": 2 * per_note, **dict.fromkeys(("sea", "and", "sun", "of", "day"), per_note)}
