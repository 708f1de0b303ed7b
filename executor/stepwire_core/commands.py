"""What the core wants done: rows to write, and then things to send.

The writes of a decision are durable before its commands are carried out, but for `early` ones, which promise nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from stepwire_core.inputs import AttemptRef, Input, Reply
from stepwire_core.model import (
    Blob,
    Event,
    EventKey,
    FailedAttempt,
    Failure,
    Function,
    FunctionKey,
    Run,
    Step,
    StepKey,
)


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that waits for an event: a row to look it up by. `paths` and `match` are canonical JSON."""

    event_name: str
    paths: str
    match: str
    run_id: str
    key: StepKey
    since: int
    """Position of the event that started the run: only later ones count."""
    app: str
    """The run's."""


@dataclass(slots=True)
class Writes:
    """Rows to write in one transaction. A run or step that changed several times is written once, as it is now.

    The store reads the rows before its first await.
    """

    events: list[Event] = field(default_factory=list)
    new_runs: dict[str, Run] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    """Changed, not new."""
    new_steps: dict[tuple[str, int], Step] = field(default_factory=dict)
    """By run id and step number."""
    steps: dict[tuple[str, int], Step] = field(default_factory=dict)
    """Changed, not new."""
    failed_attempts: list[FailedAttempt] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    forgotten: dict[FunctionKey, None] = field(default_factory=dict)
    """Functions to remove."""
    new_waits: dict[tuple[str, StepKey], Wait] = field(default_factory=dict)
    """By run id and step key."""
    ended_waits: dict[tuple[str, StepKey], None] = field(default_factory=dict)
    """Those that were written before."""
    told: int = 0
    """Up to this position all waits that were there were told of events; 0: as it was."""

    def begin_wait(self, wait: Wait) -> None:
        """Have a wait's row written; one that has ended in this batch has its row still, which is the same."""
        at = wait.run_id, wait.key
        if at in self.ended_waits:
            del self.ended_waits[at]
        else:
            self.new_waits[at] = wait

    def end_wait(self, run_id: str, key: StepKey) -> None:
        """Have a wait's row removed; one that has begun in this batch gets none."""
        if self.new_waits.pop((run_id, key), None) is None:
            self.ended_waits[run_id, key] = None

    @property
    def size(self) -> int:
        """How many rows there may be, but for the few that are no run's."""
        its_runs = len(self.events) + len(self.new_runs) + len(self.runs) + len(self.new_waits) + len(self.ended_waits)
        return its_runs + len(self.new_steps) + len(self.steps) + len(self.failed_attempts)

    def __bool__(self) -> bool:
        return bool(
            self.events
            or self.new_runs
            or self.runs
            or self.new_steps
            or self.steps
            or self.failed_attempts
            or self.functions
            or self.forgotten
            or self.new_waits
            or self.ended_waits
        )


@dataclass(frozen=True, slots=True)
class Welcomed:
    """Accept a worker."""

    session_id: str
    stream: object
    resumed: bool
    unwanted: Sequence[AttemptRef]


@dataclass(frozen=True, slots=True)
class Rejected:
    """End a stream. `code` is the name of a gRPC status code. With `session_id` empty the Hello itself is refused."""

    session_id: str
    stream: object
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Invoke:
    """Start a run's body in a worker, its `attempt`-th time."""

    session_id: str
    run: Run
    attempt: int
    invocation: int
    lead: bool
    journal: Sequence[Step]
    planned: Sequence[Step]
    eager_fence: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Give an invocation new results."""

    session_id: str
    run: Run
    invocation: int
    entries: Sequence[Step]
    lead: bool
    eager_fence: int


class StartAttempt(NamedTuple):
    """Start an attempt in a worker. `timeout` in seconds. A closure names its `invocation`; a task has 0."""

    session_id: str
    run: Run
    key: StepKey
    fence: int
    number: int
    timeout: float | None
    invocation: int
    task: str
    input: Blob


class Recorded(NamedTuple):
    """An attempt's report is durable. `failed` says whether its step has failed for good by that."""

    session_id: str
    attempt: AttemptRef
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """An attempt's report was not taken."""

    session_id: str
    attempt: AttemptRef
    current_fence: int
    reason: str


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Stop all that a worker has of a run. `failure` is set if the run has failed, but not by its body."""

    session_id: str
    run_id: str
    reason: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Stop one attempt. `failure` is set if it has failed by that, and `retried` if another one follows then."""

    session_id: str
    attempt: AttemptRef
    reason: str
    failure: Failure | None = None
    retried: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a call."""

    reply: Reply
    value: object


@dataclass(frozen=True, slots=True)
class EventConflict:
    """Answer of EventsSent: an id was used again for another event; nothing was taken. `index` is the event's.

    `among`: the other one is in the same call.
    """

    index: int
    event_id: str
    among: bool

    @property
    def reason(self) -> str:
        """What is wrong with the id, and what to do."""
        used = "is given twice, to different events" if self.among else "was used within 24 h for another event"
        return f"event id {self.event_id!r} {used}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Answer of EventsSent, one for each event."""

    event_id: str
    run_ids: Sequence[str]
    duplicate: bool


@dataclass(frozen=True, slots=True)
class FindWaits:
    """Look for steps that wait for this event, and give them back as EventMatched."""

    event: Event


class Wanted(NamedTuple):
    """Events that are looked up: those with a `match` at `paths`, behind a position, so many at the most."""

    paths: str
    match: str
    after: int
    most: int


@dataclass(frozen=True, slots=True)
class FindEvents:
    """Look for events that waits of a run may have missed, and give them back as EventsLookedUp with this `number`."""

    run_id: str
    app: str
    event_name: str
    number: int
    wanted: Sequence[Wanted]
    paths: Sequence[str]
    """The paths for which values are to be given."""
    taken: AbstractSet[int]
    """Positions that are not wanted; the core adds to it meanwhile."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Decide this next."""

    input: Input


Command = (
    Welcomed
    | Rejected
    | Invoke
    | Resume
    | StartAttempt
    | Recorded
    | Refused
    | CancelRun
    | CancelAttempt
    | Answer
    | FindWaits
    | FindEvents
    | FollowUp
)


class AttemptIssued(NamedTuple):
    """An attempt runs in a worker from now on, for observers. `timeout` in seconds, `at` by the monotonic clock."""

    run_id: str
    key: StepKey
    number: int
    fence: int
    worker: str
    session_id: str
    timeout: float | None
    at: float


class AttemptClosed(NamedTuple):
    """An attempt has ended, for observers. Times in Unix seconds, but `at` by the monotonic clock; `queued` in seconds.

    `outcome`: "succeeded", "failed", "timed_out", "lost" (with its worker), "cancelled" or "returned" (given back by a
    draining worker).
    """

    run: Run
    step: Step
    number: int
    fence: int
    worker: str
    started_at: float
    ended_at: float
    queued: float
    at: float
    outcome: str
    failure: Failure | None = None
    retry_in: float | None = None
    """Seconds until the next attempt; None if there is none."""


@dataclass(frozen=True, slots=True)
class BodyRetried:
    """A body has failed and is tried again after `retry_in` seconds, for observers. `number` of the try, from 1."""

    run: Run
    number: int
    worker: str
    failure: Failure
    retry_in: float


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is taken for dead, for observers: `attempts` failed with it, and bodies of `runs` were at work there."""

    worker: str
    attempts: Sequence[AttemptRef]
    runs: Sequence[str]


class RunBegun(NamedTuple):
    """A run's body begins for the first time, for observers."""

    run: Run


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run has ended, for observers."""

    run: Run


Observation = AttemptIssued | AttemptClosed | BodyRetried | WorkerLost | RunBegun | RunEnded


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that could not be decided, by a fault of ours: `what` it was, so that one can make it again."""

    what: str
    error: str
    traceback: str
    run_ids: Sequence[str]
    """Runs that go on from what is stored, or have failed by it."""


@dataclass(slots=True)
class Decision:
    """What to do about inputs: one batch of them, or more that came while another decision's commit ran.

    `decided_at`, when it was last added to, is of the monotonic clock.
    """

    number: int
    """Counts from 1; a decision is sent after all with lower numbers."""
    decided_at: float = 0.0
    writes: Writes = field(default_factory=Writes)
    early: list[Command] = field(default_factory=list)
    """May be carried out while the commit runs."""
    commands: list[Command] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    changed_runs: set[str] = field(default_factory=set)
    """Ids of runs of which anything changed, durable or not, for those who watch."""
    recorded: list[tuple[str, Step]] = field(default_factory=list)
    """Steps whose results were written into the journal, with the ids of their runs."""
    unloaded: list[Run] = field(default_factory=list)
    """Runs that leave the memory with this decision, ended or asleep."""
    cancelling: set[str] = field(default_factory=set)
    """Sessions that `commands` tell to stop something."""
    told: list[tuple[float, CancelRun | CancelAttempt]] = field(default_factory=list)
    """What these are told, and when that was decided, by the monotonic clock."""
    recent: dict[EventKey, Event] = field(default_factory=dict)
    """Events that it takes, by key."""
    begun_by_steps: int = 0
    """Runs that steps have started."""
    faults: list[Fault] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.writes or self.commands or self.observations or self.changed_runs or self.unloaded)

    def cancel(self, command: CancelRun | CancelAttempt) -> None:
        """Tell a worker to stop something."""
        self.commands.append(command)
        self.told.append((self.decided_at, command))
        self.cancelling.add(command.session_id)
