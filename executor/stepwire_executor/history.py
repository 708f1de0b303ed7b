"""What the executor did, as records that a checker can hold against the promises. Off unless somebody wants it.

A record is {"at": seconds of the monotonic clock, "process": …, "epoch": …, "what": …} and what belongs to that; see
CONTRIBUTING.md. They are made from decisions, after their commit: a kill loses the newest, and never makes a wrong one.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from stepwire_core import commands as c
from stepwire_core.inputs import AttemptRef
from stepwire_core.model import Failure, Limits, Run, RunState, Step, StepKey, StepKind
from stepwire_executor import private
from stepwire_proto.v1 import value_pb2

Record = dict[str, Any]

log = logging.getLogger("stepwire.executor")


class History:
    """Writes records. After a failure it writes no more, and says so once: a history never hurts what it is about."""

    def __init__(self, process: str, write: Callable[[Record], None], clock: Callable[[], float]) -> None:
        self._process = process
        self._write: Callable[[Record], None] | None = write
        self._clock = clock
        self._epoch = 0

    def note(self, what: str, **fields: Any) -> None:
        """Write that something has happened."""
        self._note(self._clock(), what, fields)

    def _note(self, at: float, what: str, fields: Record) -> None:
        if self._write is None:
            return
        try:
            self._write({"at": at, "process": self._process, "epoch": self._epoch, "what": what, **fields})
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._write = None
        log.error("the history ends here, it can't be written: %s; the executor goes on without it", error)

    def opened(self, epoch: int, limits: Limits) -> None:
        """Note that the executor owns the store from now on."""
        self._epoch = epoch
        self.note("opened", grace=limits.session_grace, heartbeat=limits.heartbeat_interval)

    def decided(self, decision: c.Decision) -> None:
        """Note what a decision has made true; it is stamped with the time that it was decided at."""
        if self._write is None:
            return
        try:
            for what, fields in notes(decision):
                self._note(fields.pop("at", decision.decided_at), what, fields)
        except Exception as error:
            self._give_up(error)


def notes(decision: c.Decision) -> Iterator[tuple[str, Record]]:
    """Give what a decision has made true, as records."""
    for (run_id, _), step in decision.writes.new_steps.items():
        yield "planned", {"run": run_id, "step": name(step.key), "number": step.number, "kind": step.kind.name}
    for observed in decision.observations:
        yield from observation(observed)
    for run_id, step in decision.recorded:
        yield (
            "recorded",
            {
                "run": run_id,
                "step": name(step.key),
                "sequence": step.sequence,
                "fence": step.fence,
                "kind": step.kind.name,
                "state": step.state.name,
                "digest": digest_of_step(step),
            },
        )
    for at, command in decision.told:
        named = {"run": command.run_id, "fence": 0} if isinstance(command, c.CancelRun) else attempt_of(command.attempt)
        yield "told", {**named, "session": command.session_id, "reason": command.reason, "at": at}
    for sent in decision.commands:
        yield from commanded(sent)


def observation(observed: c.Observation) -> Iterator[tuple[str, Record]]:
    """Give what an observation says."""
    match observed:
        case c.AttemptIssued():
            yield (
                "dispatched",
                {
                    "run": observed.run_id,
                    "step": name(observed.key),
                    "fence": observed.fence,
                    "number": observed.number,
                    "worker": observed.worker,
                    "session": observed.session_id,
                    "timeout": observed.timeout,
                    "at": observed.at,
                },
            )
        case c.AttemptClosed() if observed.step.kind in (StepKind.CLOSURE, StepKind.TASK):
            yield (
                "closed",
                {
                    "run": observed.run.id,
                    "step": name(observed.step.key),
                    "number": observed.number,
                    "fence": observed.fence,
                    "outcome": observed.outcome,
                    "worker": observed.worker,
                    "retry_in": observed.retry_in,
                    "at": observed.at,
                },
            )
        case c.RunEnded(run):
            yield "ended", {"run": run.id, "state": run.state.name, "digest": digest_of_run(run)}


def commanded(command: c.Command) -> Iterator[tuple[str, Record]]:
    """Give what a command tells somebody."""
    match command:
        case c.Answer(_, list() as receipts):
            for receipt in receipts:
                if isinstance(receipt, c.Receipt):
                    yield "acknowledged", {"event": receipt.event_id, "run_ids": list(receipt.run_ids)}
        case c.Recorded(session, attempt):
            yield "answered", {**attempt_of(attempt), "session": session}
        case c.Refused(session, attempt, current, _):
            yield "refused", {**attempt_of(attempt), "session": session, "current": current}


def attempt_of(attempt: AttemptRef) -> Record:
    """Name an attempt."""
    return {"run": attempt.run_id, "step": name(attempt.key), "fence": attempt.fence}


def name(key: StepKey) -> str:
    """Write a step's key as records have it."""
    return f"{key.id}:{key.index}"


def digest(*parts: str | bytes) -> str:
    """Give a short hash of a result: of a payload's encoding and data, or of a failure's type and message."""
    joined = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return blake2b(joined, digest_size=6).hexdigest()


def digest_of_step(step: Step) -> str:
    """Give the digest of a recorded step."""
    return "timed out" if step.timed_out else digest_of(step.output, step.failure)


def digest_of_run(run: Run) -> str:
    """Give the digest of a run that has ended."""
    return "cancelled" if run.state is RunState.CANCELLED else digest_of(run.output, run.failure)


def digest_of(output: bytes | None, failure: Failure | None) -> str:
    """Give the digest of a stored result."""
    if failure is not None:
        return digest("failure", failure.type, failure.message)
    payload = value_pb2.Payload.FromString(output or b"")
    return digest("output", payload.encoding, payload.data)


def history_in(folder: str) -> History | None:
    """Give a history that goes into a file of its own in a folder; None for no folder. Raises OSError."""
    if not folder:
        return None
    place = Path(folder)
    private.make_folders(place)
    process = f"executor-{os.getpid()}"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    file = os.open(place / f"{process}-{time.time_ns()}.jsonl", flags, private.FILE_MODE)

    def write(record: Record) -> None:
        line = json.dumps(record).encode() + b"\n"
        if os.write(file, line) < len(line):  # unbuffered: a kill loses nothing that was written
            raise OSError(errno.ENOSPC, "only a part of a record could be written")

    return History(process, write, time.monotonic)
