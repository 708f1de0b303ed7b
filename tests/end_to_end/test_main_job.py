"""The main job: fan-outs over worker processes, with each step recorded once, while things go wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from stepwire.records import RunState, StepState
from tests.end_to_end.processes import System, until


async def test_a_fan_out_is_spread_over_two_workers_and_each_step_runs_once(tmp_path: Path):
    async with System(tmp_path) as system:
        workers = await system.start_workers(2, slots=4)
        run_id = await system.send("flows/fan-out", {"count": 60, "seconds": 0.05})
        assert await system.result(run_id) == {"count": 60, "total": 60 * 59 * 2}
        begun = [line for line in system.lines() if line.what == "begin"]
        assert len(begun) == 62
        assert {line.pid for line in begun} == {worker.pid for worker in workers}
        assert {line.number for line in begun} == {1}
        steps = await system.steps(run_id)
        assert [str(step.key) for step in steps][:3] == ["count", "part", "part:1"]
        assert {step.state for step in steps} == {StepState.SUCCEEDED}
        await system.check(run_id)


async def test_parallel_steps_run_at_the_same_time_in_different_workers(tmp_path: Path):
    async with System(tmp_path) as system:
        workers = await system.start_workers(2, slots=1)
        run_id = await system.send("flows/gates", {"gates": ["a", "b"]})
        await until(lambda: len(system.lines()) == 2, "both steps run")
        assert {line.what for line in system.lines()} == {"begin"}
        system.open_gate("a")
        system.open_gate("b")
        assert sorted(await system.result(run_id)) == sorted(worker.pid for worker in workers)


async def test_one_failing_step_is_retried_alone(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/flaky")
        assert await system.result(run_id) == [2, 3, 4]
        assert [line.number for line in system.begun(run_id, "flaky:0")] == [1, 2, 3]
        assert len(system.begun(run_id, "left:0")) == len(system.begun(run_id, "right:0")) == 1
        steps = {step.key.id: step for step in await system.steps(run_id)}
        assert [attempt.failure.type for attempt in steps["flaky"].failed_attempts] == ["ConnectionError"] * 2
        assert steps["flaky"].attempt == 3
        await system.check(run_id)


async def test_a_step_that_fails_for_good_can_be_caught_or_fails_the_run(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(1)
        caught, failed = await asyncio.gather(system.send("flows/hopeless"), system.send("flows/doomed"))
        assert await system.result(caught) == {
            "step": "hopeless",
            "name": "ConnectionError",
            "message": "injected at attempt 2",
            "attempts": 2,
            "repair": 42,
        }
        failure = await system.failure(failed)
        assert failure.type == "StepError"
        assert failure.cause is not None
        assert failure.cause.type == "ConnectionError"
        assert (await system.ended(failed)).attempt == 1


async def test_a_body_that_raises_is_tried_again_and_its_steps_keep_their_results(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(1)
        run_id = await system.send("flows/clumsy-body")
        assert await system.result(run_id) == [2, 4]
        assert (await system.ended(run_id)).attempt == 2
        assert [len(system.begun(run_id, step)) for step in ("before:0", "beside:0", "middle:0")] == [1, 1, 1]
        await system.check(run_id)


async def test_a_worker_killed_in_the_middle_loses_nothing_but_its_attempts(tmp_path: Path):
    async with System(tmp_path, settings={"session_grace": 0.5}) as system:
        await system.start_workers(2, slots=4)
        run_id = await system.send("flows/gates", {"gates": list("abcdefgh")})
        await until(lambda: len(system.lines()) == 8, "all steps run")
        system.open_gate("a")
        (first,) = [line for line in system.lines() if line.step == "gate:0"]
        await until(lambda: any(line.what == "end" for line in system.lines()), "the first has ended")
        victim = next(worker.pid for worker in system.workers if worker.pid != first.pid)
        lost = {line.step for line in system.lines() if line.pid == victim}
        system.kill_process(victim)
        for gate in "bcdefgh":
            system.open_gate(gate)
        output = await system.result(run_id)
        assert victim not in output
        assert len(output) == 8
        for step in await system.steps(run_id):
            name = f"{step.key.id}:{step.key.index}"
            assert step.attempt == (2 if name in lost else 1)
            assert [attempt.failure.type for attempt in step.failed_attempts] == ["WorkerLostError"] * (name in lost)
        await system.check(run_id)


async def test_the_worker_that_leads_a_run_can_be_killed(tmp_path: Path):
    async with System(tmp_path, settings={"session_grace": 0.5}) as system:
        await system.start_workers(2, slots=4)
        run_id = await system.send("flows/gates", {"gates": list("abcd")})
        await until(lambda: len(system.lines()) == 4, "all steps run")
        lead = (await system.client.get(run_id)).lead_worker
        pid = next(worker.pid for worker in system.workers if f"-{worker.pid}-" in lead)
        system.kill_process(pid)
        for gate in "abcd":
            system.open_gate(gate)
        assert len(await system.result(run_id)) == 4
        await system.check(run_id)


async def test_a_step_that_kills_its_worker_is_tried_elsewhere(tmp_path: Path):
    async with System(tmp_path, settings={"session_grace": 0.3}) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/killer")
        assert await system.result(run_id) == [2, 10]
        assert len(await system.connected(1)) == 1
        await system.check(run_id)


async def test_workers_under_a_supervisor_are_started_again(tmp_path: Path):
    async with System(tmp_path, settings={"session_grace": 0.3}) as system:
        (worker,) = await system.start_workers(1, processes=2)
        run_id = await system.send("flows/killer")
        assert await system.result(run_id) == [2, 10]
        await system.connected(2)
        assert worker.running
        assert await asyncio.to_thread(worker.stop) == 0


async def test_an_executor_killed_ten_times_during_a_fan_out_loses_and_repeats_nothing(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2, slots=16)
        run_id = await system.send("flows/fan-out", {"count": 1000, "seconds": 0.2})
        for kill in range(1, 11):
            reached = kill * 180
            await until(lambda reached=reached: len(system.lines()) >= reached, f"{reached} lines are written")
            await system.kill_executor()
        assert await system.result(run_id) == {"count": 1000, "total": 1000 * 999 * 2}
        steps = await system.steps(run_id)
        assert len(steps) == 1002
        assert {step.state for step in steps} == {StepState.SUCCEEDED}
        assert not [step for step in steps if step.failed_attempts], "an executor's death is not charged to steps"
        await system.check(run_id)


async def test_a_run_goes_on_when_executor_and_workers_are_all_killed(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2, slots=8)
        run_id = await system.send("flows/fan-out", {"count": 200, "seconds": 0.1})
        await until(lambda: len(system.lines()) > 150, "the fan-out is under way")
        for worker in system.workers:
            system.kill_process(worker.pid)
        await system.kill_executor()
        for worker in system.workers:
            await asyncio.to_thread(worker.restart)
        assert await system.result(run_id) == {"count": 200, "total": 200 * 199 * 2}
        await system.check(run_id)


async def test_a_worker_drains_under_load_and_nothing_is_charged(tmp_path: Path):
    async with System(tmp_path) as system:
        leaving, _ = await system.start_workers(2, slots=4)
        run_id = await system.send("flows/fan-out", {"count": 100, "seconds": 0.05})
        await until(lambda: any(line.pid == leaving.pid for line in system.lines()), "the first worker is at work")
        assert await asyncio.to_thread(leaving.stop) == 0
        assert await system.result(run_id) == {"count": 100, "total": 100 * 99 * 2}
        begun = [line for line in system.lines() if line.what == "begin"]
        assert len(begun) == 102, "a drained worker finishes what it has begun"
        assert not [step for step in await system.steps(run_id) if step.failed_attempts]
        await system.check(run_id)


async def test_a_worker_that_may_not_take_long_gives_its_attempts_back(tmp_path: Path):
    async with System(tmp_path) as system:
        (leaving,) = await system.start_workers(1, slots=4, options={"drain_seconds": 0.2})
        run_id = await system.send("flows/gates", {"gates": ["a", "b"]})
        await until(lambda: len(system.lines()) == 2, "both steps run")
        assert await asyncio.to_thread(leaving.stop) == 0
        system.workers.remove(leaving)
        await system.start_workers(1)
        system.open_gate("a")
        system.open_gate("b")
        await system.result(run_id)
        assert [step.attempt for step in await system.steps(run_id)] == [1, 1]
        assert [line.number for line in system.lines() if line.what == "begin"] == [1] * 4


async def test_an_executor_drains_under_load_and_goes_on_after_its_restart(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2, slots=4)
        run_id = await system.send("flows/fan-out", {"count": 100, "seconds": 0.05})
        await until(lambda: len(system.lines()) > 40, "the fan-out is under way")
        assert await asyncio.to_thread(system.executor.stop) == 0
        await asyncio.to_thread(system.executor.start)
        assert await system.result(run_id) == {"count": 100, "total": 100 * 99 * 2}
        assert not [step for step in await system.steps(run_id) if step.failed_attempts]
        await system.check(run_id)


async def test_a_worker_that_was_stopped_for_long_comes_back_and_its_late_results_are_refused(tmp_path: Path):
    async with System(tmp_path, settings={"session_grace": 0.5, "heartbeat_interval": 0.5}) as system:
        frozen, _ = await system.start_workers(2, slots=1)
        run_id = await system.send("flows/gates", {"gates": ["a", "b"]})
        await until(lambda: len(system.lines()) == 2, "both steps run")
        (lost,) = [line.step for line in system.lines() if line.pid == frozen.pid]
        os.kill(frozen.pid, signal.SIGSTOP)
        system.open_gate("a")
        system.open_gate("b")
        output = await system.result(run_id)
        os.kill(frozen.pid, signal.SIGCONT)
        assert frozen.pid not in output
        assert [len(system.begun(run_id, f"gate:{index}")) for index in (0, 1)] == [
            2 if lost == f"gate:{index}" else 1 for index in (0, 1)
        ]
        await system.connected(2)
        again = await system.send("flows/fan-out", {"count": 10})
        await system.result(again)
        await system.check(run_id)
        await system.check(again)
        assert await asyncio.to_thread(frozen.stop) == 0


@pytest.mark.parametrize("width", [0, 2, 3000])
async def test_fan_outs_of_any_width(tmp_path: Path, width: int):
    async with System(tmp_path) as system:
        await system.start_workers(2, slots=50)
        run_id = await system.send("flows/fan-out", {"count": width})
        assert await system.result(run_id) == {"count": width, "total": width * (width - 1) * 2}
        run = await system.ended(run_id)
        assert run.state is RunState.SUCCEEDED
        await system.check(run_id)
