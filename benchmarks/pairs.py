"""Compare two checkouts by short bursts that take turns, so that the moods of a shared machine meet both alike.

python -m benchmarks.pairs CHECKOUT [--repeat N] [--json FILE] [WORKLOAD ...]

CHECKOUT is a folder, made with `git worktree add FOLDER COMMIT` for instance. Both run in this environment.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks import command
from benchmarks.scene import ROOT
from benchmarks.taken import cpu_of_threads
from stepwire.bench.workloads import WORKLOADS

TIMES = {"fan-100": 6, "fan-1000": 2, "fan-50x20": 2, "chain-3": 15}
"""How often a workload is done in a burst, if more than once: bursts are to take some tenths of a second at most."""
ROUNDS_A_START = 3
"""After so many rounds both systems are started anew, the other one first: each has a luck of its own, of some percent,
that lasts."""
PACKAGES = ("executor", "sdk_python", "proto/gen")


class Side:
    """A system of one checkout, in processes of its own."""

    def __init__(self, checkout: Path) -> None:
        path = os.pathsep.join(str(checkout / package) for package in PACKAGES)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(ROOT / "benchmarks/side.py")],  # -P: names of benchmarks hide no others'
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._pids: list[int] = []

    def __enter__(self) -> Self:
        self._pids = json.loads(self._line())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate("\n")

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("one side has ended; what it said stands above")
        return line

    def burst(self, name: str, times: int) -> tuple[float, float]:
        """Do a workload so many times; gives the median of their seconds, and the CPU seconds of one time."""
        assert self._process.stdin is not None
        before = sum(map(cpu_of_threads, self._pids))
        self._process.stdin.write(json.dumps([name, times]) + "\n")
        self._process.stdin.flush()
        seconds = json.loads(self._line())
        return statistics.median(seconds), (sum(map(cpu_of_threads, self._pids)) - before) / times


@dataclass(slots=True)
class Pairs:
    """What was measured of a workload: seconds, and seconds of CPU, of the other checkout and of this one."""

    name: str
    seconds: list[tuple[float, float]] = field(default_factory=list)
    cpu_seconds: list[tuple[float, float]] = field(default_factory=list)

    def row(self) -> list[str]:
        """Give it as a line of the table."""
        other, here = (statistics.median(side) * 1e3 for side in zip(*self.seconds, strict=True))
        return [self.name, f"{other:,.1f} ms", f"{here:,.1f} ms", middle(self.seconds), middle(self.cpu_seconds)]


def middle(pairs: Sequence[tuple[float, float]]) -> str:
    """Write what this checkout takes of the other's: the median of the pairs, and where the middle half lies."""
    low, median, high = statistics.quantiles((here / other for other, here in pairs), n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def measure(other: Path, name: str, rounds: int) -> Pairs:
    """Let both sides take turns at a workload, and at being the first."""
    found, times = Pairs(name), TIMES.get(name, 1)
    checkouts = (other, ROOT)
    for start, first in enumerate(range(0, rounds, ROUNDS_A_START)):
        with ExitStack() as started:
            sides = {at: started.enter_context(Side(checkouts[at])) for at in ((0, 1) if start % 2 else (1, 0))}
            for side in [*sides.values()] * 2:
                side.burst(name, times)  # warms up
            for number in range(first, min(first + ROUNDS_A_START, rounds)):
                order = (0, 1) if number % 2 else (1, 0)
                taken = {at: sides[at].burst(name, times) for at in order}
                found.seconds.append((taken[0][0], taken[1][0]))
                found.cpu_seconds.append((taken[0][1], taken[1][1]))
    return found


def main() -> int:
    """Measure and print."""
    parser = command.parser("pairs", __doc__, 30)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("checkout", type=Path, help="folder of the other checkout")
    parser.add_argument("only", nargs="*", metavar="WORKLOAD", help="which workloads (all)")
    given = parser.parse_intermixed_args()
    for name in given.only:
        if name not in names:
            parser.error(f"there is no workload {name!r}: there are {', '.join(names)}")
    other = given.checkout.resolve()
    if not (other / PACKAGES[0]).is_dir():
        parser.error(
            f"{given.checkout} is no checkout of Stepwire: make one with git worktree add {given.checkout} COMMIT"
        )
    if given.repeat < 2:
        parser.error("--repeat must be at least 2")
    found = []
    for name in given.only or names:
        found.append(measure(other, name, given.repeat))
        command.progress(f"{name}: {middle(found[-1].seconds)} of the other's time")
    head = ["workload", "the other", "this one", "this one's time of the other's", "its CPU of the other's"]
    data = {each.name: {"seconds": each.seconds, "cpu_seconds": each.cpu_seconds} for each in found}
    command.show(command.table(head, [each.row() for each in found]), data, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
