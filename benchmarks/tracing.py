"""What tracing costs: fan-1000 with and without it, one after the other, and whether every span arrives.

python -m benchmarks.tracing [--repeat N] [--json FILE]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks import command
from benchmarks.receiver import Receiver, receiver
from benchmarks.scene import Scene, run, scene
from benchmarks.taken import Taken

WIDTH, WIDEST = 1_000, 10_000
WARM_UPS = 3
MOST_COST = 0.25
PATIENCE_SECONDS = 30.0
ON, OFF, ALSO_OFF = "on", "off", "off, once more"


@dataclass(slots=True)
class Found:
    """What was measured of one way to run: seconds a run, and of CPU in all of its processes."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


async def timed(stage: Scene, found: Found) -> None:
    """Time one fan-out."""
    async with stage.client() as client:
        taken = [Taken(process.pid) for process in (stage.executor, *stage.workers)]
        begun = time.perf_counter()
        await run(client, "fan", count=WIDTH)
        found.seconds.append(time.perf_counter() - begun)
        found.cpu_seconds.append(sum(each.cpu_seconds for each in taken))


async def arrived(receiver: Receiver, expected: int) -> int:
    """Wait until so many spans have come, but not for ever; gives how many have."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while receiver.spans < expected and time.monotonic() < deadline:  # noqa: ASYNC110 - the receiver does not tell
        await asyncio.sleep(0.05)
    return receiver.spans


async def measure(
    stages: dict[str, Scene], receiver: Receiver, repeats: int
) -> tuple[dict[str, Found], dict[str, Any]]:
    """Run the same in each, in turn; the spans of one run are there before the next begins."""
    for stage in stages.values():
        for _ in range(WARM_UPS):
            await timed(stage, Found())
    expected = WARM_UPS * (WIDTH + 1)
    await arrived(receiver, expected)
    found = {name: Found() for name in stages}
    for number in range(1, repeats + 1):
        for name, stage in stages.items():
            await timed(stage, found[name])
        expected += WIDTH + 1
        await arrived(receiver, expected)
        command.progress(f"{number} of {repeats}: {cost(found):.0%} more, {receiver.spans:,} of {expected:,} spans")
    before = receiver.spans
    async with stages[ON].client() as client:
        await run(client, "fan", count=WIDEST)
    after = await arrived(receiver, before + WIDEST + 1)
    spans = {
        f"fan-{WIDTH}": {"expected": expected, "arrived": before},
        f"fan-{WIDEST}": {"expected": WIDEST + 1, "arrived": after - before},
    }
    return found, spans


def cost(found: dict[str, Found], other: str = ON) -> float:
    """Compare the medians with those without tracing: the share that comes on top."""
    return statistics.median(found[other].seconds) / statistics.median(found[OFF].seconds) - 1


def table(found: dict[str, Found], spans: dict[str, Any]) -> str:
    """Write what was measured beside the aims."""
    rows = []
    for name, each in found.items():
        times = command.spread([value * 1e3 for value in each.seconds]) + " ms"
        work = f"{statistics.median(each.cpu_seconds) / WIDTH * 1e6:,.0f} µs"
        compared = "" if name == OFF else f"{cost(found, name):+.1%}"
        aim = {ON: f"at most {MOST_COST:+.0%}", ALSO_OFF: "what chance does"}.get(name, "")
        rows.append([name, times, work, compared, aim])
    text = command.table(["tracing", f"fan-{WIDTH}", "CPU a step", "time against off", "the aim"], rows)
    lines = (f"{name}: {count['arrived']:,} of {count['expected']:,} spans arrived" for name, count in spans.items())
    return text + "\n" + "; ".join(lines) + ".\n"


def main() -> int:
    """Measure and print."""
    given = command.parser("tracing", __doc__, 15).parse_args()
    with receiver() as there:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": there.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "500"}
        with scene(environment=traced) as on, scene() as off, scene() as also_off:
            stages = {ON: on, OFF: off, ALSO_OFF: also_off}
            found, spans = asyncio.run(measure(stages, there, given.repeat))
    data = {name: {"seconds": each.seconds, "cpu_seconds": each.cpu_seconds} for name, each in found.items()}
    command.show(table(found, spans), {"tracing": data, "spans": spans}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
