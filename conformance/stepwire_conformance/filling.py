"""What the acts of a case leave out, filled in: see the comments of Accept, Send and Connect in case.proto."""

from __future__ import annotations

from collections import Counter
from typing import Any

from stepwire_proto.conformance.v1 import case_pb2
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

BEGINNING_SECONDS = 1_700_000_000
"""When all runs of all cases were created, in Unix seconds."""
LIMITS = worker_pb2.Limits(
    max_frame_bytes=1 << 20,
    max_output_bytes=4 << 20,
    max_event_bytes=1 << 20,
    max_steps=100_000,
    max_step_id_bytes=1024,
    max_events_per_call=5_000,
)
LIMITS.max_sleep.seconds = 366 * 86_400
UNKNOWN_FRAME_PART = b"\x0a\x04\xfa\x3e\x01x"
"""`messages { 1007: "x" }`: a message of a kind that the contract does not have."""


def welcome(given: worker_pb2.Welcome) -> worker_pb2.Welcome:
    """Fill in a Welcome."""
    filled = worker_pb2.Welcome(session_id="session-1", protocol=1, limits=LIMITS)
    filled.heartbeat_interval.seconds = 1
    filled.session_grace.seconds = 10
    filled.MergeFrom(given)
    return filled


class Filler:
    """Fills in what a case sends to a worker. It counts the entries that each invocation was given."""

    def __init__(self) -> None:
        self._given: Counter[tuple[str, int]] = Counter()

    def messages(self, act: case_pb2.Send) -> list[worker_pb2.ExecutorMessage]:
        """Give the messages to send."""
        messages = []
        for number, given in enumerate(act.messages):
            message = worker_pb2.ExecutorMessage()
            message.CopyFrom(given)
            last = number == len(act.messages) - 1
            self._fill(message, act.entries if last and act.HasField("entries") else None)
            if last and act.input_x_bytes:
                task = message.run_steps.attempts[-1].task
                task.input.CopyFrom(text_of_x(act.input_x_bytes))
            messages.append(message)
        return messages

    def _fill(self, message: worker_pb2.ExecutorMessage, more: case_pb2.EntryRange | None) -> None:
        match message.WhichOneof("kind"):
            case "invoke":
                self._invoke(message.invoke, more)
            case "journal_chunk":
                self._entries(message.journal_chunk, message.journal_chunk.entries, more)
            case "resume":
                self._entries(message.resume, message.resume.entries, more)
            case "run_steps":
                for start in message.run_steps.attempts:
                    start.number = start.number or 1
                    if start.HasField("task") and start.task.HasField("input"):
                        start.task.input.encoding = start.task.input.encoding or "json"

    def _invoke(self, invoke: worker_pb2.Invoke, more: case_pb2.EntryRange | None) -> None:
        invoke.attempt = invoke.attempt or 1
        invoke.created_at.seconds = invoke.created_at.seconds or BEGINNING_SECONDS
        self._entries(invoke, invoke.journal, more)
        invoke.journal_length = invoke.journal_length or len(invoke.journal)
        if not invoke.events:
            invoke.events.add()
        for event in invoke.events:
            event.id = event.id or "event-1"
            event.name = event.name or f"conformance/{invoke.function_id}"
            event.data.data = event.data.data or b"null"
            event.data.encoding = event.data.encoding or "json"
            event.time.seconds = event.time.seconds or BEGINNING_SECONDS

    def _entries(self, holder: Any, entries: Any, more: case_pb2.EntryRange | None) -> None:
        if more is not None:
            for index in range(more.first_index, more.first_index + more.count):
                entry = entries.add(key=value_pb2.StepKey(id=more.id, index=index))
                entry.output.data = str(index).encode()
        invocation = (holder.run_id, holder.invocation)
        for entry in entries:
            self._given[invocation] += 1
            entry.sequence = entry.sequence or self._given[invocation]
            entry.kind = entry.kind or opcode_pb2.STEP_KIND_CLOSURE
            entry.attempts = entry.attempts or 1
            entry.recorded_at.seconds = entry.recorded_at.seconds or BEGINNING_SECONDS + entry.sequence
            if entry.HasField("output"):
                entry.output.encoding = entry.output.encoding or "json"


def text_of_x(size: int) -> value_pb2.Payload:
    """Give the JSON text of so many x."""
    return value_pb2.Payload(data=b'"' + b"x" * size + b'"', encoding="json")


def repeated(pattern: worker_pb2.WorkerMessage, count: int) -> worker_pb2.WorkerMessage:
    """Give the pattern of StepsFound with its one step repeated, from its index on."""
    filled = worker_pb2.WorkerMessage()
    filled.CopyFrom(pattern)
    first = pattern.steps_found.steps[0]
    del filled.steps_found.steps[:]
    for index in range(count):
        step = filled.steps_found.steps.add()
        step.CopyFrom(first)
        step.key.index = first.key.index + index
    return filled
