"""Whether a run replays identically: its body is run anew over its journal, from several points, and compared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from stepwire.errors import NonDeterminismError
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import Closure, Planned, Raised, Returned, StepKey
from stepwire.testing.local import LocalRun, Seen

SHOWN = 5
"""Steps that a message shows of each side."""


def check(run: LocalRun, invoke: Callable[[LocalRun, int], Invocation], opaque: bool, *, thorough: bool = True) -> None:
    """Replay an ended run: from nothing and, if `thorough`, from everything and from points between.

    `invoke` makes new invocations. With `opaque` payloads, which a codec may encode differently each time, values are
    not compared. Raises NonDeterminismError where a replay does something else than the run did.
    """
    seen = {each.sequence: each for each in run.seen if each.attempt == run.attempt}
    if not seen:
        return
    first, last = min(seen), max(seen)
    starts = {first, min(first + 1, last), (first + last) // 2, last} if thorough else {first}
    for start in sorted(starts):
        invocation = invoke(run, run.attempt)
        invocation.lead = False  # what the body logs was logged once
        try:
            Replay(run, seen, opaque).go(invocation, start, last)
        finally:
            invocation.close()


class Replay:
    """One replay of a run, given `start` entries of its journal at once, and then the others one by one."""

    def __init__(self, run: LocalRun, seen: dict[int, Seen], opaque: bool) -> None:
        self._run = run
        self._seen = seen
        self._opaque = opaque

    def go(self, invocation: Invocation, start: int, last: int) -> None:
        """Raise NonDeterminismError unless the body does as it did."""
        turn = invocation.start(self._run.journal[:start])
        self._compare(start, start, self._open_at(start), turn.found, turn.outcome)
        for entry in self._run.journal[start:last]:
            turn = invocation.resume([entry])
            found = self._seen[entry.sequence].found
            self._compare(start, entry.sequence, found, turn.found, turn.outcome)

    def _open_at(self, sequence: int) -> Iterable[Planned]:
        """Give the steps that were open when the journal had so many entries."""
        gone: set[StepKey] = {entry.key for entry in self._run.journal[:sequence]}
        found: dict[StepKey, Planned] = {}
        for seen in self._run.seen:
            if seen.sequence <= sequence:
                found.update((planned.key, planned) for planned in seen.found)
                gone.update(seen.cancelled)
        return [planned for key, planned in found.items() if key not in gone]

    def _compare(
        self,
        start: int,
        sequence: int,
        before: Iterable[Planned],
        now: Iterable[Planned],
        outcome: Returned | Raised | None,
    ) -> None:
        expected = self._seen[sequence].outcome
        if self._told(expected) != self._told(outcome):
            raise self._diverged(start, sequence, describe_end(expected), describe_end(outcome))
        if expected is not None:
            return
        first, second = ({each.key: self._comparable(each) for each in side} for side in (before, now))
        if first != second:
            changed = {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}
            sides = [[each for each in side if each.key in changed] for side in (before, now)]
            raise self._diverged(start, sequence, *map(describe_steps, sides))

    def _comparable(self, planned: Planned) -> tuple[object, ...]:
        target = planned.target
        if isinstance(target, Closure):
            return (planned.kind, plain_arguments(target.run))
        return (planned.kind, None if self._opaque else target)

    def _told(self, outcome: Returned | Raised | None) -> object:
        """Give what must be the same of an end; messages of errors may differ, and hold addresses for example."""
        match outcome:
            case Returned(output):
                return "returned" if self._opaque else output
            case Raised(failure):
                return failure.type
        return None

    def _diverged(self, start: int, sequence: int, before: str, now: str) -> NonDeterminismError:
        return NonDeterminismError(
            f"function {self._run.function.id!r} does not replay identically: after {sequence} recorded results "
            f"the run {before}, but a replay from {start} results {now}. A function must do the same in every replay: "
            "take clocks, random numbers and I/O into steps"
        )


def plain_arguments(code: Callable[..., Any]) -> list[Any]:
    """Give those arguments of a step's code that can be compared: two replays make two objects of everything else."""
    if not isinstance(code, functools.partial):
        return []
    return [value for value in (*code.args, *code.keywords.items()) if is_plain(value)]


def is_plain(value: object) -> bool:
    """Whether a value is made of texts, numbers and the like, and is not NaN."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, value.items()))
    return isinstance(value, str | int | bool | bytes | type(None)) or (isinstance(value, float) and value == value)


def describe_steps(steps: Iterable[Planned]) -> str:
    """Name steps with their lines in a text."""
    named = [f"{each.kind.name.lower()} {str(each.key)!r} at {each.source or 'an unknown line'}" for each in steps]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return f"found {', '.join(named[:SHOWN])}{more}" if named else "found no such step"


def describe_end(outcome: Returned | Raised | None) -> str:
    """Say how a body ended."""
    match outcome:
        case Returned(output):
            return f"returned {output.data[:80]!r}"
        case Raised(failure):
            return f"raised {failure}"
    return "had not ended"
