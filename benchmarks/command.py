"""What the commands of the benchmarks have in common: arguments, progress, tables, JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_begun = time.monotonic()


def machine() -> dict[str, Any]:
    """Say where and with what was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("stepwire", "grpcio", "protobuf", "aiosqlite")},
    }


def parser(name: str, says: str | None, repeat: int | None) -> argparse.ArgumentParser:
    """Make the parser of a benchmark; `says` is its module's docstring. With None it takes no --repeat."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(says or "").partition("\n")[0])
    if repeat is not None:
        made.add_argument("--repeat", type=int, default=repeat, help=f"how often each is measured (default {repeat})")
    made.add_argument("--json", type=Path, help="write what was measured into this file too")
    return made


def progress(text: str) -> None:
    """Tell somebody who waits how far it is."""
    sys.stderr.write(f"{time.monotonic() - _begun:5.0f} s  {text}\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(values: Sequence[float], form: str = "{:,.1f}") -> str:
    """Write a median with the lowest and the highest."""
    median, low, high = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({low} to {high})"


def percentile(values: Sequence[float], share: float) -> float:
    """Give what a share (0 to 1) of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(text: str, data: Mapping[str, Any], file: Path | None) -> None:
    """Print a table, and write the data, with the machine that it is of, if a file is given."""
    sys.stdout.write(text)
    if file is not None:
        file.write_text(json.dumps({"machine": machine(), **data}, indent=1) + "\n")


def write_between(file: Path, begin: str, end: str, text: str) -> None:
    """Put a report between two marks in a file. Raises ValueError if they are not there."""
    before, found_begin, rest = file.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{file} has no place for the report: it lies between {begin!r} and {end!r}")
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
