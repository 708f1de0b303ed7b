"""What a soak asks for, and what it must come to: functions of Python and TypeScript that call each other's."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from tests.end_to_end import test_chaos
from tests.end_to_end.apps.raising import ODD

ODD_IN_TYPESCRIPT = ("undefined", "text", "frozen", "aggregate")
MOST_POLLING = 0.02
"""The share of runs that poll: each takes a worker's loop for a while, in TypeScript for five seconds."""


class Work(NamedTuple):
    """A run to begin, and its end."""

    function: str
    data: Any
    gives: Any = None
    fails: str = ""
    """The type of the failure that it must end with."""
    approvals: int = 0
    """How many events it waits for, one after the other."""

    def is_right(self, output: Any) -> bool:
        """Whether a run has given what it must."""
        return test_chaos.is_right(self.function, output, self.gives)


def draw(dice: random.Random, name: str) -> Work:
    """Choose a run; `name` is unique to it."""
    if dice.random() < MOST_POLLING:
        return Work(dice.choice(["polls", "ts-polls"]), None, fails="SpinningBodyError")
    match dice.choice(["chaos", "chaos", "ts-fan-out", "approvals", "row", "odd"]):
        case "ts-fan-out":
            function, data = "ts-fan-out", {"count": dice.choice([2, 10, 60]), "seconds": dice.choice([0.0, 0.01, 0.1])}
            return Work(function, data, test_chaos.expected("fan-out", data))
        case "approvals":
            count = dice.choice([2, 4, 8])
            function, data = dice.choice(["approvals", "ts-approvals"]), {"doc": name, "count": count}
            return Work(function, data, [*range(count), None], approvals=count)
        case "row":
            function, factor = dice.choice([("row", 1), ("ts-row", 2)])
            count = dice.choice([2, 6, 12])
            return Work(function, {"count": count}, [factor * (2 * n + 2) for n in range(count)])
        case "odd":
            function, kinds = dice.choice([("odd", sorted(ODD)), ("ts-odd", ODD_IN_TYPESCRIPT)])
            kind = dice.choice(kinds)
            return Work(function, {"kind": kind}, kind)
    function, data = test_chaos.draw(dice)
    return Work(function, data, test_chaos.expected(function, data))
