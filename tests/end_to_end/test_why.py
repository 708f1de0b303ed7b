"""What `stepwire why` says of a run that comes to wait for one thing after the other, with real processes."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.end_to_end.processes import ROOT, System, until


async def why(system: System, run_id: str, *options: str) -> str:
    """Run the command to its end."""
    environment = {**os.environ, "STEPWIRE_EXECUTOR": system.executor.address, "COLUMNS": "200"}
    command = [sys.executable, "-m", "stepwire.cli", "why", run_id, *options]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def says(system: System, run_id: str, *patterns: str) -> str:
    """Run the command until its text has all of this, in this order; gives the text."""
    text = ""

    async def fits() -> bool:
        nonlocal text
        text = await why(system, run_id)
        return re.search(".*".join(patterns), text, re.DOTALL) is not None

    try:
        await until(fits, f"stepwire why says {patterns}")
    except AssertionError:
        print(text)
        raise
    return text


async def test_each_thing_that_a_run_waits_for_is_said(tmp_path: Path):
    async with System(tmp_path, target="tests.end_to_end.apps.moves:app") as system:
        (first,) = await system.start_workers(1, slots=1)
        await asyncio.to_thread(first.stop)
        run_id = await system.send("moves/job")
        gone = "the body waits for a worker: none serves function moves/job; the last one went away"
        text = await says(system, run_id, gone, r"since \d\d:\d\d:\d\d\n")
        assert "start a worker that serves it: stepwire worker module:app" in text
        await system.kill_executor()
        await says(system, run_id, "none has since the executor started")

        (worker,) = await system.start_workers(1, slots=1)
        full = r"waits for a slot: 1 worker serves it, full \(1 of 1 slots are taken\)"
        holds = rf"worker \S+ has 1 of 1 slots taken, the longest by step held(:1)? of run {run_id}"
        await says(system, run_id, rf"step held(:1)? {full}", holds, r"attempt 1 of step held(:1)? has run in worker")

        system.open_gate("one")
        system.open_gate("two")
        retry = (
            r"the retry of step pay is due in (1 h 00 m|59 m \d\d s) \(attempt 2 of 5\), "
            "after RetryAfterError: the bank is closed"
        )
        await says(
            system, run_id, retry, r"step told-retry waits for an event 'moves/retry', at most 36[56] d \d+ h more"
        )

        await system.client.send("moves/retry")
        await says(
            system, run_id, "step told-sleep waits for", r"step nap sleeps; its end is due in (1 h 00 m|59 m \d\d s)"
        )

        await system.client.send("moves/sleep")
        inner = r"step child waits for run \w{26} of moves/inner"
        await says(system, run_id, inner, r"    └── attempt 1 of step deep has run in worker \S+ for")

        following = asyncio.create_task(why(system, run_id, "--follow"))
        worker.kill()
        await says(system, run_id, inner, r"the (retry of step deep|stream of worker \S+ has been lost)")
        await system.start_workers(1, slots=1)
        system.open_gate("deep")
        assert await system.result(run_id) == "done"
        assert f"run {run_id} has succeeded" in await why(system, run_id)
        followed = await following
        assert "attempt 1 of step deep has run" in followed
        assert followed.rstrip().splitlines()[-1].startswith(f"└── run {run_id} has succeeded")
