"""Who had turns while a step was ready: promise I16.

Turns go round over functions and tasks, and over the runs of each. So between two turns of one, each other has one at
most: while a step waits, another function or task begins one step more than its own does, and another run of its own
one more than its run does. Leaves to run a lone step were given when nothing waited; each worker has given one a slot
at most, and they may be used meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from stepwire_core.model import StepKind
from stepwire_core.state import EPOCH_BITS
from tests.histories.database import Database
from tests.histories.records import Index, Record


class Ready(NamedTuple):
    """A step that can begin: whose turn it waits for, and in which run."""

    turn: str
    run: str
    step: str


@dataclass(slots=True)
class Turns:
    """Counts what begins. `promised` is the number of slots that may have been given away before."""

    promised: int = 0
    _turns: Counter[str] = field(default_factory=Counter)
    _runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _waiting: dict[Ready, tuple[Counter[str], Counter[tuple[str, str]]]] = field(default_factory=dict)

    def ready(self, step: Ready) -> None:
        """Note that a step can begin from now on, if it could not before."""
        if step not in self._waiting:
            self._waiting[step] = Counter(self._turns), Counter(self._runs)

    def gone(self, step: Ready) -> None:
        """Note that a step can begin no more."""
        self._waiting.pop(step, None)

    def forget_run(self, run: str) -> None:
        """Watch no step of a run any more."""
        for step in [step for step in self._waiting if step.run == run]:
            del self._waiting[step]

    def forget(self) -> None:
        """Begin anew: nothing is ready."""
        self._waiting.clear()

    def begun(self, step: Ready) -> Iterator[str]:
        """Note that a step begins; says who had more turns than its own while it was ready."""
        before = self._waiting.pop(step, None)
        if before is not None:
            turns, runs = before
            own = self._turns[step.turn] - turns[step.turn]
            for turn, count in self._turns.items():
                if turn != step.turn and count - turns[turn] > own + 1 + self.promised:
                    yield (
                        f"{step.step} of run {step.run} waited while {turn} began {count - turns[turn]} steps, "
                        f"and its own {step.turn} {own}"
                    )
            own = self._runs[step.turn, step.run] - runs[step.turn, step.run]
            for (turn, run), count in self._runs.items():
                others = count - runs[turn, run]
                if turn == step.turn and run != step.run and others > own + 1 + self.promised:
                    yield (
                        f"{step.step} of run {step.run} waited while run {run} of the same {turn} began {others} "
                        f"steps, and its own run {own}"
                    )
        self._turns[step.turn] += 1
        self._runs[step.turn, step.run] += 1


def turns_go_round(index: Index, database: Database) -> Iterator[str]:
    """Hold a history against the law: one in which every worker serves everything.

    Only what is planned or tried again in the same life of the executor is looked at, until a worker's stream ends:
    what was lost then may have to run alone. A run of which a worker gave a closure back is left out from there on: its
    body may have failed there, and its closures then need the one worker in which it goes on.
    """
    turns, going, begun, bound = Turns(), False, set[tuple[str, str]](), set[str]()
    retries: dict[Ready, float] = {}
    for record in in_order(index):
        what = record["what"]
        for step in [step for step, due in retries.items() if due < record["at"]]:
            del retries[step]
            if step.run not in bound:
                turns.ready(step)
        if what == "opened":
            turns, going, retries = Turns(), True, {}
        elif what == "connected":
            turns.promised += record["slots"]
        elif what == "gone":
            turns.forget()
            going = False
        elif going:
            about = step_of(record, database)
            if about is None or (about.run in bound and what != "dispatched"):
                continue
            if what == "closed" and record["outcome"] == "returned" and not about.turn.startswith("task "):
                bound.add(about.run)
                turns.forget_run(about.run)
                continue
            if what == "dispatched":
                begun.add((about.run, about.step))
                retries.pop(about, None)
                if record["fence"] >> EPOCH_BITS == record["epoch"]:
                    yield from turns.begun(about)
                else:  # taken over from the last life of the executor: it had its turn there
                    turns.gone(about)
            elif (what == "planned" and (about.run, about.step) not in begun) or (
                what == "closed" and record["outcome"] == "returned"
            ):
                turns.ready(about)
            elif what == "closed" and record["retry_in"] is not None:
                retries[about] = record["at"] + record["retry_in"]


def in_order(index: Index) -> list[Record]:
    """Give what the law looks at in the order in which it happened; at one instant what begins comes first."""
    whats = ("opened", "connected", "gone", "planned", "closed", "dispatched")
    records = [record for what in whats for record in index[what]]
    return sorted(records, key=lambda record: (record["at"], record["what"] != "dispatched", record["order"]))


def step_of(record: Record, database: Database) -> Ready | None:
    """Name the step of a record; None for one that needs no slot, or whose body was tried again."""
    run = database.runs.get(record["run"])
    step = database.steps.get(record["run"], {}).get(record["step"])
    if run is None or step is None or step.kind not in (StepKind.CLOSURE, StepKind.TASK) or run.attempt > 1:
        return None
    turn = f"task {step.target}" if step.kind is StepKind.TASK else f"function {run.function_id}"
    return Ready(turn, run.id, record["step"])
