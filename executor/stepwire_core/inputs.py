"""What can happen to the executor. Each input is data that somebody else has received, parsed and checked for form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stepwire_core.model import (
    Blob,
    Event,
    EventKey,
    Failure,
    FunctionKey,
    FunctionOptions,
    Retry,
    Run,
    RunState,
    StepKey,
    StepKind,
    WaitSpec,
)

Reply = object
"""An opaque token: the answer to a call is a command that carries it back."""


class AttemptRef(NamedTuple):
    """One try at one step."""

    run_id: str
    key: StepKey
    fence: int


@dataclass(frozen=True, slots=True)
class EventsSent:
    """A client sends events. `known` holds those with the same keys from the last 24 h; the engine looks them up."""

    events: Sequence[Event]
    reply: Reply
    known: Mapping[EventKey, Event] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """A client, or the end of the parent run, cancels a run."""

    run_id: str
    reason: str
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker has connected."""

    session_id: str
    """A new id, used unless an old session is resumed; it begins with the epoch and a dot."""
    instance_id: str
    app: str
    app_version: str
    functions: Sequence[FunctionOptions]
    tasks: Sequence[str]
    slots: int
    max_invocations: int
    eager: bool = False
    resume_session: str = ""
    in_hand: Sequence[AttemptRef] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    sdk_name: str = ""
    sdk_version: str = ""
    stream: object = None
    """Opaque token of the stream; comes back with Welcomed, or Rejected."""
    identity: str = ""
    """Who vouches for the worker; nobody else may use its session or its name."""
    draining: bool = False
    """It takes no work, and has come back for what it has in hand."""
    eager_plans: Sequence[StepsFound] = ()
    """Of lone steps among those in hand, whose plans may not have come."""


@dataclass(frozen=True, slots=True)
class StreamLost:
    """A worker's stream has ended. `stream` is that of its Hello: a later stream of the session is not concerned."""

    session_id: str
    stream: object


@dataclass(frozen=True, slots=True)
class Draining:
    """A worker takes no more attempts, and gives some back; with its last word, when it is `done`, all that is left."""

    session_id: str
    returned: Sequence[AttemptRef] = ()
    done: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sign of life. `loop_lag` in seconds."""

    session_id: str
    loop_lag: float = 0.0
    blocking_stack: str = ""


class StepPlanned(NamedTuple):
    """A step as its lead has found it. Durations in seconds; `due_at` in Unix seconds."""

    key: StepKey
    kind: StepKind
    target: str = ""
    input: Blob = b""
    retry: Retry | None = None
    attempt_timeout: float | None = None
    step_timeout: float | None = None
    source: str = ""
    eager_fence: int = 0
    due_at: float | None = None
    """End of a SLEEP, absolute."""
    delay: float | None = None
    """End of a SLEEP or WAIT_FOR_EVENT, counted from now."""
    events: Sequence[Event] = ()
    """Of SEND_EVENTS, all with ids."""
    output: Blob = b""
    """Of SEND_EVENTS: the events' ids as the step's result."""
    fault: Failure | None = None
    """Set if the step is invalid: it fails with this at once."""
    wait: WaitSpec | None = None
    """Of WAIT_FOR_EVENT."""


@dataclass(frozen=True, slots=True)
class StepsFound:
    """A lead has found steps. `known`: see EventsSent, for the events in SEND_EVENTS steps."""

    session_id: str
    run_id: str
    invocation: int
    sequence: int
    steps: Sequence[StepPlanned]
    quiescent: bool
    known: Mapping[EventKey, Event] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendDue:
    """The events of a waiting step have room for the runs that they start.

    `fence` is that of its plan; `known`: see EventsSent.
    """

    run_id: str
    key: StepKey
    fence: int
    events: Sequence[Event]
    known: Mapping[EventKey, Event] = field(default_factory=dict)


class StepRun(NamedTuple):
    """An attempt has ended well. `elapsed` in seconds."""

    session_id: str
    run_id: str
    key: StepKey
    fence: int
    output: Blob
    output_bytes: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    """An attempt has failed. `elapsed` in seconds."""

    session_id: str
    run_id: str
    key: StepKey
    fence: int
    failure: Failure
    elapsed: float


@dataclass(frozen=True, slots=True)
class StepCancelled:
    """A body gave up steps."""

    session_id: str
    run_id: str
    invocation: int
    keys: Sequence[StepKey]


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A body has returned."""

    session_id: str
    run_id: str
    invocation: int
    output: Blob
    output_bytes: int


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A body has raised, or diverged; then `not_found` may be a planned step that it has not found."""

    session_id: str
    run_id: str
    invocation: int
    failure: Failure
    not_found: StepKey | None = None


@dataclass(frozen=True, slots=True)
class Evicted:
    """A worker no longer holds an invocation: evicted, or never had it. It gives back what it can't begin of it."""

    session_id: str
    run_id: str
    invocation: int
    returned: Sequence[AttemptRef] = ()


@dataclass(frozen=True, slots=True)
class RunsLoaded:
    """Runs that come into memory from the store."""

    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class NotWritten:
    """A command could not be written to its worker's stream, which is a bug of ours; the stream ends."""

    run_id: str
    """What it was about; "" if it was no run."""
    what: str
    error: Exception


@dataclass(frozen=True, slots=True)
class SleepersWoken:
    """Runs that are to be looked at, though they may still have nothing to do."""

    run_ids: Sequence[str]


class FoundEvent(NamedTuple):
    """An event for waits. `output` is the event as a step's result; `matches` are its values by the waits' paths."""

    position: int
    output: Blob
    matches: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventMatched:
    """A durable event fits a wait of a run, which may have had it already. `matches` has all paths that anybody has."""

    run_id: str
    event_name: str
    event: FoundEvent


@dataclass(frozen=True, slots=True)
class EventsLookedUp:
    """What FindEvents has found, in order: all events up to `looked_to` that fit, and no wait of the run has had.

    `more`: behind `looked_to` there may be more.
    """

    run_id: str
    event_name: str
    number: int
    events: Sequence[FoundEvent]
    looked_to: int
    more: bool


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """A run that a step invoked has ended."""

    run_id: str
    key: StepKey
    child_state: RunState
    output: Blob | None
    failure: Failure | None
    child_run_id: str


@dataclass(frozen=True, slots=True)
class FunctionsChecked:
    """Functions were looked at: the store has no unfinished runs of those that are `unneeded`."""

    unneeded: Sequence[FunctionKey]
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class ExecutorDraining:
    """The executor stops: nothing new is handed out."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. The answer, if one is wanted, says that all that was submitted before is decided and durable."""

    reply: Reply | None = None


Input = (
    EventsSent
    | RunCancelled
    | Hello
    | StreamLost
    | Draining
    | Heartbeat
    | StepsFound
    | SendDue
    | StepRun
    | StepFailed
    | StepCancelled
    | RunFinished
    | RunFailed
    | Evicted
    | RunsLoaded
    | NotWritten
    | SleepersWoken
    | EventMatched
    | EventsLookedUp
    | ChildEnded
    | FunctionsChecked
    | ExecutorDraining
    | Tick
)
