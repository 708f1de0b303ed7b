"""What the replay machine takes and gives, as data. Mirrors the opcodes of the contract, without Protobuf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from stepwire.errors import Failure
from stepwire.payload import Payload
from stepwire.signatures import Converted


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


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: `retries` after the first attempt (0 to 100); intervals in seconds.

    The delay before retry n is drawn evenly from zero to min(maximum_interval, initial_interval * multiplier**(n-1)).
    """

    retries: int = 4
    initial_interval: float = 1.0
    maximum_interval: float = 300.0
    multiplier: float = 2.0


class Closure(NamedTuple):
    """Code of the body: `run` is called with no arguments in a worker, and may return an awaitable.

    `output_type` is the type that its result is encoded as; None leaves that to the value. With `converts` it was asked
    for where the step is started, and plain data is converted to it.
    """

    run: Callable[[], Any]
    output_type: Any = None
    converts: bool = False

    @property
    def encoded_as(self) -> Any:
        """What Values.encode is to be given as the type."""
        return Converted(self.output_type) if self.converts else self.output_type


@dataclass(frozen=True, slots=True)
class Task:
    """A task by name with its encoded input."""

    name: str
    input: Payload


@dataclass(frozen=True, slots=True)
class Sleep:
    """Exactly one is set: `until` (Unix time in seconds) or `delay` (seconds, counted from the planning)."""

    until: float | None = None
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Invoke:
    """A run of another function; an empty `app` means the run's own."""

    app: str
    function_id: str
    input: Payload


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """An event to send. An empty id lets the executor make a stable one. `time` is Unix seconds or None for now."""

    name: str
    data: Payload
    id: str = ""
    time: float | None = None


@dataclass(frozen=True, slots=True)
class SendEvents:
    """Events to send once."""

    events: Sequence[OutgoingEvent]


@dataclass(frozen=True, slots=True)
class WaitForEvent:
    """Wait for an event by name and equal fields. `fields` maps dotted paths to JSON text; `timeout` is in seconds."""

    event_name: str
    fields: Mapping[str, str]
    timeout: float | None


Target = Closure | Task | Sleep | Invoke | SendEvents | WaitForEvent


def target_name(target: Target, app: str) -> str:
    """Give what identifies a target beside its kind: the task, "app/function", or the event's name; else "".

    `app` is the run's. Inputs, times, options and what a wait matches do not identify a step: they may change.
    """
    match target:
        case Task():
            return target.name
        case Invoke():
            return f"{target.app or app}/{target.function_id}"
        case WaitForEvent():
            return target.event_name
    return ""


class Planned(NamedTuple):
    """A step that the body has started. Timeouts are in seconds. `source` is like "flow.py:42"."""

    key: StepKey
    kind: StepKind
    target: Target
    retry: Retry | None = None
    attempt_timeout: float | None = None
    step_timeout: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """A step that the executor knows as planned and unfinished: after the journal the body must have found it."""

    key: StepKey
    kind: StepKind
    source: str = ""
    target: str = ""
    """See `target_name`; empty if the executor does not say it."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The outcome of a wait whose time ran out."""


class Entry(NamedTuple):
    """One journal entry. `recorded_at` is Unix time in seconds; the outcome is a payload, a failure or TimedOut.

    A sleep's outcome is an empty payload (data b"", encoding ""). `target` is that of `Expected`.
    """

    sequence: int
    key: StepKey
    kind: StepKind
    outcome: Payload | Failure | TimedOut
    recorded_at: float
    attempts: int = 1
    source: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A received event with its data still encoded. `time` is Unix time in seconds."""

    id: str
    name: str
    data: Payload
    time: float


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What an invocation is told of its run. `attempt` counts tries at the body from 1; `created_at` is Unix time."""

    run_id: str
    attempt: int
    events: Sequence[Event]
    created_at: float
    app: str = ""
    function_id: str = ""


@dataclass(frozen=True, slots=True)
class Returned:
    """The body returned; the output is encoded."""

    output: Payload


@dataclass(frozen=True, slots=True)
class Raised:
    """The body raised, or diverged from its journal."""

    failure: Failure
    error: BaseException | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a body did since the last turn, in order.

    `found`: new steps, neither in the journal nor expected. `cancelled`: steps reported or expected before that
    the body gave up. `outcome`: set once the body has ended, in every turn from then on.
    """

    found: Sequence[Planned] = ()
    cancelled: Sequence[StepKey] = ()
    outcome: Returned | Raised | None = None
