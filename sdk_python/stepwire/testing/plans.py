"""What a schedule does differently from the plain one, as data: written, read, followed, drawn at random, shrunk.

It knows nothing of runs: steps are labels, "charge" or "charge:2"; those of invoked runs begin with the invoking
step's, "bill/charge".
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stepwire.errors import StepwireError

TAKE, CRASH, LOST, TWICE = VERBS = ("take", "crash", "lost", "twice")
START = "event"
"""Label of the event that starts the run; written without a verb's step, as `twice-event`."""
START_TOKEN = f"{TWICE}-{START}"


class Token(NamedTuple):
    """One difference from the plain schedule.

    `take`: this step is recorded next, once it has ended. `crash`: after its result was recorded the worker is
    lost. `lost`: the report of its first attempt never arrives. `twice`: its result arrives twice.
    """

    verb: str
    label: str

    def __str__(self) -> str:
        return START_TOKEN if self == (TWICE, "") else shlex.quote(f"{self.verb}:{self.label}")


Plan = tuple[Token, ...]
"""A schedule; the empty one is the plain one. Only the order of `take`s means something."""


def write(plan: Iterable[Token]) -> str:
    """Give a plan as text."""
    return " ".join(map(str, plan))


def read(text: str) -> Plan:
    """Give the plan that a text says. Raises StepwireError if it says none."""
    tokens = []
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise StepwireError(f"schedule={text!r} can't be read: {error}") from None
    for word in words:
        verb, colon, label = word.partition(":")
        if word == START_TOKEN:
            verb, label = TWICE, ""
        elif not colon or verb not in VERBS:
            known = ", ".join(f"{verb}:<step>" for verb in VERBS)
            raise StepwireError(f"schedule={text!r} can't be read: {word!r} is none of {known}, {START_TOKEN}")
        tokens.append(Token(verb, label))
    return tuple(tokens)


@dataclass(slots=True)
class Chooser:
    """Decides what happens in one run: which of several ended steps is taken next, and what goes wrong.

    `crash` is asked once for each recorded result; `lost` and `twice` for each arriving one.
    """

    pick: Callable[[Sequence[str]], int]
    crash: Callable[[str], bool]
    lost: Callable[[str], bool]
    twice: Callable[[str], bool]


def never(label: str) -> bool:
    """Let nothing go wrong."""
    return False


def always(label: str) -> bool:
    """Let it go wrong each time."""
    return True


def first(labels: Sequence[str]) -> int:
    """Take steps in the order of their beginning."""
    return 0


def last(labels: Sequence[str]) -> int:
    """Take what began last."""
    return -1 % len(labels)


def following(plan: Plan) -> Chooser:
    """Do what a plan says."""
    order = [label for verb, label in plan if verb == TAKE]

    def pick(labels: Sequence[str]) -> int:
        for number, label in enumerate(order):
            if label in labels:
                del order[number]
                return labels.index(label)
        return 0

    crash, lost, twice = (frozenset(label for verb, label in plan if verb == each) for each in (CRASH, LOST, TWICE))
    return Chooser(pick, crash.__contains__, lost.__contains__, twice.__contains__)


RATES = (0.0, 0.0, 0.15, 0.5)
"""How likely each thing that can go wrong is in a drawn schedule; one of these is drawn for each kind of thing."""


def drawn(rng: random.Random) -> Chooser:
    """Draw an order and faults as they come."""

    def chance() -> Callable[[str], bool]:
        rate = rng.choice(RATES)
        return (lambda label: rng.random() < rate) if rate else never

    in_order = rng.random() < 0.25
    return Chooser(first if in_order else lambda labels: rng.randrange(len(labels)), chance(), chance(), chance())


class Orders:
    """Goes through the orders of completion one by one, depth first, each once. The first one is the plain one.

    Give it what came of each run with `went`: how many there were to choose from, and which was taken, each time.
    """

    def __init__(self) -> None:
        self._prefix: Sequence[int] = ()
        self.exhausted = False

    def chooser(self) -> Chooser:
        """Give the chooser of the next order, with nothing going wrong."""
        path = iter(self._prefix)
        return Chooser(lambda labels: min(next(path, 0), len(labels) - 1), never, never, never)

    def went(self, widths: Sequence[int], picked: Sequence[int]) -> None:
        """Go to the next order."""
        for at in range(len(picked) - 1, -1, -1):
            if picked[at] + 1 < widths[at]:
                self._prefix = (*picked[:at], picked[at] + 1)
                return
        self.exhausted = True


async def shrink(plan: Plan, still_differs: Callable[[Plan], Awaitable[bool]], most: int) -> Plan:
    """Leave tokens out, many at a time and then one at a time, as long as it still differs; try at most `most` times.

    The rule is Zeller's and Hildebrandt's delta debugging, without its test of the parts alone.
    """
    size = len(plan)
    while plan and size >= 1:
        at, less = 0, False
        while at < len(plan):
            if most <= 0:
                return plan
            most -= 1
            shorter = plan[:at] + plan[at + size :]
            if await still_differs(shorter):
                plan, less = shorter, True
            else:
                at += size
        if size > 1:
            size = (size + 1) // 2
        elif not less:
            break
    return plan
