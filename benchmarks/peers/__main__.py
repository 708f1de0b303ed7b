"""Measure Stepwire and its peers on the same workloads, in turn, each time in fresh processes.

python -m benchmarks.peers [--repeat N] [--system NAME ...] [--json FILE] [--readme FILE] [WORKLOAD ...]
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import machine, progress
from benchmarks.peers import dbos, durable_task, report, restate, stepwire
from benchmarks.peers.figures import Figures, ratios
from benchmarks.peers.system import BENCH_PYTHON, ROOT, System
from benchmarks.peers.workloads import WORKLOADS, Workload
from stepwire.testing.process import ProcessError

SYSTEMS = (stepwire.SYSTEM, restate.SYSTEM, dbos.SYSTEM, durable_task.SYSTEM)
CLIENT_SECONDS = 600.0
"""When a client that does not end by itself is killed."""


def installed(python: str | Path) -> dict[str, str]:
    """Give the version of every package of an environment."""
    words = [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    listed = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return {package["name"].lower(): package["version"] for package in listed}


def take(system: System, workload: Workload) -> dict[str, Any]:
    """Do a workload in fresh processes; gives its `seconds`, or why it was `too_long` or `failed`."""
    found: dict[str, Any] = {}
    try:
        with system.stage() as client:
            words = [*client, workload.name]
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=CLIENT_SECONDS)
            said = (done.stderr if done.returncode else done.stdout).strip().splitlines() or ["nothing"]
            found = {"failed": f"its client said: {said[-1][:300]}"} if done.returncode else json.loads(said[-1])
    except subprocess.TimeoutExpired:
        return {"too_long": f"its client did not end within {CLIENT_SECONDS:g} s"}
    except ProcessError as error:
        return found or {"failed": str(error).splitlines()[0]}  # what was measured counts, however a process ends then
    return found


def measure(systems: Sequence[System], workloads: Sequence[Workload], repeats: int) -> dict[str, Any]:
    """Measure in turn: every system does a workload before the next one comes, and all of that several times."""
    found = {system.name: {workload.name: Figures(workload) for workload in workloads} for system in systems}
    trouble: dict[str, dict[str, str]] = {system.name: {} for system in systems}
    too_long: set[tuple[str, str]] = set()
    missing = {system.name: system.missing() for system in systems}
    for repeat in range(1, repeats + 1):
        for workload in workloads:
            for system in systems:
                if missing[system.name] or (system.name, workload.name) in too_long:
                    continue
                what = f"{repeat} of {repeats}  {workload.name:12} {system.name:12}"
                taken = take(system, workload)
                if "seconds" in taken:
                    figures = found[system.name][workload.name]
                    figures.repeats.append(taken["seconds"])
                    progress(f"{what} {figures.rate:8,.0f} steps/s, {figures.percentile_ms(0.5):8,.1f} ms")
                else:
                    [[kind, reason]] = taken.items()
                    trouble[system.name][workload.name] = reason
                    if kind == "too_long":
                        too_long.add((system.name, workload.name))
                    progress(f"{what} nothing measured: {reason}")
    ours, theirs = installed(sys.executable), installed(BENCH_PYTHON)
    return {
        system.name: {
            "given": system.given,
            "missing": missing[system.name],
            "versions": {
                **({} if missing[system.name] else system.versions()),
                **{name: (ours if system is stepwire.SYSTEM else theirs)[name] for name in system.packages},
            },
            "workloads": {name: figures.as_data() for name, figures in found[system.name].items() if figures.repeats},
            "trouble": trouble[system.name],
        }
        for system in systems
    }


def end(*_: object) -> None:
    """End as Ctrl-C does, so that no process and no folder is left."""
    raise KeyboardInterrupt


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", metavar="WORKLOAD", help="which workloads (all)")
    parser.add_argument("--repeat", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--system", action="append", help="which systems (all); may be given several times")
    parser.add_argument("--json", type=Path, help="write what was measured into this file")
    parser.add_argument("--readme", type=Path, help="write the report between its marks in this file too")
    given = parser.parse_args()
    workloads = [each for each in WORKLOADS if each.name in (given.only or [each.name])]
    systems = [each for each in SYSTEMS if each.name in (given.system or [each.name])]
    for kind, known, asked in (("workload", WORKLOADS, given.only), ("system", SYSTEMS, given.system or [])):
        names = [each.name for each in known]
        for name in asked:
            if name not in names:
                parser.error(f"there is no {kind} {name!r}: there are {', '.join(names)}")
    if not BENCH_PYTHON.exists():
        parser.error("the peers' packages are not installed: `make bench-peers` does it")
    signal.signal(signal.SIGTERM, end)
    measured = measure(systems, workloads, given.repeat)
    data = {
        "measured": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "repeat": given.repeat,
        "machine": machine(),
        "workloads": [workload.name for workload in workloads],
        "systems": measured,
        "ratios": ratios(measured),
    }
    text = report.report(data)
    sys.stdout.write(text + "\n")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(data, indent=1) + "\n")
    if given.readme:
        report.write(given.readme, text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
