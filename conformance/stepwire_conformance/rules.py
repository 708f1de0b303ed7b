"""What holds for every conversation with a worker, whatever the case is about.

The numbers are those of the list in docs/conformance.md. A breach is given as text, and ends the case.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from stepwire_conformance.cases import one_line
from stepwire_proto.v1 import value_pb2, worker_pb2

SLACK_SECONDS = 1.0
"""What a heartbeat may be later than the rule says, as the machine may be slow."""


@dataclass
class StreamRules:
    """What is known of one stream."""

    interval: float = 0.0
    """Of heartbeats, in seconds; 0 before the Welcome."""
    heard: float = 0.0
    greeted: bool = False
    draining: bool = False
    done: bool = False
    """Whether Draining.done has come."""
    reported: set[int] = field(default_factory=set)
    """Fences that were reported on this stream."""


@dataclass
class Body:
    """An invocation that the worker was given."""

    lead: bool
    given: int = 0
    """How many journal entries it was given."""
    told: int = -1
    """The sequence of its last report."""
    ended: bool = False


class Rules:
    """Watches what both sides say. Each method gives the breaches that it has found."""

    def __init__(self) -> None:
        self.slots = 0
        self._instance = ""
        self._draining = False
        self._issued: dict[int, value_pb2.Attempt | None] = {}
        """Attempts by fence; of those that an eager fence allows only the fence is known."""
        self._bodies: dict[tuple[str, int], Body] = {}

    def frame(self, stream: StreamRules, size: int, limit: int) -> Iterator[str]:
        """A frame has come."""
        now = time.monotonic()
        if limit and size > limit:
            yield f"rule 2: a frame of {size:,} bytes; Limits.max_frame_bytes is {limit:,}"
        if stream.interval and now - stream.heard > 2 * stream.interval + SLACK_SECONDS:
            yield f"rule 3: nothing came for {now - stream.heard:.1f} s; the interval is {stream.interval:g} s"
        stream.heard = now

    def silence(self, stream: StreamRules) -> Iterator[str]:
        """The stream is looked at; nothing need have come."""
        yield from self.frame(stream, 0, 0)

    def hello(self, hello: worker_pb2.Hello) -> Iterator[str]:
        """A stream has begun. Bodies do not outlive the one before."""
        self.slots = hello.slots
        self._bodies.clear()
        if self._instance and hello.instance_id != self._instance:
            yield f"rule 1: the instance id was {self._instance!r}, and is now {hello.instance_id!r}"
        self._instance = hello.instance_id
        if not 1 <= len(hello.instance_id.encode()) <= 128:
            yield f"rule 1: the instance id {hello.instance_id!r} has not 1 to 128 bytes"
        if not 1 <= hello.slots <= 10_000:
            yield f"rule 1: {hello.slots} slots; 1 to 10,000 are allowed"
        if hello.functions and not hello.max_invocations:
            yield "rule 1: max_invocations is 0, but the worker has functions"
        if len(hello.attempts_in_hand) > hello.slots:
            yield f"rule 4: {len(hello.attempts_in_hand)} attempts in hand with {hello.slots} slots"
        if self._draining and not hello.draining:
            yield "rule 8: a worker that has said Draining came back without Hello.draining"
        in_hand = {attempt.fence for attempt in hello.attempts_in_hand}
        for plan in hello.eager_plans:
            if len(plan.steps) != 1 or plan.steps[0].eager_fence not in in_hand:
                yield f"rule 7: eager_plans holds what is no plan of one attempt in hand: {one_line(plan)}"

    def sent(self, message: worker_pb2.ExecutorMessage) -> None:
        """The executor has said something."""
        match message.WhichOneof("kind"):
            case "invoke":
                invoke = message.invoke
                self._bodies[invoke.run_id, invoke.invocation] = Body(invoke.lead, len(invoke.journal))
                self._allow(invoke.eager_fence)
            case "journal_chunk":
                self._give(
                    message.journal_chunk.run_id, message.journal_chunk.invocation, message.journal_chunk.entries
                )
            case "resume":
                self._give(message.resume.run_id, message.resume.invocation, message.resume.entries)
                body = self._bodies.get((message.resume.run_id, message.resume.invocation))
                if body is not None:
                    body.lead = body.lead or message.resume.lead
                self._allow(message.resume.eager_fence)
            case "run_steps":
                for start in message.run_steps.attempts:
                    self._issued[start.attempt.fence] = start.attempt

    def _allow(self, fence: int) -> None:
        if fence:
            self._issued[fence] = None

    def _give(self, run_id: str, invocation: int, entries: object) -> None:
        body = self._bodies.get((run_id, invocation))
        if body is not None:
            body.given += len(entries)  # type: ignore[arg-type]

    def received(self, stream: StreamRules, message: worker_pb2.WorkerMessage) -> Iterator[str]:
        """The worker has said something."""
        kind = message.WhichOneof("kind")
        if not stream.greeted and kind != "hello":
            yield f"rule 1: {kind} came before Hello"
        if stream.greeted and kind == "hello":
            yield "rule 1: a second Hello on the same stream"
        stream.greeted = stream.greeted or kind == "hello"
        if kind != "hello" and not stream.interval:
            yield f"rule 1: {kind} came before the Welcome"
        if stream.done and kind != "heartbeat":
            yield f"rule 8: {kind} came after Draining.done"
        match kind:
            case "heartbeat":
                if message.heartbeat.attempts_in_hand > self.slots:
                    yield f"rule 4: {message.heartbeat.attempts_in_hand} attempts in hand with {self.slots} slots"
            case "step_run":
                yield from self._report(stream, message.step_run.attempt)
            case "step_failed":
                yield from self._report(stream, message.step_failed.attempt)
            case "steps_found" | "run_finished" | "run_failed" | "step_cancelled":
                yield from self._opcode(stream, kind, message)
            case "draining":
                stream.draining = self._draining = True
                stream.done = message.draining.done

    def _report(self, stream: StreamRules, attempt: value_pb2.Attempt) -> Iterator[str]:
        fence = attempt.fence
        if fence not in self._issued:
            yield f"rule 5: a report of fence {fence}, which was never issued"
            return
        issued = self._issued[fence]
        if issued is None:
            self._issued[fence] = attempt
        elif issued != attempt:
            yield f"rule 5: a report of {one_line(attempt)}; what was issued is {one_line(issued)}"
        if fence in stream.reported:
            yield f"rule 6: fence {fence} was reported twice on one stream"
        stream.reported.add(fence)

    def _opcode(self, stream: StreamRules, kind: str, message: worker_pb2.WorkerMessage) -> Iterator[str]:
        opcode = getattr(message, kind)
        body = self._bodies.get((opcode.run_id, opcode.invocation))
        if body is None:
            yield f"rule 7: {kind} of invocation {opcode.invocation} of run {opcode.run_id!r}, which was never given"
            return
        if body.ended and kind != "step_cancelled":
            yield f"rule 7: {kind} of invocation {opcode.invocation} of {opcode.run_id!r}, whose body has ended"
        if not body.lead and kind in ("steps_found", "run_finished"):
            yield f"rule 7: {kind} of a replica, which must report nothing"
        if kind == "steps_found":
            if stream.draining:
                yield "rule 8: StepsFound after Draining"
            if not body.told <= opcode.sequence <= body.given:
                yield (
                    f"rule 7: StepsFound.sequence is {opcode.sequence}; the body was given {body.given} entries,"
                    f" and the last report was after {max(body.told, 0)}"
                )
            body.told = opcode.sequence
        body.ended = body.ended or kind in ("run_finished", "run_failed")
