"""What came out: for each case, and in all; for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.text import Text


class Outcome(StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_OFFERED = "not offered"


STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.NOT_OFFERED: "dim"}


@dataclass(frozen=True, slots=True)
class Result:
    """One case. `seconds` is how long it took; `why` says what is wrong, or missing."""

    name: str
    shows: str
    rule: str
    outcome: Outcome
    seconds: float = 0.0
    why: str = ""
    conversation: Sequence[str] = ()
    output: str = field(default="", repr=False)
    """The end of what the process under test has written."""

    def as_data(self) -> dict[str, Any]:
        """Give it as JSON data; the conversation only of a case that has failed."""
        data: dict[str, Any] = {
            "case": self.name,
            "shows": self.shows,
            "rule": self.rule,
            "outcome": self.outcome.value,
        }
        data |= {"seconds": round(self.seconds, 3), "why": self.why}
        if self.outcome is Outcome.FAILED:
            data |= {"conversation": list(self.conversation), "output": self.output}
        return data


@dataclass(slots=True)
class Report:
    """All results."""

    subject: str
    """What was tested: the SDK's name and version, or the executor's address."""
    results: list[Result] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        """Count the cases that ended so."""
        return sum(result.outcome is outcome for result in self.results)

    @property
    def good(self) -> bool:
        """True if no case failed and at least one passed."""
        return not self.count(Outcome.FAILED) and self.count(Outcome.PASSED) > 0

    @property
    def summary(self) -> str:
        """One line about all of it."""
        missing = self.count(Outcome.NOT_OFFERED)
        tail = f", {missing} not offered" if missing else ""
        return f"{self.count(Outcome.PASSED)} of {len(self.results) - missing} cases passed{tail}: {self.subject}"

    def as_data(self) -> dict[str, Any]:
        """Give it as JSON data."""
        counts = {outcome.value.replace(" ", "_"): self.count(outcome) for outcome in Outcome}
        return {"subject": self.subject, **counts, "cases": [result.as_data() for result in self.results]}


def show(result: Result, console: Console) -> None:
    """Write one result, and all that explains it if it is a failure."""
    mark = (f"{result.outcome:<11}", STYLES[result.outcome])
    console.print(Text.assemble(mark, f" {result.name} ", (f"{result.seconds:.1f} s", "dim")))
    if result.outcome is Outcome.NOT_OFFERED:
        console.print(Text(f"    {result.why}", "dim"))
    if result.outcome is not Outcome.FAILED:
        return
    lines = [f"shows: {result.shows}", f"rule:  {result.rule}", *result.why.splitlines(), "the conversation:"]
    lines += [f"  {line}" for line in result.conversation]
    if result.output.strip():
        lines += ["the process wrote:", *(f"  {line}" for line in result.output.rstrip().splitlines()[-25:])]
    for line in lines:
        console.print(Text(f"    {line}"), soft_wrap=True)
