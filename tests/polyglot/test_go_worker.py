"""The worker in Go beside one in Python: a fan-out over both, and what comes of killing, draining, cutting off Go's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stepwire_executor.settings import Settings
from tests.end_to_end.processes import System, until
from tests.faults.proxy import Proxy
from tests.polyglot.go_worker import MODULE, picture, run_go, size_of
from tests.polyglot.task_worker import TaskWorker, check_security, done_by, idle
from tools import clients

APP = "examples.mixed_languages:app"
PICTURES = 40

pytestmark = [
    pytest.mark.needs("go"),
    pytest.mark.timeout(400),  # the first time Go compiles gRPC and its own library
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker, compiled once."""
    made = tmp_path_factory.mktemp("go") / "go_worker"
    run_go("build", "-o", str(made), ".")
    return made


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    settings = {"session_grace": "3s", "heartbeat_interval": "1s"}
    async with System(tmp_path, target=APP, settings=settings) as made:
        await made.start_workers(1, slots=4)
        yield made


def test_the_module_is_formatted_vetted_and_passes_its_own_tests() -> None:
    files = [str(file.relative_to(MODULE)) for file in MODULE.rglob("*.go") if "gen" not in file.parts]
    assert run_go("-l", *files, program="gofmt") == ""
    run_go("vet", "./...")
    run_go("test", "./...")


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    clients.generate("go", tmp_path, "stepwire.example/go_worker/gen/go")
    fresh, committed = (
        {file.relative_to(at): file.read_text() for file in at.rglob("*.go")}
        for at in (tmp_path / "gen", MODULE / "gen")
    )
    assert fresh == committed, (
        "run: python tools/clients.py go examples/go_worker --go-package stepwire.example/go_worker/gen/go"
    )


async def test_one_fan_out_is_shared_by_both_languages(system: System, program: Path) -> None:
    notes = [f"The sea and the sun of day {number}" for number in range(300)]
    pictures = [picture(90, 60, seed) for seed in range(3)]
    async with TaskWorker(program, system.address) as worker:
        run_id = await system.send("album/arrived", {"notes": notes, "pictures": pictures})
        output = await system.result(run_id)
        steps = await system.steps(run_id)

    assert output["words"] == {"the": 600, **dict.fromkeys(("sea", "and", "sun", "of", "day"), 300)}
    assert [each["sha256"] for each in output["pictures"]] == [
        hashlib.sha256(base64.b64decode(each)).hexdigest() for each in pictures
    ]
    assert [size_of(each["thumbnail"]) for each in output["pictures"]] == [(64, 42)] * 3
    by_go = Counter(step.target for step in steps if worker.mark in step.worker)
    assert 0 < by_go["word-count"] < len(notes)
    assert by_go["resize-image"] == len(pictures)
    assert {step.attempt for step in steps} == {1}


async def test_large_values_go_both_ways_in_fragments(system: System, program: Path) -> None:
    large = picture(420, 420)
    async with TaskWorker(program, system.address):
        run_id = await system.send("album/arrived", {"notes": [], "pictures": [large], "width": 900})
        (result,) = (await system.result(run_id))["pictures"]
    assert size_of(result["thumbnail"]) == (900, 900)
    assert len(base64.b64decode(result["thumbnail"])) > Settings().max_frame_bytes


async def test_a_failure_in_go_names_its_kind_and_is_not_tried_again(system: System, program: Path) -> None:
    async with TaskWorker(program, system.address):
        failure = await system.failure(
            await system.send("album/arrived", {"notes": [], "pictures": ["bm8gcGljdHVyZQ=="]})
        )
    assert "10 bytes are no picture" in failure.message
    assert failure.cause is None or failure.cause.type == "NotAPicture"


async def test_what_a_killed_worker_had_in_hand_is_done_by_another(system: System, program: Path) -> None:
    first, second = (TaskWorker(program, system.address) for _ in range(2))
    async with first, second:
        run_id = await send_work(system)
        await until(lambda: done_by(system, run_id, first, 4), "the first has done some")
        first.kill()
        await finish(system, run_id)
        steps = await system.steps(run_id)
    lost = [step for step in steps if step.failed_attempts]
    assert lost, "it had nothing in hand when it was killed"
    assert {failed.failure.type for step in lost for failed in step.failed_attempts if failed.failure} == {
        "WorkerLostError"
    }
    assert any(second.mark in step.worker for step in lost)


async def test_a_drained_worker_finishes_what_it_has_and_nothing_is_tried_twice(system: System, program: Path) -> None:
    first, second = (TaskWorker(program, system.address) for _ in range(2))
    async with first, second:
        run_id = await send_work(system)
        await until(lambda: done_by(system, run_id, first, 4), "the first has done some")
        assert await asyncio.to_thread(first.stop) == 0
        assert [each for each in await system.client.workers() if first.mark in each.instance_id] == []
        await finish(system, run_id)
        steps = await system.steps(run_id)
    assert {step.attempt for step in steps} == {1}
    resized = [step for step in steps if step.target == "resize-image"]
    assert {first.mark in step.worker for step in resized} == {True, False}


async def test_results_of_a_lost_connection_are_sent_again(system: System, program: Path) -> None:
    async with Proxy(system.address) as proxy:
        worker = TaskWorker(program, proxy.address, client=system.address)
        async with worker:
            run_id = await send_work(system)
            for cut in range(1, 4):
                await until(lambda done=5 * cut: done_by(system, run_id, worker, done), "it goes on")
                proxy.reset()
            await finish(system, run_id)
            steps = await system.steps(run_id)
            await until(lambda: idle(system, worker), "its slots are free")
    assert proxy.accepted >= 4
    assert {step.attempt for step in steps} == {1}, "within the grace no attempt is lost"


def test_it_shows_its_token_over_tls_and_ends_without_a_valid_one(program: Path, tmp_path: Path) -> None:
    check_security(program, tmp_path)


async def send_work(system: System) -> str:
    """Start a run with more to do than one worker does in a second."""
    pictures = [picture(1500, 1500, seed, striped=True) for seed in range(PICTURES)]
    return await system.send("album/arrived", {"notes": [], "pictures": pictures})


async def finish(system: System, run_id: str) -> None:
    output = await system.result(run_id)
    assert [size_of(each["thumbnail"]) for each in output["pictures"]] == [(64, 64)] * PICTURES
