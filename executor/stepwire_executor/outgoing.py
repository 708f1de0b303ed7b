"""The core's commands as messages for workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stepwire_core import commands as c
from stepwire_core.model import Run
from stepwire_executor import times, wire
from stepwire_executor.frames import pages
from stepwire_executor.stream import Stream
from stepwire_proto.v1 import worker_pb2

MERGED = 500
"""Attempts and refusals in one RunSteps or Recorded."""


class Tracing(Protocol):
    """Gives the trace context of what is sent to workers; "" while tracing is off."""

    def run_traceparent(self, run: Run) -> str:
        """Of the run's span."""

    def attempt_traceparent(self, run: Run, fence: int) -> str:
        """Of an attempt's span."""


def invoke(tracing: Tracing, stream: Stream, command: c.Invoke) -> None:
    """Start a run's body, with its journal in pages."""
    run = command.run
    message = worker_pb2.ExecutorMessage()
    invoke = message.invoke
    invoke.run_id, invoke.invocation, invoke.function_id = run.id, command.invocation, run.function_id
    invoke.attempt, invoke.lead, invoke.eager_fence = command.attempt, command.lead, command.eager_fence
    wire.put_event(invoke.events.add(), run.event)
    times.put(invoke.created_at, run.created_at)
    invoke.journal_length = len(command.journal)
    invoke.traceparent = tracing.run_traceparent(run)
    if command.eager_fence:
        invoke.eager_traceparent = tracing.attempt_traceparent(run, command.eager_fence)
    entries = pages(command.journal)
    for step in next(entries, []):
        wire.put_entry(invoke.journal.add(), step)
    invoke.planned.extend(wire.planned_steps(command.planned))
    stream.push(message)
    for page in entries:
        message = worker_pb2.ExecutorMessage()
        chunk = message.journal_chunk
        chunk.run_id, chunk.invocation = run.id, command.invocation
        for step in page:
            wire.put_entry(chunk.entries.add(), step)
        stream.push(message)


def resume(tracing: Tracing, stream: Stream, command: c.Resume) -> None:
    """Give new results, in pages."""
    parts = list(pages(command.entries)) or [[]]
    for number, page in enumerate(parts, 1):
        message = worker_pb2.ExecutorMessage()
        resume = message.resume
        resume.run_id, resume.invocation, resume.lead = command.run.id, command.invocation, command.lead
        for step in page:
            wire.put_entry(resume.entries.add(), step)
        if command.eager_fence and number == len(parts):
            resume.eager_fence = command.eager_fence
            resume.eager_traceparent = tracing.attempt_traceparent(command.run, command.eager_fence)
        stream.push(message)


def start(tracing: Tracing, stream: Stream, command: c.StartAttempt) -> None:
    """Start an attempt, together with others."""
    last = stream.messages[-1] if stream.messages else None
    if last is None or not last.HasField("run_steps") or len(last.run_steps.attempts) >= MERGED:
        last = worker_pb2.ExecutorMessage()
        stream.push(last)
    start = last.run_steps.attempts.add()
    attempt = start.attempt
    attempt.run_id, attempt.fence = command.run.id, command.fence
    attempt.key.id, attempt.key.index = command.key
    start.number = command.number
    if command.timeout is not None:
        start.timeout.CopyFrom(times.duration(command.timeout))
    start.traceparent = tracing.attempt_traceparent(command.run, command.fence)
    if command.invocation:
        start.closure.invocation = command.invocation
    else:
        start.task.name = command.task
        start.task.input.ParseFromString(command.input)
        start.task.function_id = command.run.function_id


def recorded(tracing: Tracing, stream: Stream, command: c.Recorded) -> None:
    """Say that a report is durable."""
    recorded = answer(stream)
    attempt = recorded.attempts.add()
    attempt.run_id, attempt.fence = command.attempt.run_id, command.attempt.fence
    attempt.key.id, attempt.key.index = command.attempt.key
    if command.failed:
        recorded.failed_steps.append(attempt.fence)


def refused(tracing: Tracing, stream: Stream, command: c.Refused) -> None:
    """Say why a report was not taken."""
    answer(stream).refusals.add(
        attempt=wire.to_attempt(command.attempt), current_fence=command.current_fence, reason=command.reason
    )


def answer(stream: Stream) -> worker_pb2.Recorded:
    """Give the message that answers reports, a new one if the last is full or of another kind."""
    last = stream.messages[-1] if stream.messages else None
    full = last is not None and len(last.recorded.attempts) + len(last.recorded.refusals) >= MERGED
    if last is None or full or not last.HasField("recorded"):
        last = worker_pb2.ExecutorMessage(recorded=worker_pb2.Recorded())
        stream.push(last)
    return last.recorded


def cancel_run(tracing: Tracing, stream: Stream, command: c.CancelRun) -> None:
    """Stop all of a run."""
    cancel = worker_pb2.Cancel(run_id=command.run_id, reason=command.reason)
    if command.failure is not None:
        cancel.failure.CopyFrom(wire.to_failure(command.failure))
    stream.push(worker_pb2.ExecutorMessage(cancel=cancel))


def cancel_attempt(tracing: Tracing, stream: Stream, command: c.CancelAttempt) -> None:
    """Stop an attempt."""
    cancel = worker_pb2.Cancel(attempt=wire.to_attempt(command.attempt), reason=command.reason, retried=command.retried)
    if command.failure is not None:
        cancel.failure.CopyFrom(wire.to_failure(command.failure))
    stream.push(worker_pb2.ExecutorMessage(cancel=cancel))


WRITE: dict[type, Callable[[Tracing, Stream, Any], None]] = {
    c.Invoke: invoke,
    c.Resume: resume,
    c.StartAttempt: start,
    c.Recorded: recorded,
    c.Refused: refused,
    c.CancelRun: cancel_run,
    c.CancelAttempt: cancel_attempt,
}
