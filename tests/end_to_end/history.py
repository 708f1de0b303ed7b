"""What step code did, from the file that it wrote, held against what the executor recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stepwire.records import Step, StepKind, StepState

CODE = (StepKind.CLOSURE, StepKind.TASK)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that an attempt did. `at` is Unix time."""

    run_id: str
    step: str
    number: int
    pid: int
    what: str
    at: float


@dataclass(frozen=True, slots=True)
class Outage:
    """The executor was gone from `killed_at` to at least `ready_at`, in Unix time."""

    killed_at: float
    ready_at: float


def read(log: Path) -> list[Line]:
    """Read all lines, in the order of writing; one that is just being written is seen up to the end of a page."""
    lines = []
    whole, _, _ = log.read_text().rpartition("\n") if log.exists() else ("", "", "")
    for text in whole.splitlines():
        run_id, step, number, pid, what, at = text.split()
        lines.append(Line(run_id, step, int(number), int(pid), what, float(at)))
    return lines


def attempts(lines: Sequence[Line], run_id: str) -> dict[str, list[Line]]:
    """Give the beginnings of attempts, by step."""
    begun: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.run_id == run_id and line.what == "begin":
            begun[line.step].append(line)
    return begun


def check_promises(lines: Sequence[Line], run_id: str, steps: Sequence[Step], outages: Sequence[Outage] = ()) -> None:
    """Hold a run's history against its record: promises I2 to I5, as far as they can be seen from outside."""
    recorded = [step for step in steps if step.sequence]
    sequences = sorted(step.sequence for step in recorded)
    assert sequences == list(range(1, len(recorded) + 1)), "the journal has gaps or doubles"
    assert len({step.key for step in steps}) == len(steps), "a step is there twice"
    begun = attempts(lines, run_id)
    for step in recorded:
        if step.kind not in CODE:
            continue
        name = f"{step.key.id}:{step.key.index}"
        for line in begun[name]:
            assert line.number <= step.attempt, (
                f"{name}: attempt {line.number} was issued after {step.attempt} was recorded"
            )
            for outage in outages:
                before = unix(step.ended_at) < outage.killed_at
                assert not (before and line.at > outage.ready_at), (
                    f"{name} was recorded, but begun again after a restart"
                )
        if step.state is StepState.SUCCEEDED:
            assert begun[name], f"{name} has a result but was never run"
            assert any(line.number == step.attempt for line in begun[name]), f"{name}: its recorded attempt never began"


def unix(moment: datetime | None) -> float:
    """Give a time that must be there in Unix seconds."""
    assert moment is not None
    return moment.timestamp()
