"""Many runs at once while processes are killed, frozen, drained and restarted at random; then everything must end well.

A failure names its seed: `CHAOS_SEEDS=7 pytest tests/end_to_end/test_chaos.py` runs just that one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from stepwire.records import RunState
from tests.end_to_end.processes import System
from tests.faults.tools import hold

RUNS = 24
FAULTS = 8
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "1 2 3").split()]


def expected(name: str, data: Any) -> Any:
    """What a run of a function must give."""
    match name:
        case "fan-out":
            return {"count": data["count"], "total": data["count"] * (data["count"] - 1) * 2}
        case "flaky":
            return [2, 3, 4]
        case "plain":
            return [2, *[4 * n for n in range(data["count"])]]
        case "tasks":
            return [2 * n for n in range(data["count"])]
        case "clumsy-body":
            return [2, 4]
        case "parent":
            return [42, "ValueError", "no 1"]
    raise AssertionError(name)


def is_right(name: str, output: Any, wanted: Any) -> bool:
    """Whether a run has given what it must. What "flaky" gives are the attempts that it took: lost ones count too."""
    if name == "flaky":
        return len(output) == len(wanted) and all(took >= least for took, least in zip(output, wanted, strict=True))
    return bool(output == wanted)


def draw(dice: random.Random) -> tuple[str, Any]:
    """Choose a function and its input."""
    name = dice.choice(["fan-out", "flaky", "plain", "tasks", "clumsy-body", "parent"])
    match name:
        case "fan-out":
            return name, {"count": dice.choice([2, 10, 60]), "seconds": dice.choice([0.0, 0.05, 0.5])}
        case "plain" | "tasks":
            return name, {"count": dice.choice([1, 5, 30])}
    return name, None


class Chaos:
    """The faults. Each leaves the system such that it can heal."""

    def __init__(self, system: System, dice: random.Random) -> None:
        self.system = system
        self.dice = dice
        self.faults: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self.kill_executor,
            self.stop_executor,
            self.kill_worker,
            self.stop_worker,
            self.freeze_worker,
            self.kill_both,
        ]

    async def strike(self) -> str:
        """Bring one fault about; gives its name."""
        fault = self.dice.choice(self.faults)
        await fault()
        return fault.__name__

    async def kill_executor(self) -> None:
        await self.system.kill_executor()

    async def stop_executor(self) -> None:
        assert await asyncio.to_thread(self.system.executor.stop) == 0
        await asyncio.to_thread(self.system.executor.start)

    async def kill_worker(self) -> None:
        await asyncio.to_thread(self.dice.choice(self.system.workers).restart)

    async def stop_worker(self) -> None:
        worker = self.dice.choice(self.system.workers)
        assert await asyncio.to_thread(worker.stop) == 0
        await asyncio.to_thread(worker.start)

    async def freeze_worker(self) -> None:
        worker = self.dice.choice(self.system.workers)
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(self.dice.choice([0.2, 1.5]))
        worker.signal(signal.SIGCONT)

    async def kill_both(self) -> None:
        worker = self.dice.choice(self.system.workers)
        worker.kill()
        await self.system.kill_executor()
        await asyncio.to_thread(worker.start)


@pytest.mark.parametrize("seed", SEEDS)
async def test_everything_ends_well_whatever_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int):
    dice = random.Random(seed)
    history = tmp_path / "history"
    monkeypatch.setenv("STEPWIRE_HISTORY", str(history))
    settings = {"session_grace": 0.5, "heartbeat_interval": 0.5, "max_lost_invocations": 100, "history": history}
    async with System(tmp_path, settings=settings, environment={"STEPWIRE_HISTORY": str(history)}) as system:
        await system.start_workers(3, slots=4, options={"drain_seconds": 0.5})
        chaos = Chaos(system, dice)
        wanted: dict[str, Any] = {}
        struck: list[str] = []

        async def send_runs() -> None:
            for number in range(RUNS):
                name, data = draw(dice)
                wanted[await system.send(f"flows/{name}", data, id=f"{seed}-{number}")] = expected(name, data)
                await asyncio.sleep(dice.uniform(0, 0.4))

        sending = asyncio.create_task(send_runs())
        for _ in range(FAULTS):
            await asyncio.sleep(dice.uniform(0, 0.8))
            struck.append(await chaos.strike())
        await sending
        print(f"seed {seed}: {struck}")
        for run_id, output in wanted.items():
            run = await system.ended(run_id)
            assert run.state is RunState.SUCCEEDED, f"{run.function} {run.id}: {run.failure}"
            result = await system.result(run_id)
            assert is_right(run.function, result, output), f"{run.function} gave {result}, not {output}"
            await system.check(run_id)
        assert len([run async for run in system.client.list() if not run.parent_run_id]) == RUNS
        for worker in system.workers:
            assert await asyncio.to_thread(worker.stop) == 0
        assert await asyncio.to_thread(system.executor.stop) == 0
        await hold(history, system.executor.folder / "stepwire.db")
