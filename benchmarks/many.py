"""Very many runs: 100,000 that sleep, and a database with 1,000,000 that have ended.

python -m benchmarks.many [asleep] [finished] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import asleep, finished
from benchmarks.command import progress, show

PARTS: Mapping[str, Callable[[asleep.Progress], dict[str, float]]] = {
    "asleep": asleep.measure,
    "finished": finished.measure,
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", metavar="PART", help=f"which parts: {', '.join(PARTS)} (all)")
    parser.add_argument("--json", type=Path, help="write what was measured into this file too")
    given = parser.parse_args()
    for name in given.only:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}: there are {', '.join(PARTS)}")
    found = {name: measure(progress) for name, measure in PARTS.items() if name in (given.only or PARTS)}
    lines = [f"{name:60} {value:12,.2f}\n" for figures in found.values() for name, value in figures.items()]
    show("".join(lines), found, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
