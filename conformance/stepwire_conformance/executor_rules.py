"""What holds for every conversation with an executor, whatever the case is about. A breach is given as text."""

from __future__ import annotations

from collections.abc import Iterator

from stepwire_conformance.cases import one_line
from stepwire_conformance.frames import MAX_FRAME_BYTES
from stepwire_proto.v1 import opcode_pb2, worker_pb2


class ExecutorRules:
    """Watches one worker's session, over all of its streams."""

    def __init__(self) -> None:
        self._slots = 0
        self._taken: set[int] = set()
        """Fences that fill slots: issued and not reported."""
        self._newest = 0
        self._given: dict[tuple[str, int], int] = {}
        """How many journal entries each invocation was given."""
        self._welcomed = False

    def hello(self, hello: worker_pb2.Hello) -> None:
        """A new stream has begun."""
        self._slots = hello.slots
        self._taken = {attempt.fence for attempt in hello.attempts_in_hand}
        self._welcomed = False
        self._given.clear()

    def sent(self, message: worker_pb2.WorkerMessage) -> None:
        """The worker has said something: what it has reported or given back fills no slot."""
        match message.WhichOneof("kind"):
            case "step_run":
                self._taken.discard(message.step_run.attempt.fence)
            case "step_failed":
                self._taken.discard(message.step_failed.attempt.fence)
            case "need_journal":
                self._taken -= {attempt.fence for attempt in message.need_journal.returned_attempts}
            case "draining":
                self._taken -= {attempt.fence for attempt in message.draining.returned_attempts}

    def frame(self, size: int) -> Iterator[str]:
        """A frame has come."""
        if size > MAX_FRAME_BYTES:
            yield f"a frame of {size:,} bytes; at most {MAX_FRAME_BYTES:,} are allowed"

    def received(self, message: worker_pb2.ExecutorMessage) -> Iterator[str]:
        """The executor has said something."""
        kind = message.WhichOneof("kind")
        if (kind == "welcome") == self._welcomed:
            yield "a second Welcome" if self._welcomed else f"{kind} came before the Welcome"
        self._welcomed = True
        match kind:
            case "invoke":
                invoke = message.invoke
                self._given[invoke.run_id, invoke.invocation] = 0
                yield from self._entries(invoke.run_id, invoke.invocation, invoke.journal)
            case "journal_chunk":
                chunk = message.journal_chunk
                yield from self._entries(chunk.run_id, chunk.invocation, chunk.entries)
            case "resume":
                resume = message.resume
                yield from self._entries(resume.run_id, resume.invocation, resume.entries)
            case "run_steps":
                yield from self._run_steps(message.run_steps)
            case "cancel":
                self._taken.discard(message.cancel.attempt.fence)

    def _entries(self, run_id: str, invocation: int, entries: object) -> Iterator[str]:
        for entry in entries:  # type: ignore[attr-defined]
            assert isinstance(entry, opcode_pb2.JournalEntry)
            wanted = self._given.get((run_id, invocation), 0) + 1
            if entry.sequence != wanted:
                yield f"journal entry {entry.sequence} came to run {run_id}, where {wanted} is the next"
            self._given[run_id, invocation] = entry.sequence
            if not entry.HasField("recorded_at") or not entry.kind or entry.WhichOneof("outcome") is None:
                yield f"a journal entry lacks its kind, time or outcome: {one_line(entry)}"

    def _run_steps(self, message: worker_pb2.RunSteps) -> Iterator[str]:
        for start in message.attempts:
            fence = start.attempt.fence
            if fence <= self._newest:
                yield f"fence {fence} was issued after {self._newest}: fences grow"
            self._newest = max(self._newest, fence)
            self._taken.add(fence)
            if start.WhichOneof("work") is None or not start.number:
                yield f"an attempt without work or number: {one_line(start)}"
        if len(self._taken) > self._slots:
            yield f"{len(self._taken)} attempts at once in a worker of {self._slots} slots"
