"""What a client is told of runs, steps, workers and functions, as data; and how it is read from the contract.

Times are aware datetimes in UTC, durations are seconds. Outputs and events' data stay encoded: `Client.result` decodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from google.protobuf.timestamp_pb2 import Timestamp

from stepwire import wire
from stepwire.errors import Failure
from stepwire.payload import Payload
from stepwire.replay.model import Retry, StepKey
from stepwire_proto.v1 import admin_pb2, event_pb2, run_pb2


class RunState(StrEnum):
    """Where a run stands."""

    UNKNOWN = "unknown"
    """A state that this version of the SDK does not know."""
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the run will not change any more."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class StepState(StrEnum):
    """Where a step stands: waits for a slot, runs, waits for something, waits for its next attempt, or has ended."""

    UNKNOWN = "unknown"
    """A state that this version of the SDK does not know."""
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the step will not change any more."""
        return self in (StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED)


class StepKind(StrEnum):
    """What a step does."""

    UNKNOWN = "unknown"
    """A kind that this version of the SDK does not know."""
    CLOSURE = "closure"
    TASK = "task"
    SLEEP = "sleep"
    INVOKE = "invoke"
    SEND_EVENTS = "send_events"
    WAIT_FOR_EVENT = "wait_for_event"


class WorkerState(StrEnum):
    """Where a worker stands."""

    UNKNOWN = "unknown"
    """A state that this version of the SDK does not know."""
    CONNECTED = "connected"
    DRAINING = "draining"
    LOST = "lost"


class CauseKind(StrEnum):
    """What kind of thing a run waits for; `proto/stepwire/v1/run.proto` explains each."""

    UNKNOWN = "unknown"
    """A kind that this version of the SDK does not know; `Cause.text` says what it is."""
    ENDED = "ended"
    STORE_FAILING = "store_failing"
    STORE_SLOW = "store_slow"
    EXECUTOR_DRAINING = "executor_draining"
    EXECUTOR_BUSY = "executor_busy"
    LOADING = "loading"
    NO_WORKER = "no_worker"
    NO_TASK_WORKER = "no_task_worker"
    WORKERS_FULL = "workers_full"
    NO_SLOT = "no_slot"
    BODY_RETRY = "body_retry"
    BODY_RUNNING = "body_running"
    STEP_RETRY = "step_retry"
    STEP_RUNNING = "step_running"
    CHILD_RUN = "child_run"
    EVENT = "event"
    SLEEP = "sleep"
    RUN_TIMEOUT = "run_timeout"
    WORKER_FULL = "worker_full"
    WORKER_DRAINING = "worker_draining"
    WORKER_LOST = "worker_lost"
    WORKER_SILENT = "worker_silent"
    WORKER_BLOCKED = "worker_blocked"
    NO_ROOM = "no_room"


@dataclass(frozen=True, slots=True)
class EventReceipt:
    """What an event has led to: the runs that it started. `duplicate`: an event with its id had been taken before."""

    event_id: str
    run_ids: tuple[str, ...] = ()
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class EventRecord:
    """The event that started a run; its data is still encoded, and left out where runs are listed."""

    id: str
    name: str
    data: Payload
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that did not succeed. `number` counts from 1; `worker` is an instance id."""

    number: int
    worker: str
    started_at: datetime | None
    ended_at: datetime | None
    failure: Failure


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a run.

    `number` is its place in the order of discovery, from 1; `sequence` its place in the journal, 0 before it has one;
    `attempt` the newest attempt, from 1, 0 before the first; `worker` the instance id of its worker; `due_at` the end
    of a sleep, a wait or a backoff; `target` what it names (the task, event or function). `output` and
    `failed_attempts` are there if they were asked for.
    """

    key: StepKey
    kind: StepKind
    state: StepState
    number: int
    sequence: int = 0
    attempt: int = 0
    worker: str = ""
    planned_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    output: Payload | None = None
    failure: Failure | None = None
    failed_attempts: tuple[FailedAttempt, ...] = ()
    target: str = ""
    child_run_id: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run.

    `attempt` is the try at the body, from 1; `failure` is that of a failed run, or the last error of a body that is
    tried again; `lost_invocations` counts lost workers that held its lead; `lead_worker` is the instance id of the one
    that holds it; `steps` is None unless they were asked for. `payloads_omitted`: the output and the event's data are
    left out, though there may be some, as in a list, and in all but the first and the last update of a large run.
    """

    id: str
    app: str
    function: str
    state: RunState
    event: EventRecord | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    output: Payload | None = None
    failure: Failure | None = None
    attempt: int = 1
    lost_invocations: int = 0
    parent_run_id: str = ""
    parent_step: StepKey | None = None
    step_counts: Counter[StepState] = field(default_factory=Counter)
    traceparent: str = ""
    cancel_reason: str = ""
    lead_worker: str = ""
    payloads_omitted: bool = False
    steps: tuple[Step, ...] | None = None


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """A run as it is now, and those of its steps that are new or have changed, without outputs."""

    run: Run
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that a run waits for; `text` says it in a sentence. Steps that wait for the same thing share one.

    `step` is one of `step_count` steps; `target` the function, task or event that is wanted; `worker` an instance id;
    `workers` how many could help, with `slots`, of which `slots_taken` are taken; `runs_ahead` other runs have their
    turn before; `attempt` runs or is to come, of `max_attempts`; `run_id` is another run that it is about; `due_at`
    when it ends at the latest; `failure` what failed before; `causes` say why that is so.
    """

    kind: CauseKind
    text: str
    step: StepKey | None = None
    step_count: int = 0
    target: str = ""
    worker: str = ""
    workers: int = 0
    slots: int = 0
    slots_taken: int = 0
    runs_ahead: int = 0
    attempt: int = 0
    max_attempts: int = 0
    run_id: str = ""
    since: datetime | None = None
    due_at: datetime | None = None
    failure: Failure | None = None
    detail: str = ""
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker that is connected, or was a moment ago. `idle` and `loop_lag` are in seconds."""

    instance_id: str
    session_id: str
    state: WorkerState
    app: str
    app_version: str
    sdk_name: str
    sdk_version: str
    slots: int
    slots_taken: int
    live_invocations: int
    function_ids: tuple[str, ...]
    tasks: tuple[str, ...]
    labels: Mapping[str, str]
    connected_at: datetime | None
    idle: float
    loop_lag: float
    blocking_stack: str


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A function that workers have registered, now or before.

    `triggers` are event names, `run_timeout` is in seconds, `workers` counts those that serve it now; `unserved_since`
    is set if there are none, and says since when, by the day or better.
    """

    app: str
    id: str
    triggers: tuple[str, ...]
    retry: Retry | None
    run_timeout: float | None
    app_version: str
    workers: int
    registered_at: datetime | None
    unserved_since: datetime | None = None


RUN_STATES = dict(enumerate(RunState))
STEP_STATES = dict(enumerate(StepState))
STEP_KINDS = dict(enumerate(StepKind))
WORKER_STATES = dict(enumerate(WorkerState))
CAUSE_KINDS = dict(enumerate(CauseKind))
RUN_STATE_NUMBERS = {state: run_pb2.RunState.ValueType(number) for number, state in RUN_STATES.items()}


def event_receipt(message: event_pb2.EventReceipt) -> EventReceipt:
    """Read a receipt."""
    return EventReceipt(message.event_id, tuple(message.run_ids), message.duplicate)


def run(message: run_pb2.Run, steps: tuple[Step, ...] | None = None) -> Run:
    """Read a run."""
    return Run(
        id=message.id,
        app=message.app,
        function=message.function_id,
        state=RUN_STATES.get(message.state, RunState.UNKNOWN),
        event=_event(message.event) if message.HasField("event") else None,
        created_at=_moment(message, "created_at"),
        started_at=_moment(message, "started_at"),
        ended_at=_moment(message, "ended_at"),
        output=wire.payload(message.output) if message.HasField("output") else None,
        failure=wire.failure(message.failure) if message.HasField("failure") else None,
        attempt=message.attempt,
        lost_invocations=message.lost_invocations,
        parent_run_id=message.parent_run_id,
        parent_step=wire.key(message.parent_step) if message.HasField("parent_step") else None,
        step_counts=Counter(
            {STEP_STATES.get(each.state, StepState.UNKNOWN): each.count for each in message.step_counts}
        ),
        traceparent=message.traceparent,
        cancel_reason=message.cancel_reason,
        lead_worker=message.lead_worker,
        payloads_omitted=message.payloads_omitted,
        steps=steps,
    )


def step(message: run_pb2.Step) -> Step:
    """Read a step."""
    return Step(
        key=wire.key(message.key),
        kind=STEP_KINDS.get(message.kind, StepKind.UNKNOWN),
        state=STEP_STATES.get(message.state, StepState.UNKNOWN),
        number=message.number,
        sequence=message.sequence,
        attempt=message.attempt,
        worker=message.worker,
        planned_at=_moment(message, "planned_at"),
        started_at=_moment(message, "started_at"),
        ended_at=_moment(message, "ended_at"),
        due_at=_moment(message, "due_at"),
        output=wire.payload(message.output) if message.HasField("output") else None,
        failure=wire.failure(message.failure) if message.HasField("failure") else None,
        failed_attempts=tuple(_failed_attempt(each) for each in message.failed_attempts),
        target=message.target,
        child_run_id=message.child_run_id,
    )


def run_update(message: run_pb2.WatchRunResponse) -> RunUpdate:
    """Read a message of WatchRun."""
    return RunUpdate(run(message.run), tuple(step(each) for each in message.steps))


def cause(message: run_pb2.Cause) -> Cause:
    """Read a cause, and those under it."""
    return Cause(
        kind=CAUSE_KINDS.get(message.kind, CauseKind.UNKNOWN),
        text=message.text,
        step=wire.key(message.step) if message.HasField("step") else None,
        step_count=message.step_count,
        target=message.target,
        worker=message.worker,
        workers=message.workers,
        slots=message.slots,
        slots_taken=message.slots_taken,
        runs_ahead=message.runs_ahead,
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        run_id=message.run_id,
        since=_moment(message, "since"),
        due_at=_moment(message, "due_at"),
        failure=wire.failure(message.failure) if message.HasField("failure") else None,
        detail=message.detail,
        causes=tuple(cause(each) for each in message.causes),
    )


def worker_info(message: admin_pb2.Worker) -> WorkerInfo:
    """Read a worker."""
    return WorkerInfo(
        instance_id=message.instance_id,
        session_id=message.session_id,
        state=WORKER_STATES.get(message.state, WorkerState.UNKNOWN),
        app=message.app,
        app_version=message.app_version,
        sdk_name=message.sdk_name,
        sdk_version=message.sdk_version,
        slots=message.slots,
        slots_taken=message.slots_taken,
        live_invocations=message.live_invocations,
        function_ids=tuple(message.function_ids),
        tasks=tuple(message.tasks),
        labels=dict(message.labels),
        connected_at=_moment(message, "connected_at"),
        idle=wire.seconds(message.idle),
        loop_lag=wire.seconds(message.loop_lag),
        blocking_stack=message.blocking_stack,
    )


def function_info(message: admin_pb2.Function) -> FunctionInfo:
    """Read a function."""
    options = message.options
    return FunctionInfo(
        app=message.app,
        id=options.id,
        triggers=tuple(each.event_name for each in options.triggers),
        retry=wire.retry(options.retry) if options.HasField("retry") else None,
        run_timeout=wire.seconds(options.run_timeout) if options.HasField("run_timeout") else None,
        app_version=message.app_version,
        workers=message.workers,
        registered_at=_moment(message, "registered_at"),
        unserved_since=_moment(message, "unserved_since"),
    )


def _event(message: event_pb2.Event) -> EventRecord:
    return EventRecord(message.id, message.name, wire.payload(message.data), _moment(message, "time"))


def _failed_attempt(message: run_pb2.FailedAttempt) -> FailedAttempt:
    return FailedAttempt(
        message.number,
        message.worker,
        _moment(message, "started_at"),
        _moment(message, "ended_at"),
        wire.failure(message.failure),
    )


def _moment(
    message: run_pb2.Run
    | run_pb2.Step
    | run_pb2.FailedAttempt
    | run_pb2.Cause
    | event_pb2.Event
    | admin_pb2.Worker
    | admin_pb2.Function,
    name: str,
) -> datetime | None:
    """Read a time that may be unset."""
    if not message.HasField(name):  # type: ignore[arg-type]  # the stubs want literals
        return None
    stamp: Timestamp = getattr(message, name)
    return wire.moment(stamp)
