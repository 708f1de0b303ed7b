"""`stepwire status`: how an executor is, on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stepwire.cli import words
from stepwire.cli.listing import used
from stepwire.cli.output import DEFAULT_EXECUTOR, ExecutorOption, JsonOption, ask, print_json, screen
from stepwire.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from stepwire.status import ExecutorStatus, Times

STYLES = {"serving": "green", "draining": "yellow", "standby": "cyan", "failing": "red"}
SLOW_SECONDS, BAD_SECONDS = 0.02, 1.0
"""Pieces of work that others notice, and that hurt them."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def status(executor: ExecutorOption = DEFAULT_EXECUTOR, as_json: JsonOption = False) -> None:
    """Show how the executor is: its load, how long things take, and who holds its memory.

    Times are those of the last one to two minutes. It answers while its store fails, too.
    """
    found = ask(executor, lambda client: client.status())
    if as_json:
        from stepwire.cli.as_json import plain

        return print_json(plain(found))
    show_status(screen(), found, datetime.now(UTC))
    return None


def show_status(console: Console, found: ExecutorStatus, now: datetime) -> None:
    """Print the screen."""
    from rich.text import Text

    for name, text in rows(found, now):
        console.print(Text.assemble((f"{name:<9}", "dim"), text), soft_wrap=True)
    show_holders(console, found)


def rows(found: ExecutorStatus, now: datetime) -> Iterator[tuple[str, Text]]:
    """Give each line: what it is about, and what there is to say."""
    from rich.text import Text

    state = found.state.value
    yield (
        "executor",
        Text.assemble(
            (state, STYLES.get(state, "")),
            f"  {one_line(found.version)}  up {words.age(found.started_at, now)}  epoch {found.epoch}",
        ),
    )
    if found.reason:
        yield "", Text(one_line(found.reason), STYLES.get(state, ""))
    taken = Text.assemble(words.count(found.workers, "worker"), "  ")
    yield "workers", taken.append_text(used(found.slots_taken, found.slots)).append(" slots taken")
    yield "runs", Text(f"{found.runs:,} in memory; {words.count(found.watches, 'run')} waited for or watched")
    most = f"at most {found.max_queued_runs:,} and {size(found.max_queued_bytes)}"
    yield (
        "",
        Text(
            f"{found.queued_runs:,} wait for a worker, with {size(found.queued_bytes)} of events and results ({most})"
        ),
    )
    waiting = f"{found.queued_inputs:,} to decide"
    if found.queued_inputs:
        waiting += f", the first for {words.duration(found.oldest_input)}"
    yield "queue", Text(f"{waiting}; waited: {spread(found.waits)}")
    longest = found.pieces.longest
    style = "red" if longest >= BAD_SECONDS else "yellow" if longest >= SLOW_SECONDS else ""
    yield "loop", Text(f"pieces of work: {spread(found.pieces)}", style)
    yield "commits", Text(spread(found.commits))
    yield "memory", Text(size(found.memory_bytes))
    if found.faults or found.begun_anew:
        met = f"{words.count(found.faults, 'bug')} of its own met, {words.count(found.begun_anew, 'time')} begun anew"
        yield "faults", Text(f"{met}: the executor's log says more", "red")


def show_holders(console: Console, found: ExecutorStatus) -> None:
    """Print who holds memory, as a table."""
    from rich.text import Text

    from stepwire.cli import tables

    if not found.holders:
        return
    lines = [
        [
            Text(size(each.bytes), "bold"),
            Text(words.count(each.count, "run" if each.kind.value == "runs" else "message")),
            Text(each.kind.value),
            Text(one_line(each.app)),
            Text(one_line(each.worker), "magenta"),
        ]
        for each in found.holders
    ]
    console.print()
    tables.show(console, ("HELD", "OF", "AS", "APP", "WORKER"), lines, elastic=(3, 4))


def spread(times: Times) -> str:
    """Write how long something took."""
    if not times.count:
        return "none in the last minutes"
    parts = (("p50", times.p50), ("p99", times.p99), ("p99.9", times.p999), ("longest", times.longest))
    return ", ".join(f"{name} {precise(seconds)}" for name, seconds in parts) + f" ({times.count:,})"


def precise(seconds: float) -> str:
    """Write a short time with two digits, in the unit that fits."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.2g} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"
    return words.duration(seconds)


def size(number: int) -> str:
    """Write a number of bytes in the unit that fits."""
    value, unit = float(number), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {UNITS[unit]}" if value >= 10 or not unit else f"{value:.1f} {UNITS[unit]}"
