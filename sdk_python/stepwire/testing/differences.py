"""The words in which a difference between two schedules is shown."""

from __future__ import annotations

import textwrap

from stepwire.testing import plans
from stepwire.testing.plans import CRASH, LOST, TAKE, TWICE, Plan
from stepwire.testing.trials import Case, Trial, outcome

MOST_LINES = 40
"""Lines that are shown of one schedule."""
WIDTH = 110

ADVICE = {
    TAKE: (
        "Steps that run side by side complete in any order: let nothing depend on it (gather keeps the order of its "
        "arguments; sort what was collected as it came). If both ends are right, as in a race, say what must be the "
        "same (same=lambda run: …), or what must hold (same=None, expect=lambda run: …)"
    ),
    CRASH: (
        "A worker can be lost at any time; the body then begins anew, somewhere else, with the recorded results only: "
        "whatever a step needs must come in as its arguments, whatever it makes must be what it returns, and its code "
        "must stand being run twice"
    ),
    LOST: (
        "A step is recorded once but its code runs at least once: make it idempotent, for example by giving what it "
        "calls a key made of ctx.run_id and the step's id. If the test's own state is to blame, say in before=… how "
        "to put it back"
    ),
    TWICE: "What arrives twice must count once",
    "": (
        "Nothing was changed: the function ended differently under the same schedule. Either the code of its steps "
        "gives something else each time (replace={…} it, or say in same=… what must be equal), or it finds what "
        "earlier runs have left behind (put that back in before=…)"
    ),
}


class ScheduleError(AssertionError):
    """A function ends differently under another schedule. `schedule` is its text, for `explore(…, schedule=…)`."""

    def __init__(self, message: str, schedule: str) -> None:
        super().__init__(message)
        self.schedule = schedule


def describe(case: Case, first: Trial, other: Trial, plan: Plan, name: str) -> str:
    """Show two runs that differ, the schedules that led to them, how to see it again, and what to do."""
    function = case.function.id
    if other is first:
        return "\n".join([f"function {function!r} fails the test's condition: {other.complaint}", "", *told(first, "")])
    what = f"fails the test's condition: {other.complaint}" if other.complaint else "ends differently"
    lines = [f"function {function!r} {what} ({name})", ""]
    lines += ["the plain schedule:", *told(first, "  "), ""]
    lines += [f"the other one, schedule={plans.write(plan)!r}:", *told(other, "  "), ""]
    if not other.complaint and other.broken is None and case.same is not None and case.same is not outcome:
        lines += [
            f"same= gave {first.seen!r} for the plain schedule",
            f"       and {other.seen!r} for the other one",
            "",
        ]
    if plan:
        lines += [f"To see it again: explore({function!r}, …, schedule={plans.write(plan)!r})"]
    verbs = dict.fromkeys(verb for verb, _ in plan) or [""]
    return "\n".join([*lines, *(textwrap.fill(f"{ADVICE[verb]}.", WIDTH) for verb in verbs)])


def told(trial: Trial, indent: str) -> list[str]:
    """Tell a run line by line."""
    lines = [f"{indent}{number:2}. {line()}" for number, line in enumerate(trial.history.lines, 1)]
    if len(lines) > MOST_LINES:
        left = len(lines) - MOST_LINES
        half = MOST_LINES // 2
        lines = [*lines[:half], f"{indent}    … {left} more …", *lines[-half:]]
    return [*lines, f"{indent}    {trial.end()}"]
