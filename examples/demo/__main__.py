"""`make demo`: an executor and two workers of its own, a real text, a failing step and a killed worker, watched live.

python -m examples.demo [--text PATH]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

import stepwire
from stepwire.cli.live import Lines, Tree, follow
from stepwire.records import Run, Step, StepState
from stepwire.testing import ExecutorProcess, WorkerProcess

ROOT = Path(__file__).resolve().parent.parent.parent
SLOTS = 4
KILL_AT = 0.3
"""The share of the chunks after which a worker is killed."""
TERMINAL_LINES = 24


@dataclass
class Victim:
    """The worker that is killed: which, when, and with what in hand."""

    worker: WorkerProcess
    done_before: int = 0
    in_hand: list[str] = field(default_factory=list)


async def main() -> int:
    """Run the demo; gives an exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--text", type=a_file, help="a text to summarise; default: the language reference in CPython")
    text: Path | None = parser.parse_args().text
    console = Console()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stepwire-demo-") as folder:
        log = Path(folder) / "attempts"
        log.touch()
        environment = {"DEMO_LOG": str(log)}
        with ExecutorProcess(settings={"session_grace": "2"}) as executor:
            workers = [
                WorkerProcess("examples.demo.flow:app", executor, slots=SLOTS, path=ROOT, environment=environment)
                for _ in range(2)
            ]
            try:
                for worker in workers:
                    worker.start()
                console.print(
                    f"\nOne executor (pid {executor.pid}, SQLite), two workers "
                    f"(pids {workers[0].pid} and {workers[1].pid}, {SLOTS} slots each).\n"
                    f"One step will fail, and worker {workers[1].pid} will be killed with SIGKILL.\n"
                )
                async with stepwire.Client(executor.address) as client:
                    victim = Victim(workers[1])
                    run, steps = await watch(client, console, text, victim)
                    output = await client.result(run.id)
            finally:
                for worker in workers:
                    worker.destroy()
        return report(console, run, steps, output, log.read_text(), workers, victim, time.monotonic() - begun)


def a_file(name: str) -> Path:
    """Read an argument that must name a file."""
    path = Path(name).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path


async def watch(client: stepwire.Client, console: Console, text: Path | None, victim: Victim) -> tuple[Run, list[Step]]:
    """Send the event, show the run until it has ended, and kill a worker in the middle."""
    while len(await client.workers()) < 2:  # noqa: ASYNC110 - the executor does not announce its workers
        await asyncio.sleep(0.05)
    receipt = await client.send("demo/text.submitted", {"path": str(text) if text else None})
    (run_id,) = receipt.run_ids
    watcher = Tree(console, [run_id]) if console.is_terminal else Lines(console, [run_id])
    killing = asyncio.create_task(kill_in_the_middle(client, run_id, victim))
    (run,) = await follow(client, [run_id], watcher)
    await killing
    return run, [step async for step in client.steps(run_id, outputs=True)]


async def kill_in_the_middle(client: stepwire.Client, run_id: str, victim: Victim) -> None:
    """Kill the worker once enough is done and it has something in hand."""
    while True:
        steps = [step async for step in client.steps(run_id)]
        chunks = [step for step in steps if step.key.id == "summarize-chunk"]
        done = [step for step in chunks if step.state is StepState.SUCCEEDED]
        mine = f"-{victim.worker.pid}-"
        in_hand = [step for step in chunks if step.state is StepState.RUNNING and mine in step.worker]
        if chunks and len(done) >= KILL_AT * len(chunks) and in_hand:
            victim.worker.signal(signal.SIGKILL)
            victim.done_before = len(done)
            victim.in_hand = [str(step.key) for step in in_hand]
            return
        await asyncio.sleep(0.05)


def report(
    console: Console,
    run: Run,
    steps: list[Step],
    output: dict[str, object],
    log: str,
    workers: list[WorkerProcess],
    victim: Victim,
    seconds: float,
) -> int:
    """Show the result, who did what, and whether every step was recorded once; gives an exit code."""
    lines = output["summary"]
    assert isinstance(lines, list)
    title = f"{output['characters']:,} characters in {output['chunks']} chunks, summarised"
    console.print(Panel("\n".join(f"• {line}" for line in lines), title=title, padding=(1, 2)))
    begun = Counter(line.split()[2] for line in log.splitlines())
    table = Table("worker", "attempts begun", "steps recorded", "failed", "lost with it", title="Who ran what")
    for worker in workers:
        mine = f"-{worker.pid}-"
        failures = [each for step in steps for each in step.failed_attempts if mine in each.worker]
        lost = [each for each in failures if each.failure.type == "WorkerLostError"]
        name = f"pid {worker.pid}" + (" [red](killed)[/]" if worker is victim.worker else "")
        recorded = [step for step in steps if mine in step.worker and step.sequence]
        table.add_row(
            name, str(begun[str(worker.pid)]), str(len(recorded)), str(len(failures) - len(lost)), str(len(lost))
        )
    console.print(table)
    console.print(f"\nKilled with SIGKILL after {victim.done_before} chunks, with {', '.join(victim.in_hand)} in hand.")
    for step in steps:
        for each in step.failed_attempts:
            console.print(
                f"  {step.key}: attempt {each.number} {each.failure.type}: {each.failure.message}", highlight=False
            )
    keys = Counter((step.key.id, step.key.index) for step in steps)
    sequences = {step.sequence for step in steps}
    once = max(keys.values()) == 1 and sequences == set(range(1, len(steps) + 1))
    retried = [step for step in steps if step.failed_attempts]
    console.print(
        f"\n{len(steps)} steps, [bold]each recorded exactly once: {'yes' if once else 'NO'}[/]. "
        f"{len(retried)} were tried again, on their own; no other step ran twice. {seconds:.1f} s in all.\n"
    )
    twice = {index for index, count in Counter(line.split()[0] for line in log.splitlines()).items() if count > 1}
    alone = twice <= {str(step.key.index) for step in retried if step.key.id == "summarize-chunk"}
    return 0 if run.state == "succeeded" and once and alone and victim.in_hand else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
