"""Real workers are killed, frozen and blocked; what happened must keep the promises."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from stepwire.records import StepKind
from tests.end_to_end.processes import until
from tests.faults.seen import dispatched, has_happened, worker_of
from tests.faults.tools import FaultySystem

SHORT = {"heartbeat_interval": 0.5, "session_grace": 0.5, "max_lost_invocations": 100}
BLOCKERS = "tests.faults.apps.blockers:app"
UNTIL_LOST_SECONDS = 1.5
"""What SHORT allows a worker to be silent and then away."""


async def test_a_killed_workers_step_runs_elsewhere_under_a_higher_fence(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/gates", {"gates": ["go", "go"]})
        (first,) = await system.has_begun(run_id, "gate:0")
        await system.has_begun(run_id, "gate:1")
        worker_of(system, first).kill()
        (_, second) = await system.has_begun(run_id, "gate:0", 2)
        assert second.pid != first.pid
        system.open_gate("go")
        assert (await system.result(run_id))[0] == second.pid
        await system.check(run_id)
        (one, fence), (two, higher) = dispatched(system, "gate:0")
        assert (one, two) == (1, 2)
        assert higher > fence
        (step, _) = await system.steps(run_id)
        assert [failed.failure.type for failed in step.failed_attempts] == ["WorkerLostError"]


@pytest.mark.parametrize("recorded", [False, True], ids=["while-another-runs-it", "after-its-result"])
async def test_a_worker_that_was_frozen_for_too_long_reports_in_vain_and_starts_clean(tmp_path: Path, recorded: bool):
    async with FaultySystem(tmp_path, settings=SHORT) as system:
        await system.start_workers(2, slots=4)
        run_id = await system.send("flows/gates", {"gates": ["go"]})
        (first,) = await system.has_begun(run_id, "gate:0")
        # A lone step begins before it is told; one that nobody knows of is begun elsewhere without waiting for a grace.
        await until(lambda: system.steps(run_id), "the executor knows of the step")
        frozen = worker_of(system, first)
        frozen.signal(signal.SIGSTOP)
        (_, second) = await system.has_begun(run_id, "gate:0", 2)
        assert second.pid != first.pid
        other = worker_of(system, second)
        if recorded:
            system.open_gate("go")
            await system.result(run_id)
        else:
            other.signal(signal.SIGSTOP)  # so that the late report is the first
            system.open_gate("go")
        frozen.signal(signal.SIGCONT)
        await until(lambda: frozen.log.count("connected to") == 2, "the worker is back")
        assert "session resumed" not in frozen.log
        other.signal(signal.SIGCONT)
        await system.ended(run_id)
        await system.connected(2)
        assert [number for number, _ in dispatched(system, "gate:0")][:2] == [1, 2]
        (step,) = await system.steps(run_id)
        assert step.attempt >= 2
        after = await system.send("flows/fan-out", {"count": 8, "seconds": 0.3})
        await system.result(after)
        assert first.pid in {line.pid for line in system.lines() if line.run_id == after}, "it gets no work any more"
        await system.check(after)


async def test_slow_steps_cost_no_attempt(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/fan-out", {"count": 10, "seconds": UNTIL_LOST_SECONDS + 0.5})
        await system.result(run_id)
        await system.check(run_id)
        assert system.at_most_one_attempt()
        assert not has_happened(system, "gone")


async def test_a_blocked_loop_costs_no_lease_and_is_told_of(tmp_path: Path):
    async with FaultySystem(tmp_path, settings=SHORT, target=BLOCKERS) as system:
        (worker,) = await system.start_workers(1)
        run_id = await system.send("flows/block", {"seconds": 2 * UNTIL_LOST_SECONDS})

        async def is_told() -> bool:
            (seen,) = await system.client.workers()
            return "block_loop" in seen.blocking_stack and seen.loop_lag > 1.0

        await until(is_told, "the executor shows what blocks the loop")
        assert await system.result(run_id) == [1, 2]
        assert re.search(r"block_loop \(.*blockers.py:\d+\) has blocked the event loop for", worker.log)
        assert system.at_most_one_attempt()
        assert not has_happened(system, "gone")

        async def is_well() -> bool:
            (seen,) = await system.client.workers()
            return not seen.blocking_stack and not seen.loop_lag

        await until(is_well, "the executor no longer shows a lag")


async def test_a_body_that_waits_in_a_blocked_worker_goes_on_in_another_one(tmp_path: Path):
    async with FaultySystem(tmp_path, settings={"heartbeat_interval": 0.5}, target=BLOCKERS) as system:
        (first,) = await system.start_workers(1)
        run_id = await system.send("flows/parked", {})
        blocking = await system.send("flows/blocking-body", {"seconds": 15})
        await until(lambda: has_waits(system, run_id, blocking), "both bodies wait")
        (second,) = await system.start_workers(1)
        await system.client.send("flows/block-now")

        async def is_told() -> bool:
            return any(seen.loop_lag > 1.0 for seen in await system.client.workers())

        await until(is_told, "the executor knows that the loop is blocked")
        await system.client.send("flows/go")
        assert await system.result(run_id) == [first.pid, second.pid]
        assert not (await system.client.get(blocking)).state.ended
        await system.result(blocking)
        await system.check(run_id)


async def has_waits(system: FaultySystem, *run_ids: str) -> bool:
    runs = [await system.client.get(run_id, steps=True) for run_id in run_ids]
    return all(any(step.kind is StepKind.WAIT_FOR_EVENT for step in run.steps) for run in runs)


@pytest.mark.parametrize(
    ("grace", "attempts"),
    [(30, 1), (0.5, 2)],
    ids=["resumed", "fenced"],
)
async def test_a_held_interpreter_does_no_harm(tmp_path: Path, grace: float, attempts: int):
    async with FaultySystem(tmp_path, settings={**SHORT, "session_grace": grace}, target=BLOCKERS) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/hold", {"seconds": 2 * UNTIL_LOST_SECONDS + 1})
        assert await system.result(run_id) == [1, 2]
        await system.connected(2)
        assert [number for number, _ in dispatched(system, "hold:0")] == list(range(1, attempts + 1))
        assert has_happened(system, "gone")
        await system.check(run_id)
