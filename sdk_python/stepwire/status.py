"""How an executor is, as `Client.status` gives it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from stepwire import wire
from stepwire_proto.v1 import admin_pb2


class ExecutorState(StrEnum):
    """Whether an executor takes work."""

    UNKNOWN = "unknown"
    """A state that this version of the SDK does not know."""
    SERVING = "serving"
    DRAINING = "draining"
    STANDBY = "standby"
    """Another executor has the store."""
    FAILING = "failing"
    """The store can't be used, or is being opened."""


class HolderKind(StrEnum):
    """What somebody holds memory by."""

    UNKNOWN = "unknown"
    """A kind that this version of the SDK does not know."""
    RUNS = "runs"
    UNREAD = "unread"
    """Messages that a worker has not read yet."""
    FRAGMENTS = "fragments"
    """A message of a worker in fragments, of which the last has not come."""


EXECUTOR_STATES = dict(enumerate(ExecutorState))
HOLDER_KINDS = dict(enumerate(HolderKind))


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took that happens again and again, in the last one to two minutes: in seconds."""

    count: int
    p50: float
    p99: float
    p999: float
    """999 of 1,000 took no longer."""
    longest: float


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody by whom memory is held: so many `bytes`, of `count` runs or messages."""

    app: str
    worker: str
    kind: HolderKind
    bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class ExecutorStatus:
    """How an executor is; numbers are of its process, since it started where nothing else is said."""

    version: str
    state: ExecutorState
    reason: str
    """Why it takes no work; empty while it does."""
    started_at: datetime | None
    epoch: int
    faults: int
    """What could not be decided by a bug of the executor."""
    begun_anew: int
    """How often it has dropped what was not durable, and begun anew."""
    pieces: Times
    """Pieces of work on its loop: so long everybody else waits."""
    waits: Times
    """How long inputs waited until they were decided."""
    commits: Times
    queued_inputs: int
    oldest_input: float
    """Seconds that the first of them has waited."""
    memory_bytes: int
    workers: int
    slots: int
    slots_taken: int
    runs: int
    """Runs in memory."""
    queued_runs: int
    """Those of them that want a worker, which none of them has: new ones, and those whose workers have gone."""
    max_queued_runs: int
    queued_bytes: int
    max_queued_bytes: int
    watches: int
    """Runs that are waited for or watched, once for each call that does so."""
    holders: tuple[Holder, ...]
    """By whom memory is held, the largest first."""


def executor_status(message: admin_pb2.GetStatusResponse) -> ExecutorStatus:
    """Read a status."""
    return ExecutorStatus(
        version=message.version,
        state=EXECUTOR_STATES.get(message.state, ExecutorState.UNKNOWN),
        reason=message.reason,
        started_at=wire.moment(message.started_at) if message.HasField("started_at") else None,
        epoch=message.epoch,
        faults=message.faults,
        begun_anew=message.begun_anew,
        pieces=_times(message.pieces),
        waits=_times(message.waits),
        commits=_times(message.commits),
        queued_inputs=message.queued_inputs,
        oldest_input=wire.seconds(message.oldest_input),
        memory_bytes=message.memory_bytes,
        workers=message.workers,
        slots=message.slots,
        slots_taken=message.slots_taken,
        runs=message.runs,
        queued_runs=message.queued_runs,
        max_queued_runs=message.max_queued_runs,
        queued_bytes=message.queued_bytes,
        max_queued_bytes=message.max_queued_bytes,
        watches=message.watches,
        holders=tuple(_holder(each) for each in message.holders),
    )


def _times(message: admin_pb2.Times) -> Times:
    seconds = [wire.seconds(each) for each in (message.p50, message.p99, message.p999, message.longest)]
    return Times(message.count, *seconds)


def _holder(message: admin_pb2.Holder) -> Holder:
    kind = HOLDER_KINDS.get(message.kind, HolderKind.UNKNOWN)
    return Holder(message.app, message.worker, kind, message.bytes, message.count)
