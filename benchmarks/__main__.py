"""All figures in one run: every workload in fresh processes, then the limits of gRPC and the disk.

python -m benchmarks [--repeat N] [--json FILE] [WORKLOAD ...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.command import progress, show
from benchmarks.limits import limits
from stepwire.bench.stage import measure
from stepwire.bench.workloads import WORKLOADS, Figures


def table(found: list[Figures], bare: dict[str, float]) -> str:
    """Write a Markdown table: rates, times, and the share of what a bare stream and bare commits can do.

    A step is at least two messages in each direction and two rows.
    """
    stream, rows = bare["stream: operations/s, 100 a frame"] / 2, bare["commit: rows/s, 100 a commit"] / 2
    lines = [
        "| workload | steps/s | lowest to highest | p50 | p99 | of bare frames | of bare commits |",
        "|---" * 7 + "|",
    ]
    for figures in found:
        low, high = figures.spread
        times = " | ".join(f"{figures.percentile(share) * 1e3:,.1f} ms" for share in (0.5, 0.99))
        shares = f"{figures.rate / stream:.0%} | {figures.rate / rows:.0%}"
        rates = f"{figures.rate:,.0f} | {low:,.0f} to {high:,.0f}"
        lines.append(f"| {figures.workload.name} | {rates} | {times} | {shares} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", metavar="WORKLOAD", help="which workloads (all)")
    parser.add_argument("--repeat", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--json", type=Path, help="write what was measured into this file too")
    given = parser.parse_args()
    known = {workload.name: workload for workload in WORKLOADS}
    for name in given.only:
        if name not in known:
            parser.error(f"there is no workload {name!r}: there are {', '.join(known)}")
    found = measure([known[name] for name in given.only or known], given.repeat, progress=progress)
    progress("the limits of gRPC and the disk")
    bare = limits()
    text = "".join(f"{name:36} {value:12,.2f}\n" for name, value in bare.items())
    workloads = {figures.workload.name: figures.as_data() for figures in found}
    show(f"{table(found, bare)}\n\n{text}", {"workloads": workloads, "limits": bare}, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
