"""What fails leaves lines in the logs of the worker that ran it and of the executor, at the default level."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepwire.testing import ExecutorProcess, WorkerProcess
from tests.end_to_end.processes import System, until

TARGET = "tests.end_to_end.apps.failing:app"
POISONED = re.compile(r"worker process \d+ was killed by SIGKILL while it ran attempt 1 of step 'poison' of run (\w+)")


def records(log: str, *levels: str) -> list[str]:
    """Give the records of some levels, each with the lines that belong to it."""
    parts = re.split(r"(?m)^(?=\d{4}-\d\d-\d\d )", log)
    return [part for part in parts if any(f" {level} " in part.partition("\n")[0] for level in levels)]


async def logged(process: WorkerProcess | ExecutorProcess, level: str, *words: str) -> str:
    """Wait for a record with all of these words; gives it."""

    def found() -> list[str]:
        return [text for text in records(process.log, level) if all(word in text for word in words)]

    await until(found, f"{process.name} logs {words} at {level}")
    return found()[0]


async def test_every_failure_is_logged_by_its_worker_and_by_the_executor(tmp_path: Path) -> None:
    async with System(tmp_path, target=TARGET) as system:
        (worker,) = await system.start_workers(1)
        names = ("step-fails", "task-fails", "body-fails", "too-slow", "goes-well")
        runs = {name: await system.send(name) for name in names}
        for run in runs.values():
            await system.ended(run)
        for name, step in (("step-fails", "look-up"), ("task-fails", "breaks-as-task")):
            where = (f"run_id={runs[name]}", f"function={name}", "app=failing", f"step={step}")
            for number in (1, 2):
                text = await logged(worker, "WARNING", f"attempt {number} of", f"attempt={number}", *where)
                assert text.splitlines()[1] == "  Traceback (most recent call last):"
                assert "apps/failing.py" in text.splitlines()[2]
                assert text.endswith("ValueError: no such customer\n")
            await logged(worker, "ERROR", f"step '{step}' has failed for good after 2 attempts", *where)
            await logged(system.executor, "WARNING", "attempt 1 of", "ValueError", *where)
            await logged(system.executor, "ERROR", f"step '{step}' has failed for good after 2 attempts", *where)
        await logged(worker, "WARNING", "attempt 1 of the body failed", runs["body-fails"], "body_fails")
        await logged(worker, "ERROR", "the run has failed: LookupError", runs["body-fails"], "Traceback")
        await logged(system.executor, "WARNING", "attempt 1 of the body failed", runs["body-fails"])
        await logged(worker, "WARNING", "attempt 1 of step 'nap' failed: StepTimeoutError", "it was at")
        await logged(worker, "ERROR", "step 'nap' has failed for good", runs["too-slow"])
        for name in names[:-1]:
            await logged(worker, "ERROR", "the run has failed", f"run_id={runs[name]}")
            await logged(system.executor, "ERROR", "the run has failed", f"run_id={runs[name]}", f"function={name}")
        await logged(worker, "INFO", "it begins", "customer=8", f"run_id={runs['step-fails']}", "attempt=1")
        await logged(worker, "INFO", "looking up", "customer=7", f"run_id={runs['step-fails']}", "step=look-up")
        loud = records(worker.log + system.executor.log, "WARNING", "ERROR", "CRITICAL")
        assert not [text for text in loud if runs["goes-well"] in text]


async def test_json_lines_have_the_ids_as_fields(tmp_path: Path) -> None:
    async with System(tmp_path, target=TARGET) as system:
        (worker,) = await system.start_workers(
            1, environment={"STEPWIRE_LOG_JSON": "1", "STEPWIRE_LOG_LEVEL": "warning"}
        )
        run = await system.send("step-fails")
        await system.ended(run)

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in worker.log.splitlines()]

        await until(lambda: any(line["message"].startswith("the run has failed") for line in lines()), "it is logged")
        assert {line["level"] for line in lines()} == {"warning", "error"}
        first = lines()[0]
        fields = {
            "app": "failing",
            "function": "step-fails",
            "run_id": run,
            "step": "look-up",
            "index": 0,
            "attempt": 1,
        }
        assert fields.items() <= first.items()
        assert first["error"].startswith("Traceback")


async def test_a_worker_process_that_dies_is_named_with_what_it_ran(tmp_path: Path) -> None:
    async with System(tmp_path, target=TARGET, settings={"session_grace": 0.3}) as system:
        (supervisor,) = await system.start_workers(1, processes=2)
        run = await system.send("step-dies")
        await system.ended(run)
        found: Callable[[], list[str]] = lambda: POISONED.findall(supervisor.log)  # noqa: E731
        await until(found, "the supervisor names the step")
        assert found()[0] == run
        assert "[worker-1] " in supervisor.log
        await logged(system.executor, "WARNING", "is lost", "step 'poison' of run", run)
