"""What the executor knows: events, functions, runs and steps.

`Run` and `Step` are changed in place, by the core alone; everything else is immutable. A `Blob` is a serialized
`stepwire.v1.Payload`, which the core carries and never opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

Blob = bytes
FunctionKey = tuple[str, str]
"""An app and the id of a function in it."""

INVOKED_EVENT = "stepwire/function.invoked"
"""Name of the event that a run is given which another run invoked."""


class Now(NamedTuple):
    """One reading of both clocks, in seconds: Unix time, and a clock that only moves forward."""

    wall: float
    mono: float
    moved: float = 0.0
    """By how much the time of day was set since the executor has started."""

    @property
    def steady(self) -> float:
        """Unix time as if it had not been set since: what timeouts and backoffs go by, stored ones too."""
        return self.wall - self.moved


class StepKey(NamedTuple):
    """A step's identity in its run: the user's id, and the index of its repetition (0, 1, …)."""

    id: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which a key has no use for

    def __str__(self) -> str:
        return self.id if self.index == 0 else f"{self.id}:{self.index}"


class StepKind(IntEnum):
    """What a step does; the numbers are the contract's."""

    CLOSURE = 1
    TASK = 2
    SLEEP = 3
    INVOKE = 4
    SEND_EVENTS = 5
    WAIT_FOR_EVENT = 6


class StepState(IntEnum):
    """Where a step stands; the numbers are the contract's."""

    READY = 1
    RUNNING = 2
    WAITING = 3
    RETRYING = 4
    SUCCEEDED = 5
    FAILED = 6
    CANCELLED = 7

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the step any more."""
        return self >= StepState.SUCCEEDED

    @property
    def busy(self) -> bool:
        """Whether a worker runs the step, or is to run it now."""
        return self <= StepState.RUNNING


class RunState(IntEnum):
    """Where a run stands; the numbers are the contract's."""

    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the run any more."""
        return self >= RunState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: `retries` after the first attempt; intervals in seconds."""

    retries: int = 4
    initial_interval: float = 1.0
    maximum_interval: float = 300.0
    multiplier: float = 2.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as data. `retry_after` is in seconds from its receipt and replaces the policy's backoff."""

    type: str
    message: str
    stack: str = ""
    retryable: bool = True
    retry_after: float | None = None
    cause: Failure | None = None
    details: Blob | None = None


EventKey = tuple[tuple[str, ...], str]
"""The apps that an event reaches, and its id."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it was received. Times are Unix seconds. `position` orders all events; 0 until the core gives one."""

    id: str
    name: str
    data: Blob
    time: float
    traceparent: str = ""
    tracestate: str = ""
    digest: str = ""
    """Of name, data and apps, to tell an event sent again from another one with its id."""
    received_at: float = 0.0
    position: int = 0
    run_ids: tuple[str, ...] = ()
    """The runs that it started."""
    apps: tuple[str, ...] = ()
    """It reaches runs and functions of these apps only; of all if there are none."""

    @property
    def key(self) -> EventKey:
        """What is once only: an id among those who reach the same apps."""
        return self.apps, self.id

    def reaches(self, app: str) -> bool:
        """Say whether runs and functions of an app see it."""
        return not self.apps or app in self.apps


@dataclass(frozen=True, slots=True)
class FunctionOptions:
    """What a worker registers of a function. `run_timeout` is in seconds."""

    id: str
    event_names: tuple[str, ...] = ()
    retry: Retry | None = None
    run_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """A registered function."""

    app: str
    options: FunctionOptions
    app_version: str
    registered_at: float
    served_at: float = 0.0
    """When a connected worker last served it, as was written down; 0 if that was not. Unix seconds."""

    @property
    def key(self) -> FunctionKey:
        """App and id."""
        return self.app, self.options.id


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that did not succeed. Times are Unix seconds."""

    run_id: str
    step_number: int
    number: int
    fence: int
    worker: str
    started_at: float
    ended_at: float
    failure: Failure


class WaitSpec(NamedTuple):
    """What a wait compares an event with, as canonical JSON: the paths, and the values that stand there."""

    paths: str = "[]"
    match: str = "[]"


@dataclass(slots=True, eq=False)
class Step:
    """A step of a run. Times are Unix seconds, durations seconds."""

    key: StepKey
    number: int
    """Its place in the order of discovery, from 1."""
    kind: StepKind
    target: str = ""
    """The task, the event waited for, or "app/function" of the one invoked."""
    input: Blob = b""
    """Input of a task or of an invoked function."""
    retry: Retry | None = None
    attempt_timeout: float | None = None
    step_timeout: float | None = None
    source: str = ""
    found_after: int = 0
    """Length of the journal that the body had been given when it found the step."""
    state: StepState = StepState.READY
    attempt: int = 0
    """Number of the newest attempt; those that were given back or lost with the executor are not counted."""
    fence: int = 0
    """Fence of the newest attempt; without one, whatever is older is stale."""
    session: str = ""
    """Where the newest attempt runs; meaningful while RUNNING. Not stored."""
    worker: str = ""
    """Instance id of the worker of the newest attempt."""
    planned_at: float = 0.0
    """In steady time, since a timeout may count from it."""
    started_at: float | None = None
    ended_at: float | None = None
    due_at: float | None = None
    """When a sleep, a wait or a backoff ends; steady time, but for a sleep, which ends at a time of day."""
    sequence: int = 0
    """Place in the journal; 0 while unfinished."""
    output: Blob | None = None
    failure: Failure | None = None
    timed_out: bool = False
    child_run_id: str = ""
    event_position: int | None = None
    """Position of the event that a wait was given."""
    wait: WaitSpec | None = None
    """What a wait compares; none if that was no good, with which the step has failed."""


@dataclass(slots=True, eq=False)
class Run:
    """A run. Times are Unix seconds."""

    id: str
    app: str
    function_id: str
    app_version: str
    event: Event
    created_at: float
    state: RunState = RunState.PENDING
    started_at: float | None = None
    ended_at: float | None = None
    deadline_at: float | None = None
    """When the run's timeout strikes; steady time, as `retry_at`."""
    output: Blob | None = None
    failure: Failure | None = None
    attempt: int = 1
    """The try at the body, from 1."""
    retry_at: float | None = None
    """When the body is tried again after a failure."""
    lost_invocations: int = 0
    """Workers lost with a busy lead since the journal last grew."""
    parent_run_id: str = ""
    parent_key: StepKey | None = None
    depth: int = 0
    cancel_reason: str = ""
    wake_at: float | None = 0.0
    """0: has work, belongs into memory. A time: sleeps until then. None: waits for an event or a child, or ended."""
    steps: dict[StepKey, Step] = field(default_factory=dict)
    """In the order of discovery."""
    journal: list[Step] = field(default_factory=list)
    """In the order of their sequence."""
    journal_bytes: int = 0
    open: dict[StepKey, Step] = field(default_factory=dict)
    """The unfinished ones of `steps`."""

    @property
    def function_key(self) -> FunctionKey:
        """App and id of its function."""
        return self.app, self.function_id


def restore(run: Run, steps: Sequence[Step]) -> Run:
    """Put stored steps, in the order of their numbers, into a run that was stored without them."""
    run.steps = {step.key: step for step in steps}
    run.open = {step.key: step for step in steps if not step.state.ended}
    run.journal = sorted((step for step in steps if step.sequence), key=lambda step: step.sequence)
    run.journal_bytes = sum(size(step) for step in run.journal)
    return run


def size(step: Step) -> int:
    """Bytes that a recorded step adds to its run's journal, roughly."""
    failure = step.failure
    return len(step.output or b"") + (len(failure.message) + len(failure.stack) if failure else 0) + len(step.key.id)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the executor allows. Sizes in bytes, times in seconds; each is a setting of the same name."""

    max_output_bytes: int = 3_000_000
    max_journal_bytes: int = 256 << 20
    max_steps: int = 100_000
    max_step_id_bytes: int = 1024
    max_event_bytes: int = 1 << 20
    max_events_per_call: int = 5_000
    max_frame_bytes: int = 1 << 20
    max_retries: int = 100
    max_sleep: float = 366 * 86400.0
    max_invoke_depth: int = 64
    max_lost_invocations: int = 10
    max_functions: int = 10_000
    forget_functions_after: float = 30 * 86400.0
    max_queued_runs: int = 200_000
    max_queued_bytes: int = 256 << 20
    heartbeat_interval: float = 3.0
    session_grace: float = 5.0
