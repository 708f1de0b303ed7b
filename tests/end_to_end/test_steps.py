"""Every kind of step, timeouts, cancellation and asyncio's constructs, with a real executor and real workers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import stepwire
from stepwire.records import RunState, StepState, WorkerState
from tests.end_to_end.processes import System, until


async def test_sleeps_last_as_long_as_they_should(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        took = await system.result(await system.send("flows/naps"))
        assert took["nap"] >= 0.3
        assert took["until"] >= 0.29
        assert took["sleep"] >= 0.2
        assert max(took.values()) < 5


async def test_a_sleeping_run_wakes_after_restarts_of_everything(tmp_path: Path):
    async with System(tmp_path) as system:
        (worker,) = await system.start_workers(1)
        run_id = await system.send("flows/naps")
        await until_waiting(system, run_id)
        await system.kill_executor()
        await asyncio.to_thread(worker.restart)
        assert min((await system.result(run_id)).values()) >= 0.2


async def until_waiting(system: System, run_id: str) -> None:
    """Wait until a step of a run waits for something."""

    async def waits() -> bool:
        return any(step.state is StepState.WAITING for step in await system.steps(run_id))

    await until(waits, "a step waits")


async def test_an_event_ends_a_wait_by_its_fields_and_a_wait_ends_without_one(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(1)
        run_id = await system.send("flows/waits", {"order": 7})
        await until_waiting(system, run_id)
        await system.client.send("flows/paid", {"order": 8, "sum": 1})
        await system.client.send("flows/paid", {"order": 7, "sum": 2})
        assert await system.result(run_id) == [{"order": 7, "sum": 2}, None]


async def test_waits_in_a_loop_get_one_event_after_the_other_whatever_is_killed_in_between(tmp_path: Path):
    async with System(tmp_path) as system:
        (worker,) = await system.start_workers(1)
        runs = [await system.send("flows/approvals", {"doc": 1, "count": 4}) for _ in range(2)]
        for n, by in enumerate(["ann", "bob", "cid", "dan"]):
            await system.client.send_many([("flows/approved", {"doc": doc, "by": by}) for doc in (2, 1)])
            if n == 0:
                await system.kill_executor()
            elif n == 2:
                await asyncio.to_thread(worker.restart)
        assert [await system.result(run_id) for run_id in runs] == [["ann", "bob", "cid", "dan", None]] * 2


async def test_an_event_that_came_before_the_wait_counts(tmp_path: Path):
    async with System(tmp_path) as system:
        await register(system)
        run_id = await system.send("flows/waits", {"order": 7})
        await system.client.send("flows/paid", {"order": 7})
        await system.start_workers(1)
        assert await system.result(run_id) == [{"order": 7}, None]


async def register(system: System) -> None:
    """Have the executor learn of the functions, with no worker left."""
    (worker,) = await system.start_workers(1)
    assert await asyncio.to_thread(worker.stop) == 0
    system.workers.clear()


async def test_a_function_invokes_others_and_gets_their_results_or_failures(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/parent")
        assert await system.result(run_id) == [42, "ValueError", "no 1"]
        children = [run async for run in system.client.list(parent_run_id=run_id)]
        assert {(child.function, child.state) for child in children} == {
            ("child", RunState.SUCCEEDED),
            ("failing-child", RunState.FAILED),
        }


async def test_sent_events_reach_the_runs_that_wait_for_them(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(1)
        waiting = [await system.send("flows/waits", {"order": order}) for order in (1, 2)]
        ids = await system.result(await system.send("flows/sender", {"orders": [1, 2]}))
        assert len(set(ids)) == 2
        assert [(await system.result(run_id))[0] for run_id in waiting] == [{"order": 1}, {"order": 2}]


async def test_the_loser_of_a_race_is_cancelled(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/race")
        assert await system.result(run_id, 20) == 4
        states = {step.key.id: step.state for step in await system.steps(run_id)}
        assert states == {"slow": StepState.CANCELLED, "fast": StepState.SUCCEEDED}
        await idle(system)


async def idle(system: System) -> None:
    """Wait until no worker has an attempt in hand."""

    async def free() -> bool:
        return all(worker.slots_taken == 0 for worker in await system.client.workers())

    await until(free, "all slots are free")


async def test_each_kind_of_timeout_ends_what_takes_too_long(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        timeouts, short = await asyncio.gather(system.send("flows/timeouts"), system.send("flows/short"))
        assert await system.result(timeouts, 30) == {
            "attempt": "StepTimeoutError after 2",
            "step": "StepTimeoutError after 1",
            "body": "TimeoutError",
        }
        assert (await system.failure(short)).type == "RunTimeoutError"
        await idle(system)


async def test_cancelling_a_run_stops_its_steps_and_the_runs_that_it_invoked(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/long")
        await until(lambda: len(system.lines()) == 2, "the step and the child's step run")
        run = await system.client.cancel(run_id, "the test says so")
        assert run.state is RunState.CANCELLED
        failure = await system.failure(run_id)
        assert failure.type == "RunCancelledError"
        assert "the test says so" in failure.message
        (child,) = [run async for run in system.client.list(parent_run_id=run_id)]
        assert (await system.ended(child.id, 20)).state is RunState.CANCELLED
        await idle(system)
        assert {line.what for line in system.lines()} == {"begin"}, "the steps' code was cancelled"
        assert (await system.client.cancel(run_id, "again")).state is RunState.CANCELLED


async def test_a_sync_function_fans_out_over_workers(tmp_path: Path):
    async with System(tmp_path) as system:
        workers = await system.start_workers(2, slots=2)
        run_id = await system.send("flows/plain", {"count": 20})
        assert await system.result(run_id) == [2, *[4 * n for n in range(20)]]
        begun = [line for line in system.lines() if line.what == "begin"]
        assert len(begun) == 41
        assert {line.pid for line in begun} == {worker.pid for worker in workers}
        await system.check(run_id)


async def test_a_sync_function_goes_on_after_its_worker_and_the_executor_were_killed(tmp_path: Path):
    async with System(tmp_path, settings={"session_grace": 0.5}) as system:
        first, _ = await system.start_workers(2, slots=2)
        run_id = await system.send("flows/plain", {"count": 100})
        await until(lambda: len(system.lines()) > 30, "it is under way")
        system.kill_process(first.pid)
        await system.kill_executor()
        assert await system.result(run_id) == [2, *[4 * n for n in range(100)]]
        await system.check(run_id)


ASYNCIO = {
    "first": [0],
    "exception": [1, 1],
    "completed": [0, 2, 4, 6],
    "group": [0, 2, 4],
    "group failed": ["ConnectionError"],
    "limited": [0, 4, 8, 12, 16],
    "map": [0, 2, 4, 6, 8, 10],
}


async def test_the_constructs_of_asyncio_work_as_they_do_elsewhere(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/asyncio")
        output = await system.result(run_id)
        output["completed"].sort()
        assert output == ASYNCIO
        await system.check(run_id)
        await idle(system)


async def test_the_constructs_of_asyncio_survive_kills(tmp_path: Path):
    async with System(tmp_path, settings={"session_grace": 0.3}) as system:
        first, second = await system.start_workers(2)
        run_id = await system.send("flows/asyncio-slowly")
        for kill, victim in enumerate((first, None, second, None, first)):
            await system.has_begun(run_id, f"beat:{kill}")
            if victim is None:
                await system.kill_executor()
            else:
                await asyncio.to_thread(victim.restart)
        output = await system.result(run_id)
        output["completed"].sort()
        assert output == ASYNCIO
        await system.check(run_id)


async def test_an_event_id_used_again_starts_nothing_and_gives_the_first_receipt(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(1)
        first = await system.client.send("flows/fan-out", {"count": 2}, id="order-7")
        again = await system.client.send("flows/fan-out", {"count": 2}, id="order-7")
        assert not first.duplicate
        assert again.duplicate
        assert again.run_ids == first.run_ids
        await system.kill_executor()
        assert (await system.client.send("flows/fan-out", {"count": 2}, id="order-7")).run_ids == first.run_ids
        with pytest.raises(stepwire.ExecutorError) as caught:
            await system.client.send("flows/fan-out", {"count": 4}, id="order-7")
        assert caught.value.code == "ALREADY_EXISTS"
        assert len([run async for run in system.client.list(function="fan-out")]) == 1
        assert await system.result(first.run_ids[0]) == {"count": 2, "total": 4}


async def test_tasks_run_by_their_name(tmp_path: Path):
    async with System(tmp_path) as system:
        workers = await system.start_workers(2, slots=2)
        run_id = await system.send("flows/tasks", {"count": 40})
        assert await system.result(run_id) == [2 * n for n in range(40)]
        begun = [line for line in system.lines() if line.what == "begin"]
        assert {line.pid for line in begun} == {worker.pid for worker in workers}
        await system.check(run_id)


async def test_large_values_travel_in_pieces_and_too_large_ones_fail_the_step(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        fits, exceeds = await asyncio.gather(
            system.send("flows/blob", {"bytes": 2_900_000}), system.send("flows/blob", {"bytes": 5_000_000})
        )
        assert await system.result(fits) == [2_900_000] * 3
        failure = await system.failure(exceeds)
        assert failure.cause is not None
        assert failure.cause.type == "OutputTooLargeError"
        assert all(worker.state is WorkerState.CONNECTED for worker in await system.client.workers())


async def test_a_body_that_does_not_replay_fails_with_both_sides(tmp_path: Path):
    async with System(tmp_path) as system:
        await system.start_workers(2)
        run_id = await system.send("flows/fickle")
        await until_waiting(system, run_id)
        for worker in system.workers:
            await asyncio.to_thread(worker.restart)
        failure = await system.failure(run_id)
        assert failure.type == "NonDeterminismError"
        assert failure.message.count("flows.py:") >= 2
        assert (await system.ended(run_id)).attempt == 1
