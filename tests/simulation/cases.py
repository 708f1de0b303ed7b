"""What is simulated: the runs, processes and faults of a case, drawn from a seed, as data that can be shrunk."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation.programs import CORPUS, Generator, Program, simpler, starting_program, waiting_program

BRITTLE_EVERY = 5
"""In one case of so many a body raises in one of the workers, in replays too."""
WAITING_EVERY = 4
"""In one case of so many there is a run whose waits compete for events."""
LAGGING_EVERY = 8
"""In one case of so many workers say at times that their loops are blocked."""
CROWDED_EVERY = 5
"""In one case of so many hardly any runs may wait for a worker, and a decision begins one at a time."""
AS_DRAWN = range(300, 3_000)
"""Seeds whose cases stay as they are: rare bugs are found by some of them."""
HORIZON = 6.0
"""Seconds in which faults happen; then everything heals."""
FAULTS = {
    "kill worker": 3,
    "kill executor": 3,
    "kill at instant": 4,
    "drain worker": 1,
    "stop executor": 1,
    "freeze worker": 1,
    "freeze executor": 1,
    "cut": 2,
    "stall": 2,
    "cut client": 1,
    "stall client": 1,
    "commit fails": 2,
    "disk full": 1,
    "disk slow": 1,
    "clock jumps": 1,
    "cancel run": 2,
    "heard twice": 1,
    "slow network": 1,
}
"""Classes of faults, with how often one is drawn in relation to the others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens `at` seconds after the start. `who` chooses the worker, run or process."""

    kind: str
    at: float
    who: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RunCase:
    """An event to send, `at` seconds after the start; sent twice if `twice`."""

    event: str
    data: Any
    at: float
    twice: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One case. The same case does the same every time."""

    seed: int
    runs: tuple[RunCase, ...]
    faults: tuple[Fault, ...] = ()
    workers: int = 2
    slots: int = 4
    most_invocations: int = 1_000
    silent_death: float = 0.0
    lag: float = 0.0
    most_queued: int = 200_000
    """Runs that wait for a worker; beyond that steps that start more have to wait."""

    def describe(self) -> str:
        """Write it as code that runs it."""
        parts = [f"seed={self.seed}", "runs=("]
        parts += [f"    {run!r}," for run in self.runs]
        parts += ["), faults=("]
        parts += [f"    {fault!r}," for fault in self.faults]
        parts += [f"), workers={self.workers}, slots={self.slots}, most_invocations={self.most_invocations}"]
        parts += [f"silent_death={self.silent_death}, lag={self.lag}, most_queued={self.most_queued}"]
        return "Case(" + "\n".join(parts) + ")"


def draw(dice: random.Random, seed: int) -> Case:
    """Draw a case: a few runs, and faults of a few classes."""
    runs = tuple(draw_run(dice) for _ in range(dice.choice([1, 1, 2, 3])))
    if seed % BRITTLE_EVERY == 3 and seed not in AS_DRAWN:
        runs = tuple(brittle(run, seed // BRITTLE_EVERY) for run in runs)
    if seed % WAITING_EVERY == 1:  # by dice of its own, so that those of the others stay as they are
        own = random.Random(seed)
        runs = (*runs, RunCase("sim/program", waiting_program(own), own.choice([0.0, own.uniform(0, 2)])))
    if seed not in AS_DRAWN:
        runs = tuple(replace(run, data=steadied(run.data)) if program_of(run) else run for run in runs)
    more = random.Random(f"row {seed}")  # dice of its own, so that the rest of each case stays what it was
    if more.random() < 0.1:
        runs = (*runs, RunCase("sim/program", Generator(more, 0).row(), 0.0))
    crowded = seed % CROWDED_EVERY == 1 and seed not in AS_DRAWN
    if crowded:
        runs = (*runs, *[RunCase("sim/program", starting_program(more), more.uniform(0, 1)) for _ in range(3)])
    classes = dice.sample(sorted(FAULTS), dice.randint(0, 4))
    faults: list[Fault] = []
    if classes:
        weights = [FAULTS[each] for each in classes]
        faults = [draw_fault(dice, dice.choices(classes, weights)[0]) for _ in range(dice.randint(1, 8))]
    return Case(
        seed,
        runs,
        tuple(sorted(faults, key=lambda fault: fault.at)),
        dice.choice([1, 2, 2, 3]),
        dice.choice([1, 2, 8]),
        dice.choice([1, 2, 1_000, 1_000]),
        dice.choice([0.0, 0.0, 0.5]),
        0.3 if seed % LAGGING_EVERY == 2 and seed not in AS_DRAWN else 0.0,
        more.choice([1, 2, 3]) if crowded else 200_000,
    )


def draw_run(dice: random.Random) -> RunCase:
    """Draw a run."""
    at, twice = dice.choice([0.0, 0.0, dice.uniform(0, 2)]), dice.random() < 0.1
    kind = dice.random()
    if kind < 0.2:
        return RunCase(dice.choice(sorted(CORPUS)), None, at, twice)
    generator = Generator(dice, dice.randint(1, 8))
    if kind < 0.3:
        return RunCase("sim/program-sync", generator.sync_program(), at, twice)
    return RunCase("sim/program", generator.program(), at, twice)


def brittle(run: RunCase, seed: int) -> RunCase:
    """Have a body lack something in one worker: before its steps, beside them, or after the first one."""
    if run.event != "sim/program":
        return run
    lacks = ["brittle", seed % 2]
    match seed // 2 % 3:
        case 0:
            program: Program = ["seq", lacks, run.data]
        case 1:
            program = ["gather", run.data, lacks]
        case _:
            program = ["seq", ["run", "first", 0, False, 0.01], lacks, run.data]
    return replace(run, data=program)


def draw_fault(dice: random.Random, kind: str) -> Fault:
    """Draw a fault of a class; most happen while there is something to disturb."""
    at = dice.choice([dice.uniform(0, 0.2), dice.uniform(0, HORIZON)])
    who = dice.randint(0, 400) if kind == "kill at instant" else dice.randint(0, 3)
    return Fault(kind, at, who, dice.choice([0.05, 1.0, 3.0, dice.uniform(5, 14)]))


@dataclass(slots=True)
class Shrinking:
    """Makes a failing case small: `fails` runs a case and says whether it still fails."""

    fails: Any
    tries: int = 400
    case: Case = field(init=False)

    def shrink(self, case: Case) -> Case:
        """Give the smallest case found that still fails."""
        self.case = case
        while self._one_step():
            pass
        return self.case

    def _one_step(self) -> bool:
        for smaller in candidates(self.case):
            if self.tries <= 0:
                return False
            self.tries -= 1
            if self.fails(smaller):
                self.case = smaller
                return True
        return False


def candidates(case: Case) -> list[Case]:
    """Give cases that are a little smaller, the boldest first."""
    found: list[Case] = []
    half = len(case.faults) // 2
    if half > 1:
        found += [replace(case, faults=case.faults[:half]), replace(case, faults=case.faults[half:])]
    if len(case.runs) > 1:
        found += [replace(case, runs=case.runs[:at] + case.runs[at + 1 :]) for at in range(len(case.runs))]
    found += [replace(case, faults=case.faults[:at] + case.faults[at + 1 :]) for at in range(len(case.faults))]
    for at, run in enumerate(case.runs):
        if run.twice or run.at:
            found.append(with_run(case, at, replace(run, twice=False, at=0.0)))
        if isinstance(run.data, list):
            found += [with_run(case, at, replace(run, data=data)) for data in simpler(run.data)]
    if case.workers > 1:
        found.append(replace(case, workers=case.workers - 1))
    if case.silent_death:
        found.append(replace(case, silent_death=0.0))
    if case.lag:
        found.append(replace(case, lag=0.0))
    if case.most_queued < 1_000:
        found.append(replace(case, most_queued=200_000))
    if case.most_invocations < 1_000:
        found.append(replace(case, most_invocations=1_000))
    return found


def with_run(case: Case, at: int, run: RunCase) -> Case:
    """Replace a run of a case."""
    return replace(case, runs=(*case.runs[:at], run, *case.runs[at + 1 :]))


def program_of(run: RunCase) -> Program | None:
    """Give a run's program; None for one of the corpus."""
    return run.data if isinstance(run.data, list) else None


def is_row(program: Program) -> bool:
    """Whether a program does one thing many times in a row, see `Generator.row`."""
    return program[0] == "times" and program[1] > 5


def steadied(program: Program) -> Program:
    """Give each step an id of its own in a program that fails by the number of its attempt, see `is_steady`."""
    if is_steady(program):
        return program
    seen: Counter[str] = Counter()

    def renamed(node: Program) -> Program:
        own = list(node)
        if len(own) > 1 and isinstance(own[1], str):
            seen[own[1]] += 1
            own[1] += f"-{seen[own[1]]}"
        return [renamed(each) if isinstance(each, list) else each for each in own]

    return renamed(program)


def is_steady(program: Program) -> bool:
    """Whether every attempt at a body starts the same steps under the same keys, as far as it comes.

    A body that fails by the number of its attempt does not, if one branch fails and another has a step with the same
    id: it gets the keys that the first branch would have had.
    """
    kinds, ids = [], []
    nodes = [program]
    while nodes:
        node = nodes.pop()
        kinds.append(node[0])
        ids += [(node[0] == "exchange", each) for each in node[1:2] if isinstance(each, str)]
        nodes += [each for each in node if isinstance(each, list)]
    return not {"clumsy", "brittle", "odd"}.intersection(kinds) or len(ids) == len(set(ids))
