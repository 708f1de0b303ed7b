"""Many cases: what a process of a pool does, and how what they have shown is added up."""

from __future__ import annotations

import json
import logging
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.simulation import points
from tests.simulation.cases import Case, draw
from tests.simulation.simulation import Report, simulate

CHUNK = 25


class Tally:
    """What many cases have shown."""

    def __init__(self) -> None:
        self.cases = 0
        self.runs = 0
        self.steps = 0
        self.cpu_seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.broken: dict[str, list[str]] = {}

    def add(self, name: str, report: Report) -> None:
        """Take a report in."""
        self.cases += 1
        self.runs += report.runs
        self.steps += report.steps
        self.faults.update(report.faults)
        self.seen.update(report.seen)
        if report.broken:
            self.broken[name] = report.broken

    def merge(self, other: Tally) -> None:
        """Take another tally in."""
        self.cases += other.cases
        self.runs += other.runs
        self.steps += other.steps
        self.cpu_seconds += other.cpu_seconds
        self.faults.update(other.faults)
        self.seen.update(other.seen)
        self.broken.update(other.broken)

    def line(self) -> str:
        """Sum up in a line."""
        rate = f"{self.cases / self.cpu_seconds:,.0f} cases and {self.runs / self.cpu_seconds:,.0f} runs a CPU second"
        faults = sum(self.faults.values())
        return f"{self.cases:,} cases, {self.runs:,} runs, {self.steps:,} steps, {faults:,} faults; {rate}"


def case_of(seed: int) -> Case:
    """Give the case of a seed."""
    return draw(random.Random(seed), seed)


def work(job: tuple[str, list[Any]]) -> Tally:
    """Run some cases; in a process of a pool."""
    logging.disable(logging.CRITICAL)
    tally, begun = Tally(), time.process_time()
    kind, items = job
    for item in items:
        if kind == "seeds":
            tally.add(str(item), simulate(case_of(item)))
        else:
            tally.add(f"{kind} {json.dumps(item)}", simulate(points.case_of(kind), item))
    tally.cpu_seconds = time.process_time() - begun
    return tally


def chunks(items: Iterable[Any]) -> Iterable[list[Any]]:
    """Cut work into pieces."""
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def run_all(jobs: Iterable[tuple[str, list[Any]]], total: int, processes: int) -> Tally:
    """Run jobs over processes, with a line of progress."""
    tally, begun, shown = Tally(), time.monotonic(), 0.0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for part in pool.imap_unordered(work, jobs):
            for name in part.broken.keys() - tally.broken.keys():
                print(f"\n{name}: {part.broken[name][0]}", flush=True)
            tally.merge(part)
            now = time.monotonic()
            if now - shown > (0.5 if sys.stderr.isatty() else 10) or tally.cases == total:
                shown = now
                share = f"{tally.cases / total:4.0%}" if total else ""
                end = "\r" if sys.stderr.isatty() else "\n"
                print(
                    f"{share} {now - begun:5.0f} s  {tally.line()}  {len(tally.broken)} broken",
                    end=end,
                    file=sys.stderr,
                )
    print(file=sys.stderr)
    return tally
