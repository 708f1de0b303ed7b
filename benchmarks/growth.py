"""What a step costs as runs grow: time in fan-outs, chains, invokes and replays, and memory.

Nothing may outgrow n log n. Runs that are invoked one after the other are set beside steps that run so.

python -m benchmarks.growth [--repeat N] [--json FILE] [--figures FOLDER]
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.scene import Scene, run, scene
from benchmarks.taken import Taken
from stepwire.bench.workloads import ended
from stepwire.client import Client
from stepwire.records import RunState, StepState

FANS = (10, 100, 1_000, 10_000, 100_000)
CHAINS = (10, 100, 1_000, 10_000)
INVOKES = (10, 100, 1_000)
REFERENCE = 1_000
"""The width to which larger ones are compared."""
LEAST_FOR_OTHERS = 1_000
"""Narrower ones take less memory than what a process has free anyway, and less CPU than is counted."""
POLL_SECONDS = 0.1
WARM_UP = 100
SMALL = 1_000
"""Up to here a measurement is short, and done several times in the same processes."""
TIMES = 5

NAMES = {"invokes": "row of invokes"}
"""What functions are called that have another name in tables."""

Found = dict[str, dict[int, list[float]]]
"""By what was measured and by number of steps: seconds or bytes a step."""


async def measure(stage: Scene, function: str, count: int, found: Found) -> None:
    """Measure runs, and then runs that wait at their end, whose rest is a replay."""
    times = TIMES if count <= SMALL else 1
    async with stage.client() as client:
        for warmed in {"fan", "chain", function}:
            await run(client, warmed, count=WARM_UP)
        for number in range(times):
            taken = watch(stage)
            begun = time.perf_counter()
            await run(client, function, count=count)
            note(found, NAMES.get(function, function), count, time.perf_counter() - begun, taken)
            if not number and function == "fan" and count >= LEAST_FOR_OTHERS:  # later ones use the same memory again
                for name, processes in taken.items():
                    peak = max(each.peak_bytes for each in processes)
                    found[f"memory of the {name}"][count].append(peak / count)
        for _ in range(times):
            await until_waiting(stage, client, function, count, found)


async def until_waiting(stage: Scene, client: Client, function: str, count: int, found: Found) -> None:
    """Time a run from the event that it waits for until its end; by then it has left the memory of all processes."""
    receipt = await client.send(f"benchmarks/{function}", {"count": count, "wait": True})
    run_id = receipt.run_ids[0]
    while (known := await client.get(run_id)).step_counts.get(StepState.SUCCEEDED) != count - 1:
        if known.state is RunState.FAILED:
            await ended(client, run_id, count)
        await asyncio.sleep(POLL_SECONDS)
    for each in stage.workers:
        await asyncio.to_thread(each.restart)
    taken = watch(stage)
    begun = time.perf_counter()
    await client.send("benchmarks/go-on", {})
    await ended(client, run_id, count)
    note(found, f"replay of a {NAMES.get(function, function)}", count, time.perf_counter() - begun, taken)


def watch(stage: Scene) -> dict[str, list[Taken]]:
    """Begin to watch all processes."""
    pids = {"executor": [stage.executor.pid], "worker": [each.pid for each in stage.workers]}
    return {name: [Taken(pid) for pid in each] for name, each in pids.items()}


def note(found: Found, what: str, count: int, seconds: float, taken: dict[str, list[Taken]]) -> None:
    """Note what one run took: time, and CPU of all processes."""
    found[what][count].append(seconds / count)
    if count >= LEAST_FOR_OTHERS:
        cpu = sum(each.cpu_seconds for processes in taken.values() for each in processes)
        found[f"CPU of a {what}"][count].append(cpu / count)


def all_sizes(repeats: int) -> Found:
    """Measure every size, each time in fresh processes."""
    found: Found = defaultdict(lambda: defaultdict(list))
    for function, counts in (("fan", FANS), ("chain", CHAINS), ("invokes", INVOKES)):
        for count in counts:
            for number in range(1, repeats + 1):
                with scene() as stage:
                    asyncio.run(measure(stage, function, count, found))
                micros = statistics.median(found[NAMES.get(function, function)][count]) * 1e6
                command.progress(f"{function} of {count:,}: {number} of {repeats}, {micros:,.0f} µs a step")
    return found


def growth(count: int, medians: dict[int, float]) -> list[str]:
    """Compare the cost a step with that at the reference, and say what n log n would let it be."""
    if count <= REFERENCE:
        return ["", ""]
    return [f"{medians[count] / medians[REFERENCE]:.2f}", f"at most {math.log(count, REFERENCE):.2f}"]


def table(found: Found) -> str:
    """Write what was measured, with its growth."""
    rows = []
    for name, sizes in found.items():
        unit, scale = (" B", 1.0) if name.startswith("memory") else (" µs", 1e6)
        medians = {count: statistics.median(values) for count, values in sizes.items()}
        for count, values in sizes.items():
            cost = command.spread([value * scale for value in values], "{:,.0f}")
            rows.append([name, f"{count:,}", cost + unit, *growth(count, medians)])
    head = ["what", "steps", "a step (lowest to highest)", f"of that at {REFERENCE:,}", "n log n"]
    return command.table(head, rows)


def beside_steps(found: Found) -> str:
    """Say what invoking a run costs beside a step, with as many of each in a row."""
    invoke, step = (statistics.median(found[name][REFERENCE]) for name in (NAMES["invokes"], "chain"))
    return f"\n{REFERENCE:,} invokes in a row take {invoke / step:.1f} times as long as {REFERENCE:,} steps.\n"


def figures(found: Found) -> dict[str, dict[str, Any]]:
    """Give what is drawn, by file."""
    drawn = {
        "growth": ("Time a step, by the width of the fan-out", "µs a step", ("fan", "replay of a fan"), 1e6),
        "growth_chain": ("Time a step, by the length of the chain", "µs a step", ("chain", "replay of a chain"), 1e6),
        "growth_memory": (
            "Memory a step at the peak, by the width of the fan-out",
            "bytes a step",
            ("memory of the executor", "memory of the worker"),
            1.0,
        ),
    }
    return {
        file: {
            "title": title,
            "x_label": "steps of the run",
            "y_label": label,
            "x": list(found[names[0]]),
            "series": {name: [statistics.median(each) * scale for each in found[name].values()] for name in names},
        }
        for file, (title, label, names, scale) in drawn.items()
    }


def main() -> int:
    """Measure and print."""
    parser = command.parser("growth", __doc__, 3)
    folder = Path(__file__).parent / "figures"
    parser.add_argument("--figures", type=Path, default=folder, help="folder for the data of the figures")
    given = parser.parse_args()
    found = all_sizes(given.repeat)
    given.figures.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(found).items():
        (given.figures / f"{name}.json").write_text(json.dumps(figure, indent=1, ensure_ascii=False) + "\n")
    command.show(table(found) + beside_steps(found), {"a_step": found}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
