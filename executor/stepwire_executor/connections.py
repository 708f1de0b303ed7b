"""The streams of workers: parses what comes in into inputs, writes commands out, and notices who is gone.

State lives in the engine, not here: a stream that ends only says so, once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from stepwire_executor import wire
from stepwire_executor.core import commands as c
from stepwire_executor.core import inputs as i
from stepwire_executor.core.model import Limits, Run, Step, StepKey
from stepwire_executor.ports import EngineHandle
from stepwire_proto.v1 import opcode_pb2, worker_pb2

log = logging.getLogger("stepwire.executor")

PROTOCOL = 1
MERGED = 500
"""Attempts in one RunSteps or Recorded."""
PAGE_BYTES = 256 * 1024
"""Journal entries are paged at about this size."""
MOST_SLOTS = 10_000
MESSAGE_OVERHEAD = 1024 * 1024
"""Bytes that a message may have beyond the largest value in it."""


class Tracing(Protocol):
    """Gives the trace context of what is sent to workers; "" while tracing is off."""

    def run_traceparent(self, run: Run) -> str:
        """Of the run's span."""

    def attempt_traceparent(self, run: Run, fence: int) -> str:
        """Of an attempt's span."""


class Ended(Exception):  # noqa: N818 - it need not be an error
    """Ends a stream with a status. `violation`: the field that is wrong, if there is one."""

    def __init__(self, code: str, message: str, violation: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.violation = violation


class Stream:
    """One stream of a worker. Its identity is the token that the core is given."""

    def __init__(self) -> None:
        self.session_id = ""
        self.instance_id = "a worker that has not said Hello"
        self.greeted = False
        self.messages: list[worker_pb2.ExecutorMessage] = []
        self.wake = asyncio.Event()
        self.ending: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.last_heard = time.monotonic()
        self.writing_since: float | None = None
        self.fragment_id = 0
        self.joined: list[bytes] = []
        self.joining: int | None = None

    def push(self, message: worker_pb2.ExecutorMessage) -> None:
        """Queue a message."""
        self.messages.append(message)
        self.wake.set()

    def end(self, code: str, message: str, violation: str = "") -> None:
        """End the stream after what is queued."""
        if not self.ending.done():
            self.ending.set_result(Ended(code, message, violation))


class Connections:
    """Serves WorkerService.Connect; the engine's `Outbound`."""

    def __init__(self, limits: Limits, tracing: Tracing) -> None:
        self._limits = limits
        self._tracing = tracing
        self._engine: EngineHandle | None = None
        self._streams: set[Stream] = set()
        self._sessions: dict[str, Stream] = {}

    def attach(self, engine: EngineHandle) -> None:
        """Say where inputs go."""
        self._engine = engine

    @property
    def engine(self) -> EngineHandle:
        """Where inputs go."""
        assert self._engine is not None, "attach an engine first"
        return self._engine

    def handler(self) -> grpc.GenericRpcHandler:
        """Give the handler for the gRPC server. It parses frames itself, so that garbage gets a clear status."""
        method: Any = grpc.stream_stream_rpc_method_handler(self.connect)
        return grpc.method_handlers_generic_handler("stepwire.v1.WorkerService", {"Connect": method})

    # Out.

    def send(self, commands: Sequence[c.Command]) -> None:
        """Queue commands for their streams, in this order. Those for unknown sessions are dropped."""
        for command in commands:
            if isinstance(command, c.Welcomed):
                self._welcome(command)
                continue
            if isinstance(command, c.Rejected):
                assert isinstance(command.stream, Stream)
                command.stream.end(command.code, command.message)
                continue
            stream = self._sessions.get(getattr(command, "session_id", ""))
            if stream is not None:
                _WRITE[type(command)](self, stream, command)

    def close_all(self, code: str, message: str) -> None:
        """End every stream; the engine has forgotten all sessions."""
        self._sessions.clear()
        for stream in self._streams:
            stream.end(code, message)

    def go_away(self, reason: str, reconnect_delay: float) -> None:
        """Tell every worker that the executor goes."""
        message = worker_pb2.GoAway(reason=reason, reconnect_delay=wire.duration(reconnect_delay))
        for stream in self._sessions.values():
            stream.push(worker_pb2.ExecutorMessage(go_away=message))

    def _welcome(self, command: c.Welcomed) -> None:
        stream = command.stream
        assert isinstance(stream, Stream)
        stream.session_id = command.session_id
        self._sessions[command.session_id] = stream
        log.info("worker %s %s", stream.instance_id, "is back" if command.resumed else "has connected")
        stream.push(
            worker_pb2.ExecutorMessage(
                welcome=worker_pb2.Welcome(
                    session_id=command.session_id,
                    resumed=command.resumed,
                    protocol=PROTOCOL,
                    heartbeat_interval=wire.duration(self._limits.heartbeat_interval),
                    session_grace=wire.duration(self._limits.session_grace),
                    limits=wire.to_limits(self._limits),
                    unwanted_attempts=[wire.to_attempt(attempt) for attempt in command.unwanted],
                )
            )
        )

    def _invoke(self, stream: Stream, command: c.Invoke) -> None:
        run = command.run
        message = worker_pb2.ExecutorMessage()
        invoke = message.invoke
        invoke.run_id, invoke.invocation, invoke.function_id = run.id, command.invocation, run.function_id
        invoke.attempt, invoke.lead, invoke.eager_fence = run.attempt, command.lead, command.eager_fence
        invoke.events.append(wire.to_event(run.event))
        invoke.created_at.CopyFrom(wire.timestamp(run.created_at))
        invoke.journal_length = len(command.journal)
        invoke.traceparent = self._tracing.run_traceparent(run)
        if command.eager_fence:
            invoke.eager_traceparent = self._tracing.attempt_traceparent(run, command.eager_fence)
        entries = pages(command.journal)
        invoke.journal.extend(next(entries, []))
        invoke.planned.extend(wire.planned_steps(command.planned))
        stream.push(message)
        for page in entries:
            chunk = worker_pb2.JournalChunk(run_id=run.id, invocation=command.invocation, entries=page)
            stream.push(worker_pb2.ExecutorMessage(journal_chunk=chunk))

    def _resume(self, stream: Stream, command: c.Resume) -> None:
        parts = list(pages(command.entries)) or [[]]
        for number, page in enumerate(parts, 1):
            resume = worker_pb2.Resume(
                run_id=command.run.id, invocation=command.invocation, entries=page, lead=command.lead
            )
            if command.eager_fence and number == len(parts):
                resume.eager_fence = command.eager_fence
                resume.eager_traceparent = self._tracing.attempt_traceparent(command.run, command.eager_fence)
            stream.push(worker_pb2.ExecutorMessage(resume=resume))

    def _start(self, stream: Stream, command: c.StartAttempt) -> None:
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
            start.timeout.CopyFrom(wire.duration(command.timeout))
        start.traceparent = self._tracing.attempt_traceparent(command.run, command.fence)
        if command.invocation:
            start.closure.invocation = command.invocation
        else:
            start.task.name = command.task
            start.task.input.ParseFromString(command.input)

    def _recorded(self, stream: Stream, command: c.Recorded) -> None:
        attempt = self._answer(stream).attempts.add()
        attempt.run_id, attempt.fence = command.attempt.run_id, command.attempt.fence
        attempt.key.id, attempt.key.index = command.attempt.key

    def _refused(self, stream: Stream, command: c.Refused) -> None:
        self._answer(stream).refusals.add(
            attempt=wire.to_attempt(command.attempt), current_fence=command.current_fence, reason=command.reason
        )

    def _answer(self, stream: Stream) -> worker_pb2.Recorded:
        last = stream.messages[-1] if stream.messages else None
        if last is None or not last.HasField("recorded") or len(last.recorded.attempts) >= MERGED:
            last = worker_pb2.ExecutorMessage(recorded=worker_pb2.Recorded())
            stream.push(last)
        return last.recorded

    def _cancel_run(self, stream: Stream, command: c.CancelRun) -> None:
        cancel = worker_pb2.Cancel(run_id=command.run_id, reason=command.reason)
        stream.push(worker_pb2.ExecutorMessage(cancel=cancel))

    def _cancel_attempt(self, stream: Stream, command: c.CancelAttempt) -> None:
        cancel = worker_pb2.Cancel(attempt=wire.to_attempt(command.attempt), reason=command.reason)
        stream.push(worker_pb2.ExecutorMessage(cancel=cancel))

    # Streams.

    async def connect(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serve one stream until either side ends it."""
        stream = Stream()
        self._streams.add(stream)
        reader = asyncio.ensure_future(self._read(stream, requests))
        writer = asyncio.ensure_future(self._write(stream, context))
        try:
            waiting: set[asyncio.Future[Any]] = {reader, writer, stream.ending}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if stream.ending.done():
                ended = stream.ending.result()
                log.info("the stream of %s ends: %s: %s", stream.instance_id, ended.code, ended.message)
                await self._flush(stream, context)
                details = status_details(ended.code, ended.message, ended.violation)
                await context.abort(getattr(grpc.StatusCode, ended.code), ended.message, details)
        finally:
            self._gone(stream)
            reader.cancel()
            writer.cancel()

    def _gone(self, stream: Stream) -> None:
        self._streams.discard(stream)
        if self._sessions.get(stream.session_id) is stream:
            del self._sessions[stream.session_id]
        if stream.session_id:
            self.engine.submit(i.StreamLost(stream.session_id, stream))

    async def _read(self, stream: Stream, requests: AsyncIterator[bytes]) -> None:
        try:
            async for data in requests:
                stream.last_heard = time.monotonic()
                self._frame(stream, data)
        except Ended as ended:
            stream.end(ended.code, ended.message, ended.violation)
            await asyncio.Event().wait()  # the handler ends the call; ending here would look like the worker's doing
        except grpc.RpcError as error:
            log.debug("the stream of %s broke: %s", stream.instance_id, error)

    async def _write(self, stream: Stream, context: Any) -> None:
        while True:
            await stream.wake.wait()
            stream.wake.clear()
            await asyncio.sleep(0)  # whatever this turn of the loop still brings goes into the same frame
            await self._flush(stream, context)

    async def _flush(self, stream: Stream, context: Any) -> None:
        messages, stream.messages = stream.messages, []
        for frame in frames(stream, messages, self._limits.max_frame_bytes):
            stream.writing_since = time.monotonic()
            await context.write(frame)
            stream.writing_since = None

    async def watch(self) -> None:
        """End streams that are silent or do not read; runs as long as the server."""
        while True:
            await asyncio.sleep(self._limits.heartbeat_interval / 4)
            now = time.monotonic()
            patience = 2 * self._limits.heartbeat_interval
            for stream in list(self._streams):
                silence = now - stream.last_heard
                if silence > patience:
                    stream.end("DEADLINE_EXCEEDED", f"no message for {silence:.1f} s; reconnect")
                elif stream.writing_since is not None and now - stream.writing_since > patience:
                    stream.end("RESOURCE_EXHAUSTED", "the worker does not read what it is sent")
                    stream.messages.clear()

    # In.

    def _frame(self, stream: Stream, data: bytes) -> None:
        limit = self._limits.max_frame_bytes
        if len(data) > limit:
            raise Ended("RESOURCE_EXHAUSTED", f"a frame of {len(data)} bytes, over --max-frame-bytes={limit}")
        try:
            frame = worker_pb2.WorkerFrame.FromString(data)
        except DecodeError:
            raise Ended("INVALID_ARGUMENT", "a frame that can't be parsed as stepwire.v1.WorkerFrame") from None
        if not frame.messages:
            raise Ended("INVALID_ARGUMENT", "a frame without messages", "messages")
        for number, message in enumerate(frame.messages):
            self._message(stream, message, f"messages[{number}]")

    def _message(self, stream: Stream, message: worker_pb2.WorkerMessage, field: str) -> None:
        kind = message.WhichOneof("kind")
        if kind is None:
            raise Ended("INVALID_ARGUMENT", "a message without a kind, or of one that version 1 does not know", field)
        if kind == "fragment":
            self._fragment(stream, message.fragment, field)
            return
        if kind == "hello":
            self._hello(stream, message.hello, f"{field}.hello")
            return
        if not stream.session_id:
            state = "before Welcome has answered its Hello" if stream.greeted else "before Hello"
            raise Ended("FAILED_PRECONDITION", f"{kind} came {state}: send Hello first, and wait for Welcome")
        try:
            _READ[kind](self, stream, getattr(message, kind))
        except wire.FormError as error:
            raise Ended("INVALID_ARGUMENT", f"{kind}: {error}", f"{field}.{kind}.{error.field}") from None

    def _fragment(self, stream: Stream, fragment: worker_pb2.Fragment, field: str) -> None:
        if stream.joining is not None and fragment.id != stream.joining:
            message = f"fragment {fragment.id} while {stream.joining} is not complete"
            raise Ended("INVALID_ARGUMENT", message, f"{field}.fragment.id")
        stream.joining = fragment.id
        stream.joined.append(fragment.data)
        size = sum(map(len, stream.joined))
        limit = max(self._limits.max_output_bytes, self._limits.max_event_bytes) * 2 + MESSAGE_OVERHEAD
        if size > limit:
            raise Ended("RESOURCE_EXHAUSTED", f"a message of over {limit} bytes in fragments: outputs have a limit")
        if fragment.last:
            data, stream.joined, stream.joining = b"".join(stream.joined), [], None
            try:
                message_ = worker_pb2.WorkerMessage.FromString(data)
            except DecodeError:
                raise Ended("INVALID_ARGUMENT", "fragments that give no WorkerMessage", f"{field}.fragment") from None
            if message_.WhichOneof("kind") in ("fragment", "hello"):
                raise Ended("INVALID_ARGUMENT", "a Hello or a fragment inside of fragments", f"{field}.fragment")
            self._message(stream, message_, field)

    def _hello(self, stream: Stream, hello: worker_pb2.Hello, field: str) -> None:
        if stream.greeted:
            raise Ended("FAILED_PRECONDITION", "a second Hello: it comes once, as the first message of a stream")
        stream.greeted = True
        if not hello.min_protocol <= PROTOCOL <= hello.max_protocol:
            theirs = f"{hello.min_protocol} to {hello.max_protocol}"
            raise Ended(
                "FAILED_PRECONDITION",
                f"no common protocol version: the worker speaks {theirs}, this executor {PROTOCOL} to {PROTOCOL}; "
                f"use a {'newer' if hello.min_protocol > PROTOCOL else 'older'} executor or another version of the SDK",
            )
        try:
            worker = read_hello(hello, self._limits, stream)
        except wire.FormError as error:
            raise Ended("INVALID_ARGUMENT", f"hello.{error}", f"{field}.{error.field}") from None
        if self.engine.failing:
            raise Ended("UNAVAILABLE", "the executor's store is failing; reconnect")
        stream.instance_id = worker.instance_id
        self.engine.submit(worker)

    def _steps_found(self, stream: Stream, message: Any) -> None:
        now = time.time()
        steps = [wire.planned(step, message.run_id, self._limits, now) for step in message.steps]
        self.engine.submit(
            i.StepsFound(
                stream.session_id, message.run_id, message.invocation, message.sequence, steps, message.quiescent
            )
        )

    def _step_run(self, stream: Stream, message: Any) -> None:
        attempt = message.attempt
        self.engine.submit(
            i.StepSucceeded(
                stream.session_id,
                attempt.run_id,
                StepKey(attempt.key.id, attempt.key.index),
                attempt.fence,
                message.output.SerializeToString(),
                len(message.output.data),
                elapsed(message),
            )
        )

    def _step_failed(self, stream: Stream, message: Any) -> None:
        attempt = wire.attempt(message.attempt)
        failure = wire.failure(message.failure)
        self.engine.submit(
            i.StepFailed(stream.session_id, attempt.run_id, attempt.key, attempt.fence, failure, elapsed(message))
        )

    def _step_cancelled(self, stream: Stream, message: Any) -> None:
        keys = [wire.key(each) for each in message.keys]
        self.engine.submit(i.StepsCancelled(stream.session_id, message.run_id, message.invocation, keys))

    def _run_finished(self, stream: Stream, message: Any) -> None:
        output = message.output.SerializeToString()
        size = len(message.output.data)
        self.engine.submit(i.BodyReturned(stream.session_id, message.run_id, message.invocation, output, size))

    def _run_failed(self, stream: Stream, message: Any) -> None:
        failure = wire.failure(message.failure)
        self.engine.submit(i.BodyFailed(stream.session_id, message.run_id, message.invocation, failure))

    def _heartbeat(self, stream: Stream, message: Any) -> None:
        lag = wire.seconds(message.loop_lag, "loop_lag") if message.HasField("loop_lag") else 0.0
        self.engine.submit(i.Heartbeat(stream.session_id, lag, message.blocking_stack))

    def _evicted(self, stream: Stream, message: Any) -> None:
        self.engine.submit(i.InvocationDropped(stream.session_id, message.run_id, message.invocation))

    def _need_journal(self, stream: Stream, message: Any) -> None:
        self.engine.submit(i.InvocationDropped(stream.session_id, message.run_id, message.invocation, needed=True))

    def _draining(self, stream: Stream, message: Any) -> None:
        self.engine.submit(i.WorkerDraining(stream.session_id, wire.attempts(message.returned_attempts)))


_WRITE: dict[type, Callable[[Connections, Stream, Any], None]] = {
    c.Invoke: Connections._invoke,
    c.Resume: Connections._resume,
    c.StartAttempt: Connections._start,
    c.Recorded: Connections._recorded,
    c.Refused: Connections._refused,
    c.CancelRun: Connections._cancel_run,
    c.CancelAttempt: Connections._cancel_attempt,
}

_READ: dict[str, Callable[[Connections, Stream, Any], None]] = {
    "step_run": Connections._step_run,
    "steps_found": Connections._steps_found,
    "step_failed": Connections._step_failed,
    "step_cancelled": Connections._step_cancelled,
    "run_finished": Connections._run_finished,
    "run_failed": Connections._run_failed,
    "heartbeat": Connections._heartbeat,
    "evicted": Connections._evicted,
    "need_journal": Connections._need_journal,
    "draining": Connections._draining,
}


def read_hello(hello: worker_pb2.Hello, limits: Limits, stream: Stream) -> i.WorkerHello:
    """Read a Hello; raises FormError."""
    for field, value in (("instance_id", hello.instance_id), ("app", hello.app)):
        size = len(value.encode())
        if not 0 < size <= 128:
            raise wire.FormError(field, f"{size} bytes, but it must have 1 to 128")
    if not 1 <= hello.slots <= MOST_SLOTS:
        raise wire.FormError("slots", f"{hello.slots}, but a worker has 1 to {MOST_SLOTS}")
    functions = [wire.function(each, limits, f"functions[{at}]") for at, each in enumerate(hello.functions)]
    if len({each.id for each in functions}) < len(functions):
        raise wire.FormError("functions", "two functions have the same id")
    for at, task in enumerate(hello.tasks):
        if not 0 < len(task.encode()) <= wire.LONGEST_ID:
            raise wire.FormError(f"tasks[{at}]", f"a task's name has 1 to {wire.LONGEST_ID} bytes")
    return i.WorkerHello(
        secrets.token_hex(16),
        hello.instance_id,
        hello.app,
        hello.app_version,
        functions,
        tuple(hello.tasks),
        hello.slots,
        max(1, hello.max_invocations),
        worker_pb2.CAPABILITY_EAGER in hello.capabilities,
        hello.resume_session,
        wire.attempts(hello.attempts_in_hand),
        dict(hello.labels),
        hello.sdk_name,
        hello.sdk_version,
        stream,
    )


def elapsed(message: Any) -> float:
    """Give how long an attempt ran, in seconds; what is not valid counts as nothing."""
    return max(0.0, float(message.elapsed.seconds + message.elapsed.nanos / 1e9))


def pages(journal: Sequence[Step]) -> Iterator[list[opcode_pb2.JournalEntry]]:
    """Write journal entries in pages of about `PAGE_BYTES`."""
    page: list[opcode_pb2.JournalEntry] = []
    size = 0
    for step in journal:
        page.append(wire.entry(step))
        size += len(step.output or b"") + 64
        if size > PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def frames(stream: Stream, messages: Sequence[worker_pb2.ExecutorMessage], limit: int) -> list[bytes]:
    """Serialize messages into frames of at most `limit` bytes; one that fits none is cut into fragments."""
    parts: list[bytes] = []
    for message in messages:
        data = message.SerializeToString()
        if len(data) + 16 <= limit:
            parts.append(data)
            continue
        stream.fragment_id += 1
        size = limit - 64
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            fragment = worker_pb2.Fragment(id=stream.fragment_id, data=piece, last=at + size >= len(data))
            parts.append(worker_pb2.ExecutorMessage(fragment=fragment).SerializeToString())
    return pack(parts, limit)


def pack(parts: Sequence[bytes], limit: int) -> list[bytes]:
    """Put serialized messages into as few frames as fit; a repeated field is its parts one after the other."""
    packed: list[bytes] = []
    frame: list[bytes] = []
    size = 0
    for part in parts:
        head = b"\x0a" + varint(len(part))
        if frame and size + len(head) + len(part) > limit:
            packed.append(b"".join(frame))
            frame, size = [], 0
        frame += (head, part)
        size += len(head) + len(part)
    if frame:
        packed.append(b"".join(frame))
    return packed


def varint(value: int) -> bytes:
    """Write a number as Protobuf does (https://protobuf.dev/programming-guides/encoding/#varints)."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def status_details(code: str, message: str, violation: str) -> tuple[tuple[str, bytes], ...]:
    """Give trailing metadata with google.rpc details, if a field is to blame."""
    if not violation:
        return ()
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    details = error_details_pb2.BadRequest()
    details.field_violations.add(field=violation, description=message)
    status.details.add().Pack(details)
    return (("grpc-status-details-bin", status.SerializeToString()),)
