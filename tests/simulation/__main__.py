"""`make simulate SEEDS=n`: many cases on all cores, or one seed in detail.

python -m tests.simulation --seeds 10000 --first 1      # many
python -m tests.simulation --seed 471                   # one: what happened, and the smallest case that shows it
python -m tests.simulation --points                     # every crash point of a few functions
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.simulation import points
from tests.simulation.cases import FAULTS, Shrinking
from tests.simulation.many import Tally, case_of, chunks, run_all
from tests.simulation.simulation import Simulation, simulate

ENOUGH = 2_000
"""From so many seeds on every class of fault must have happened."""


def explain(seed: int) -> int:
    """Run one seed, say what it broke, and shrink it."""
    case = case_of(seed)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    simulation = Simulation(case)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: setattr(record, "msg", f"{simulation.machine.now:10.4f} {record.msg}") or True)
    report = simulation.run()
    logging.disable(logging.CRITICAL)
    print(f"seed {seed}: {report.runs} runs, {report.steps} steps, faults: {report.faults}")
    if not report.broken:
        print("every promise was kept")
        return 0
    print("\n".join(report.broken))
    kind = report.broken[0].split(":")[0]
    small = Shrinking(lambda each: any(text.split(":")[0] == kind for text in simulate(each).broken)).shrink(case)
    print(f"\nthe smallest case that still breaks it:\n{small.describe()}")
    print("\n".join(simulate(small).broken))
    return 1


def summary(tally: Tally) -> Mapping[str, Any]:
    """Give the figures as data."""
    return {
        "cases": tally.cases,
        "runs": tally.runs,
        "steps": tally.steps,
        "cpu_seconds": round(tally.cpu_seconds, 1),
        "cases_per_cpu_second": round(tally.cases / tally.cpu_seconds, 1),
        "runs_per_cpu_second": round(tally.runs / tally.cpu_seconds, 1),
        "faults": dict(tally.faults.most_common()),
        "seen": dict(tally.seen.most_common()),
        "broken": tally.broken,
    }


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds to try")
    parser.add_argument("--first", type=int, help="the first seed; by default a random one")
    parser.add_argument("--seed", type=int, help="run just this seed, tell what happens, and shrink it if it fails")
    parser.add_argument("--points", action="store_true", help="kill at every crash point of a few functions instead")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="with --points: every Nth pair of them too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return explain(chosen.seed)
    if chosen.points:
        jobs: list[tuple[str, list[Any]]] = []
        for name in points.FUNCTIONS:
            jobs += [(name, chunk) for chunk in chunks(points.single(name))]
            if chosen.pairs:
                jobs += [(name, chunk) for chunk in chunks(points.double(name, chosen.pairs))]
        tally = run_all(jobs, sum(len(chunk) for _, chunk in jobs), chosen.jobs)
    else:
        first = chosen.first if chosen.first is not None else random.SystemRandom().randrange(10**9)
        print(f"seeds {first} to {first + chosen.seeds - 1}", file=sys.stderr)
        tally = run_all(
            (("seeds", chunk) for chunk in chunks(range(first, first + chosen.seeds))), chosen.seeds, chosen.jobs
        )
        missing = FAULTS.keys() - tally.faults.keys()
        if chosen.seeds >= ENOUGH and missing:
            tally.broken["the simulation itself"] = [f"these faults never happened: {', '.join(sorted(missing))}"]
    print(tally.line())
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(summary(tally), indent=1))
    for name, broken in tally.broken.items():
        print(f"{name}: {broken[0]}")
    if tally.broken:
        print("see one in detail: python -m tests.simulation --seed SEED")
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
