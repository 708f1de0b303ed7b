"""What was measured, as Markdown: made of the JSON alone, so that it can be written again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import command

LATENCY = "chain-3"
"""The workload that is told in milliseconds a run."""
BEGIN, END = "<!-- peers: written by `make bench-peers README=1` -->", "<!-- peers: end -->"


def row(cells: Iterable[str]) -> str:
    """Write a row of a table."""
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Write a number with about three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def measured(figures: dict[str, Any] | None, unit: str, sign: str) -> str:
    """Write a median, and below it the lowest and the highest."""
    if not figures:
        return "-"
    low, high = figures[f"{unit}_spread"]
    return f"{number(figures[unit])}{sign} <br> {number(low)} to {number(high)}"


def table(data: dict[str, Any]) -> list[str]:
    """Write what was measured."""
    systems = data["systems"]
    lines = [row(["steps/s, median <br> lowest to highest", *systems]), "|---" * (1 + len(systems)) + "|"]
    every = [system["workloads"] for system in systems.values()]
    for name in data["workloads"]:
        if name == LATENCY:
            lines.append(row([f"{name}, p50", *(measured(w.get(name), "p50_ms", " ms") for w in every)]))
            p99 = [f"{number(w[name]['p99_ms'])} ms" if name in w else "-" for w in every]
            lines.append(row([f"{name}, p99", *p99]))
        else:
            lines.append(row([name, *(measured(w.get(name), "steps_per_second", "") for w in every)]))
    return lines


def compared(data: dict[str, Any]) -> list[str]:
    """Write the steps a second of the first system as multiples of those of each other one."""
    first, others = next(iter(data["systems"])), data["ratios"]
    lines = [row([f"{first} / peer", *others]), "|---" * (1 + len(others)) + "|"]
    for name in data["workloads"]:
        cells = [f"{number(found[name])}" if name in found else "-" for found in others.values()]
        lines.append(row([name, *cells]))
    return lines


def report(data: dict[str, Any]) -> str:
    """Write everything."""
    machine = data["machine"]
    lines = [
        f"Repeated {data['repeat']} times in turn, measured on {data['measured']}: {machine['cores']} cores "
        f"({machine['processor']}), {machine['system']}, Python {machine['python']}.",
        "",
        *table(data),
        "",
        *compared(data),
        "",
    ]
    for name, system in data["systems"].items():
        versions = ", ".join(f"{package} {version}" for package, version in system["versions"].items())
        lines.append(f"- **{name}** ({versions}): {system['given']}.")
        if system["missing"]:
            lines.append(f"  Not to be had: {system['missing']}.")
        for workload, reason in system["trouble"].items():
            what = f"A repeat of {workload} came to nothing" if workload in system["workloads"] else f"No {workload}"
            lines.append(f"  {what}: {reason}.")
    return "\n".join(lines)


def write(readme: Path, text: str) -> None:
    """Put a report between its marks in a file. Raises ValueError if they are not there."""
    command.write_between(readme, BEGIN, END, text)
