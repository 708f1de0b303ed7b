"""What a worker keeps of a body that it holds, and what bodies need of their worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stepwire.errors import Failure, NestedStepError
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import Entry, Expected, Planned, RunInfo
from stepwire_proto.v1 import worker_pb2


@dataclass(frozen=True, slots=True)
class Permission:
    """To run a lone step at once, as the attempt with this fence; there is none if that is 0."""

    fence: int = 0
    traceparent: str = ""


class Move(NamedTuple):
    """What a body has to do: take results, and go on until it comes to rest.

    `given` counts the results that it has then been given, `before` those that it had before it began to move, or -1 if
    none of them was told what it had found; only a history asks for both.
    """

    entries: Sequence[Entry]
    permission: Permission
    promoted: bool = False
    """Whether it becomes the lead by it."""
    before: int = -1
    given: int = 0


class Live:
    """A body in this worker. Until its journal is whole there is no `invocation`."""

    def __init__(self, run_id: str, fence: int, lead: bool, info: RunInfo, journal_length: int) -> None:
        self.run_id = run_id
        self.fence = fence
        self.lead = lead
        self.info = info
        self.journal_length = journal_length
        self.journal: list[Entry] = []
        self.expected: list[Expected] = []
        self.permission = Permission()
        """What Invoke permits, until the journal is whole."""
        self.invocation: Invocation | None = None
        self.moves: deque[Move] = deque()
        """What the body has still to do."""
        self.waiting: list[worker_pb2.AttemptStart] = []
        """Attempts that came before their closures were reached."""
        self.moving = False
        self.dropped = False
        self.given = 0
        """How many journal entries it was given; only a history asks."""
        self.before = -1
        """How many it had been given before it began to move; -1 if nothing. Only a history asks."""
        self.failure: Failure | None = None
        """Why this replica will find nothing more; a lead tells it at once."""


class Shell(Protocol):
    """What the invocations need of the worker. All of it is called on the user's loop."""

    def say(self, run_id: str, message: worker_pb2.WorkerMessage) -> None:
        """Tell the executor something of a run's body: the plan of a lone step that is held back goes before it."""

    def flush(self) -> None:
        """Hand over what was told, rather than at the end of this turn of the loop."""

    def run_lone(self, live: Live, step: Planned, permission: Permission, report: worker_pb2.WorkerMessage) -> None:
        """Run a lone step at once, and send the report of its plan."""

    def run_closure(self, start: worker_pb2.AttemptStart) -> None:
        """Run an attempt that has waited for its body."""

    def refuse(self, start: worker_pb2.AttemptStart, error: Exception, function_id: str) -> None:
        """Report an attempt that can't begin as failed."""

    def is_busy(self, run_id: str) -> bool:
        """Whether attempts of a run are in hand."""

    def nested(self, run_id: str, error: NestedStepError) -> None:
        """Take note that code of the run's steps has started a step; called in any thread."""
