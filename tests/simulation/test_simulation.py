"""The simulation in CI: fixed seeds, fresh ones, every crash point, and the bugs that were found before."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwire_core.commands import Writes
from stepwire_executor.store.memory import MemoryStore
from stepwire_executor.store.sqlite import SQLiteStore
from tests.contract.store_rows import everything
from tests.simulation import bugs, points
from tests.simulation.cases import FAULTS, draw
from tests.simulation.many import Tally, chunks, run_all
from tests.simulation.regressions import STUCK
from tests.simulation.simulation import Simulation, simulate

ROOT = Path(__file__).parents[2]
FIXED, FRESH = 3_000, 1_000
HAPPENS = [
    "a session resumed",
    "a replica becomes the lead",
    "attempt cancelled",
    "attempt lost",
    "attempt returned",
    "attempt timed_out",
    "heard twice",
    "Invoke of a replica",
    "Refused",
    "Rejected",
    "silent death",
]
"""What is worth nothing to simulate unless it happens."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults are many, and each is worth a line to somebody; not here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def report(tally: Tally) -> str:
    return "\n".join(f"{name}: {broken[0]}" for name, broken in tally.broken.items())


@pytest.mark.timeout(400)
def test_every_promise_is_kept_whatever_happens():
    first = int(os.environ.get("SIMULATE_FIRST") or random.SystemRandom().randrange(10**6, 10**9))
    seeds = [*range(FIXED), *range(first, first + FRESH)]
    tally = run_all([("seeds", chunk) for chunk in chunks(seeds)], len(seeds), os.cpu_count() or 1)
    print(tally.line())
    assert not tally.broken, f"{report(tally)}\nin detail: python -m tests.simulation --seed SEED"
    assert not FAULTS.keys() - tally.faults.keys(), "a class of faults has never happened"
    assert not set(HAPPENS) - tally.seen.keys(), "something that matters has never happened"


@pytest.mark.timeout(300)
def test_every_crash_point_of_a_few_functions():
    jobs = [(name, chunk) for name in points.FUNCTIONS for chunk in chunks(points.single(name))]
    jobs += [(name, chunk) for name in points.FUNCTIONS for chunk in chunks(points.double(name, 97))]
    total = sum(len(chunk) for _, chunk in jobs)
    tally = run_all(jobs, total, os.cpu_count() or 1)
    assert tally.cases == total > 500
    assert not tally.broken, report(tally)


@pytest.mark.parametrize("name", STUCK)
def test_a_bug_that_was_found_is_mended(name: str):
    assert simulate(STUCK[name]).broken == []


@pytest.mark.parametrize("bug", bugs.BUGS, ids=lambda bug: bug.name)
def test_a_bug_put_back_on_purpose_is_found(bug: bugs.Bug, monkeypatch: pytest.MonkeyPatch):
    bug.put_back(monkeypatch)
    for seed in range(bug.first, bug.first + bug.seeds):
        if simulate(draw(random.Random(seed), seed)).broken:
            return
    pytest.fail(f"{bug.seeds} seeds have not found it")


def test_a_simulation_leaves_no_thread():
    before = set(threading.enumerate())
    for seed in range(150, 170):  # three of them end with bodies of sync functions in the middle
        simulate(draw(random.Random(seed), seed))
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_case_does_the_same_in_every_process():
    code = (
        "import logging, random; logging.disable(50)\n"
        "from tests.simulation.cases import draw\n"
        "from tests.simulation.simulation import simulate\n"
        "print([simulate(draw(random.Random(seed), seed)).fingerprint for seed in range(60)])"
    )
    traces = set()
    for hash_seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", code]
        traces.add(subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True).stdout)
    assert len(traces) == 1
    (trace,) = traces
    assert len(set(eval(trace))) > 50


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.randoms(use_true_random=False))
def test_functions_and_faults_that_hypothesis_draws(dice: random.Random):
    case = draw(dice, 0)
    broken = simulate(case).broken
    assert broken == [], case.describe()


def test_a_process_can_be_killed_at_every_instant_that_it_lives_through():
    case = points.case_of("fan-out")
    lives = points.first_lives("fan-out")
    assert min(lives.values()) > 0
    for process, instants in lives.items():
        simulation = Simulation(case, {process: instants})
        assert simulation.run().broken == []
        assert simulation.instants[process] == instants


def test_what_was_committed_reads_the_same_from_sqlite(tmp_path: Path):
    compared = 0
    for seed in range(12):
        simulation = Simulation(draw(random.Random(seed), seed))
        simulation.disk.written = written = []
        assert simulation.run().broken == []
        # A loop of its own: a simulation runs other loops, which Python 3.14 lets no running loop do.
        asyncio.run(compare_stores(tmp_path / f"{seed}.db", simulation, written))
        compared += len(written)
    assert compared > 100


async def compare_stores(path: Path, simulation: Simulation, written: Sequence[Writes]) -> None:
    memory, sqlite = MemoryStore(), SQLiteStore(path)
    for store in (memory, sqlite):
        await store.open()
        for writes in written:
            await store.commit(writes)
    tables = simulation.disk.store._tables
    names = sorted({event.name for event in tables.events.values()})
    keys = sorted({event.key for event in tables.events.values()})
    asked = (sorted(tables.runs), names, keys)
    assert await everything(sqlite, *asked) == await everything(memory, *asked)
    await sqlite.close()
