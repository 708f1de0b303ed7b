"""What tracing costs: fan-outs with and without it, one after the other, and whether every span arrives.

python -m benchmarks.tracing [--repeat N] [--json FILE]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
import timeit
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import command, store
from benchmarks.receiver import Receiver, receiver
from benchmarks.scene import Scene, run, scene
from benchmarks.taken import Taken
from stepwire_core.commands import AttemptIssued, Observation
from stepwire_core.model import StepKey
from stepwire_executor.telemetry import Telemetry

WIDTHS = (1_000, 10_000)
"""The second has more spans than gather: there its own are exported beside it."""
SHARE_OF_WIDEST = 3
"""One in so many repeats measures the widest too."""
WARM_UPS = 3
MOST_COST = 0.25
PATIENCE_SECONDS = 30.0
CALLS = 10_000
DELAY_MILLISECONDS = "1000"
"""How long spans gather; 5 s by default, for which nobody wants to wait here after each run."""
REST_SECONDS = 1.5
"""After each run, in which its spans go out."""
ON, OFF, ALSO_OFF = "on", "off", "off, once more"


@dataclass(slots=True)
class Found:
    """What was measured of one width in one way: seconds a run, and of CPU in all of its processes until it rests."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


async def measured(stage: Scene, width: int, found: Found) -> None:
    """Measure one fan-out, and let its spans go out."""
    async with stage.client() as client:
        taken = [Taken(process.pid) for process in (stage.executor, *stage.workers)]
        begun = time.perf_counter()
        await run(client, "fan", count=width)
        found.seconds.append(time.perf_counter() - begun)
        await asyncio.sleep(REST_SECONDS)
        found.cpu_seconds.append(sum(each.cpu_seconds for each in taken))


async def arrived(receiver: Receiver, expected: int) -> int:
    """Wait until so many spans have come, but not for ever; gives how many have."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while receiver.spans < expected and time.monotonic() < deadline:  # noqa: ASYNC110 - the receiver does not tell
        await asyncio.sleep(0.05)
    return receiver.spans


async def measure(stages: dict[str, Scene], repeats: int) -> dict[int, dict[str, Found]]:
    """Run the same in each, in turn."""
    for stage in stages.values():
        async with stage.client() as client:
            for _ in range(WARM_UPS):
                await run(client, "fan", count=WIDTHS[0])
    found = {width: {name: Found() for name in stages} for width in WIDTHS}
    for number in range(1, repeats + 1):
        for width in WIDTHS if number % SHARE_OF_WIDEST == 1 else WIDTHS[:1]:
            for name, stage in stages.items():
                await measured(stage, width, found[width][name])
        command.progress(f"{number} of {repeats}: {cost(found[WIDTHS[0]], ON):+.0%}")
    return found


def silent_seconds() -> float:
    """Give what the calls of one attempt cost that are made while tracing is off."""
    telemetry = Telemetry()
    [run_] = store.run(1).new_runs.values()
    issued: Sequence[Observation] = [AttemptIssued(run_.id, StepKey("step", 0), 1, 1, "worker", "session", None, 0.0)]

    def calls() -> None:
        telemetry.attempt_traceparent(run_, 1)
        telemetry.observe(issued)

    return min(timeit.repeat(calls, number=CALLS)) / CALLS


def cost(found: dict[str, Found], name: str) -> float:
    """Compare the median with that without tracing: the share that comes on top."""
    return statistics.median(found[name].seconds) / statistics.median(found[OFF].seconds) - 1


def table(found: dict[int, dict[str, Found]]) -> str:
    """Write what was measured beside the aim."""
    rows = []
    for width, ways in found.items():
        for name, each in ways.items():
            times = command.spread([value * 1e3 for value in each.seconds]) + " ms"
            work = f"{statistics.median(each.cpu_seconds) / width * 1e6:,.0f} µs"
            compared = "" if name == OFF else f"{cost(ways, name):+.1%}"
            aim = {ON: f"at most {MOST_COST:+.0%}", ALSO_OFF: "what chance does"}.get(name, "")
            rows.append([f"fan-{width}", name, times, work, compared, aim if width == WIDTHS[0] else ""])
    return command.table(["workload", "tracing", "time", "CPU a step", "time against off", "the aim"], rows)


def main() -> int:
    """Measure and print."""
    given = command.parser("tracing", __doc__, 12).parse_args()
    with receiver() as there:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": there.endpoint, "OTEL_BSP_SCHEDULE_DELAY": DELAY_MILLISECONDS}
        with scene(environment=traced) as on, scene() as off, scene() as also_off:
            found = asyncio.run(measure({ON: on, OFF: off, ALSO_OFF: also_off}, given.repeat))
            expected = WARM_UPS * (WIDTHS[0] + 1)  # of each attempt and of the run
            expected += sum((width + 1) * len(ways[ON].seconds) for width, ways in found.items())
            spans = asyncio.run(arrived(there, expected))
    runs = [
        {"width": width, "tracing": name, "seconds": each.seconds, "cpu_seconds": each.cpu_seconds}
        for width, ways in found.items()
        for name, each in ways.items()
    ]
    silent = silent_seconds()
    text = f"{table(found)}\n{spans:,} of {expected:,} spans arrived; off, a step costs {silent * 1e6:.2f} µs.\n"
    data = {"runs": runs, "spans": {"expected": expected, "arrived": spans}, "seconds_a_step_off": silent}
    command.show(text, data, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
