"""Clocks that are set while a real executor works, and clocks that are apart.

No lease, timeout, backoff or order may go by the time of day; only a sleep's end does, since it is a time of day.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.processes import until
from tests.faults.apps.timed import SHORT_SECONDS
from tests.faults.tools import FaultySystem, WrongClock
from tests.histories import records

pytestmark = pytest.mark.needs("libfaketime")

TWO_HOURS = 7200.0
LATE_SECONDS = 10.0
"""By how much a busy machine may be late; a clock would make it two hours."""
TIMED = "tests.faults.apps.timed:app"
OUTPUT = [{"paid": True}, None, True, [2] * 5, ["StepError", "StepError"]]
GRACE = {"session_grace": 5}


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS], ids=["ahead", "back"])
async def test_a_clock_that_is_set_moves_only_the_ends_of_sleeps(tmp_path: Path, jump: float) -> None:
    clock = WrongClock(tmp_path / "clock")
    async with FaultySystem(tmp_path, target=TIMED, clock=clock.environment, settings=GRACE) as system:
        await system.start_workers(1, slots=16)
        nap = 1800.0 if jump > 0 else SHORT_SECONDS
        run = await system.send("timed/all", {"nap": nap})
        for step in ("gate:0", "overdue:0", "late:0", *(f"backoff:{n}" for n in range(5))):
            await system.has_begun(run, step)
        clock.set(jump)
        if jump > 0:
            await until(lambda: has_ended(system, run, "nap:0"), "the sleep ends", timeout=LATE_SECONDS)
        await until(lambda: has_ended(system, run, "missed:0"), "a wait ends", timeout=SHORT_SECONDS + LATE_SECONDS)
        await until(lambda: has_ended(system, run, "late:0"), "a timeout strikes", timeout=LATE_SECONDS)
        await until(lambda: len(all_retries(system)) == 5, "every backoff ends", timeout=LATE_SECONDS)
        assert not await has_ended(system, run, "gate:0")
        assert not await has_ended(system, run, "paid:0")
        if jump < 0:
            assert not await has_ended(system, run, "nap:0")
            clock.set(0)
        await system.client.send("timed/paid", {"paid": True})
        system.open_gate("open")
        assert await system.result(run, timeout=20) == OUTPUT
        assert system.executor.log.count("has connected") == 1
    assert_in_time(system)


@pytest.mark.parametrize("apart", [TWO_HOURS, -TWO_HOURS], ids=["ahead", "behind"])
async def test_a_worker_with_another_clock_loses_nothing_and_is_not_lost(tmp_path: Path, apart: float) -> None:
    clock = WrongClock(tmp_path / "clock")
    clock.set(apart)
    async with FaultySystem(tmp_path, target=TIMED, worker_clock=clock.environment, settings=GRACE) as system:
        await system.start_workers(1, slots=16)
        run = await system.send("timed/all", {"nap": SHORT_SECONDS})
        await until(lambda: has_ended(system, run, "nap:0"), "the sleep ends", timeout=SHORT_SECONDS + LATE_SECONDS)
        await until(lambda: len(all_retries(system)) == 5, "every backoff ends", timeout=LATE_SECONDS)
        await system.client.send("timed/paid", {"paid": True})
        system.open_gate("open")
        assert await system.result(run, timeout=20) == OUTPUT
        assert system.executor.log.count("has connected") == 1
        for step in await system.steps(run):
            assert step.planned_at is not None
            assert step.ended_at is not None
            assert abs((step.ended_at - step.planned_at).total_seconds()) < 60
            if step.started_at is not None:
                assert step.planned_at <= step.started_at <= step.ended_at
    assert_in_time(system)


async def test_a_restart_under_another_clock_loses_nothing(tmp_path: Path) -> None:
    clock = WrongClock(tmp_path / "clock")
    async with FaultySystem(tmp_path, target=TIMED, clock=clock.environment, settings=GRACE) as system:
        await system.start_workers(1, slots=16)
        runs = []
        for number, ahead in enumerate((TWO_HOURS, -TWO_HOURS)):
            runs.append(await system.send("timed/steps", None, id=f"event-{number}"))
            await asyncio.to_thread(system.executor.kill)
            clock.set(ahead)
            await asyncio.to_thread(system.executor.start)
            again = await system.client.send("timed/steps", None, id=f"event-{number}")
            assert again.duplicate
            assert list(again.run_ids) == runs[-1:]
        for run in runs:
            assert await system.result(run) == 20


async def has_ended(system: FaultySystem, run: str, step: str) -> bool:
    """Whether a step of a run has come to its end."""
    return any(f"{each.key.id}:{each.key.index}" == step and each.state.ended for each in await system.steps(run))


def of(system: FaultySystem, what: str) -> list[dict[str, Any]]:
    """Give the executor's records of one kind."""
    return [record for record in records.read(system.history) if record["what"] == what and "epoch" in record]


def all_retries(system: FaultySystem) -> list[dict[str, Any]]:
    """Give the dispatches of second attempts."""
    return [record for record in of(system, "dispatched") if record["number"] == 2]


def assert_in_time(system: FaultySystem) -> None:
    """Hold what was due against when it came, by the monotonic clock: neither early nor late."""
    issued = {record["fence"]: record for record in of(system, "dispatched")}
    closed = {(record["step"], record["number"]): record for record in of(system, "closed")}
    for retry in all_retries(system):
        failed = closed[retry["step"], 1]
        waited = retry["at"] - failed["at"]
        assert failed["retry_in"] - 0.01 <= waited <= failed["retry_in"] + LATE_SECONDS
    struck = [record for record in closed.values() if record["outcome"] == "timed_out"]
    assert {record["step"] for record in struck} == {"overdue:0", "late:0"}
    for record in struck:
        assert SHORT_SECONDS - 0.1 <= record["at"] - issued[record["fence"]]["at"] <= SHORT_SECONDS + LATE_SECONDS
    assert not [record for record in closed.values() if record["outcome"] == "lost"]
