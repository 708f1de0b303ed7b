"""Functions that harm their workers: they fail with a clear error at their cap, and nobody beside them suffers."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stepwire.records import RunState, StepState, WorkerState
from tests.end_to_end.processes import System, until

TARGET = "tests.faults.apps.faulty:app"
SETTINGS = {"session_grace": 0.2, "heartbeat_interval": 0.5, "max_lost_invocations": 3, "max_invoke_depth": 5}


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    async with System(tmp_path, target=TARGET, settings=SETTINGS) as system:
        yield system


async def test_poison_among_fifty_steps_fails_at_its_cap_and_all_others_succeed(system: System) -> None:
    await system.start_workers(1, slots=8, processes=3)
    run_id = await system.send("faulty/poison", {"count": 50, "seconds": 0.5})
    others = [await system.send("faulty/bystander") for _ in range(3)]
    assert sorted(map(str, await system.result(run_id))) == sorted([*map(str, range(50)), "WorkerLostError"])
    for other in others:
        assert await system.result(other) == list(range(10))
    steps = await system.steps(run_id)
    (poison,) = [step for step in steps if step.key.id == "poison"]
    assert (poison.state, poison.attempt, len(poison.failed_attempts)) == (StepState.FAILED, 3, 3)
    assert poison.failure is not None
    assert "was lost with attempt 3 of step poison" in poison.failure.message
    assert len(system.begun(run_id, "poison:0")) == 3, "never more often than its policy says"
    assert {step.state for step in steps if step is not poison} == {StepState.SUCCEEDED}


async def test_a_lone_step_that_kills_fails_by_its_own_policy(system: System) -> None:
    await system.start_workers(1, slots=8, processes=2)
    run_id = await system.send("faulty/lone")
    other = await system.send("faulty/bystander")
    assert await system.result(other) == list(range(10))
    assert (await system.failure(run_id)).type == "StepError"
    (step,) = await system.steps(run_id)
    assert (step.state, step.attempt) == (StepState.FAILED, 3)
    assert len(system.begun(run_id, "poison:0")) == 3, "it counts though its plan may have died with the first one"


async def test_a_lone_step_without_retries_that_kills_is_begun_once(system: System) -> None:
    await system.start_workers(1, slots=8, processes=2)
    runs = [await system.send("faulty/once") for _ in range(4)]
    for run_id in runs:
        assert await system.result(run_id) == "WorkerLostError"
        assert len(system.begun(run_id, "poison:0")) <= 1, "it may have been lost with another's worker before it began"
    assert any(system.begun(run_id, "poison:0") for run_id in runs)


async def test_a_body_that_kills_fails_its_run_at_a_cap_that_is_named(system: System) -> None:
    await system.start_workers(1, slots=8, processes=2)
    run_id = await system.send("faulty/body")
    other = await system.send("faulty/bystander")
    failure = await system.failure(run_id)
    assert failure.type == "WorkerLostError"
    assert "lost 3 workers while its body ran (--max-lost-invocations=3)" in failure.message
    assert await system.result(other) == list(range(10))


async def test_a_step_that_finds_no_memory_fails_alone(system: System) -> None:
    await system.start_workers(1)
    run_id = await system.send("faulty/memory")
    assert await system.result(run_id) == ["MemoryError", 1]
    (hoard,) = [step for step in await system.steps(run_id) if step.key.id == "hoard"]
    assert hoard.attempt == 3
    assert await system.result(await system.send("faulty/bystander")) == list(range(10))


@pytest.mark.parametrize("event", ["faulty/stubborn", "faulty/stubborn-task", "faulty/stubborn-thread"])
async def test_a_cancelled_step_that_goes_on_costs_no_slot_and_no_drain(system: System, event: str) -> None:
    (worker,) = await system.start_workers(1, slots=1)
    run_id = await system.send(event)
    await system.has_begun(run_id, "stubborn:0")
    await system.client.cancel(run_id, "enough of it")
    assert await system.result(await system.send("faulty/bystander")) == list(range(10))
    begun = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - begun < 5, "the drain waited for code that nobody wants"


@pytest.mark.parametrize("event", ["faulty/stubborn", "faulty/stubborn-task", "faulty/stubborn-thread"])
async def test_a_second_signal_ends_a_worker_at_once_whatever_its_steps_do(system: System, event: str) -> None:
    (worker,) = await system.start_workers(1, slots=1)
    run_id = await system.send(event)
    await system.has_begun(run_id, "stubborn:0")
    worker.signal(signal.SIGTERM)
    await until(lambda: is_draining(system), "the worker drains")
    begun = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - begun < 3, "it waited for code that it had given back"
    (step,) = await system.steps(run_id)
    assert (step.state, step.failed_attempts) == (StepState.READY, ())


async def is_draining(system: System) -> bool:
    return [worker.state for worker in await system.client.workers()] == [WorkerState.DRAINING]


@pytest.mark.parametrize("event", ["faulty/random", "faulty/set-order"])
async def test_a_body_that_replays_otherwise_fails_naming_both_sides(system: System, event: str) -> None:
    await system.start_workers(1, processes=2)
    run_id = await system.send(event)
    failure = await system.failure(run_id)
    assert failure.type == "NonDeterminismError"
    assert failure.message.count("faulty.py:") >= 2
    recorded = {step.key.id for step in await system.steps(run_id)}
    assert any(step_id in failure.message for step_id in recorded)
    assert (await system.client.get(run_id)).attempt == 1, "trying again would not help"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("faulty/circle", ["--max-invoke-depth=5", "6 runs deep", "faulty/circle"]),
        ("faulty/unknown", ["faulty/nobody", "no worker has registered", "start one"]),
    ],
)
async def test_a_step_that_invokes_what_it_can_not_fails_saying_so(
    system: System, event: str, words: list[str]
) -> None:
    await system.start_workers(1)
    run = await system.ended(await system.send(event))
    assert run.state is RunState.FAILED
    for word in words:
        assert word in str(run.failure)


async def test_an_output_over_the_limit_fails_its_step_once_and_the_stream_lives(system: System) -> None:
    (worker,) = await system.start_workers(1)
    run_id = await system.send("faulty/large")
    assert await system.result(run_id) == ["OutputTooLargeError", "xxxxx"]
    (step,) = [step for step in await system.steps(run_id) if step.key.id == "large"]
    assert step.attempt == 1
    assert step.failure is not None
    assert "5,242,882 bytes, over --max-output-bytes=3000000" in step.failure.message
    assert "lost" not in worker.log
