"""The streams of workers: parses what comes in into inputs, writes commands out, and notices who is gone.

State lives in the engine, not here: a stream that ends only says so, once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.containment import run_of
from stepwire_core.model import Limits
from stepwire_core.registrations import count_new
from stepwire_executor import times, wire
from stepwire_executor.access import Access, AccessError, Role
from stepwire_executor.form import FormError
from stepwire_executor.fragments import Fragments
from stepwire_executor.frames import frames
from stepwire_executor.history import History
from stepwire_executor.incoming import (
    READ,
    STEPS_A_PIECE,
    is_large,
    many_steps_cancelled,
    many_steps_found,
    read_hello,
)
from stepwire_executor.outgoing import WRITE, Tracing, answer
from stepwire_executor.pacing import ACTIVE_SECONDS, Pacing, Turn
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.errors import StatusError, as_status, refuse
from stepwire_executor.sharing import AppTurns
from stepwire_executor.stream import Ended, Stream
from stepwire_executor.visible import one_line
from stepwire_proto.v1 import worker_pb2

log = logging.getLogger("stepwire.executor")

PROTOCOL = 1
MESSAGE_OVERHEAD = 1024 * 1024
"""Bytes that a message may have beyond the largest value in it."""
STALLED_SECONDS = 1.0
"""A write that takes longer shows a worker that does not keep up: then what is queued for it must stay small."""
MOST_UNREAD_BYTES = 16 << 20
"""Size of a stream's queue from which on nothing more is taken from the worker: its reports have answers."""
WAIT_SECONDS = 0.05
SMALL_FRAME_BYTES = 16 << 10
"""Of larger frames each input is looked at: whether the stream's turn is over with it."""
LOOKS_EVERY = 8
"""Of smaller ones each eighth."""
REGISTERING_SECONDS = 0.0001
"""What each new function of a Hello costs, to decide and to write."""
HELLO_SECONDS = 30.0
"""How long a stream may be silent before its Hello: thousands may come at once, and each has to be read."""


class Connections:
    """Serves WorkerService.Connect; the engine's `Outbound`."""

    def __init__(
        self,
        limits: Limits,
        tracing: Tracing,
        max_unread_bytes: int = 64 << 20,
        new_session_id: Callable[[], str] = lambda: secrets.token_hex(16),
        history: History | None = None,
        access: Access | None = None,
    ) -> None:
        self._limits = limits
        self._max_unread_bytes = max_unread_bytes
        self._access = access or Access()
        self._tracing = tracing
        self._new_session_id = new_session_id
        self._history = history
        self._fragments = Fragments(max(limits.max_output_bytes, limits.max_event_bytes) * 2 + MESSAGE_OVERHEAD)
        self._pacing = Pacing()
        self._large = AppTurns(1)
        """Who reads a message of very many bytes of events goes on in turn, over tokens."""
        self._engine: EngineHandle | None = None
        self._streams: dict[Stream, None] = {}
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
            if isinstance(command, c.Rejected):
                assert isinstance(command.stream, Stream)
                command.stream.end(command.code, command.message)
                continue
            stream: Any = self._sessions.get(getattr(command, "session_id", ""))
            try:
                if isinstance(command, c.Welcomed):
                    stream = command.stream
                    self._welcome(command)
                elif stream is not None:
                    WRITE[type(command)](self._tracing, stream, command)
            except Exception as error:  # the others are to have theirs
                what = f"what {stream.name} is to be told ({type(command).__name__})"
                self.engine.submit(i.NotWritten(run_of(command), what, error))
                stream.end("INTERNAL", "a bug in Stepwire keeps a message from being written; reconnect")

    def close_all(self, code: str, message: str) -> None:
        """End every stream; the engine has forgotten all sessions."""
        self._sessions.clear()
        for stream in self._streams:
            stream.end(code, message)

    def held(self) -> Iterator[tuple[Stream, int]]:
        """Give streams, with the bytes of their workers' unfinished messages."""
        for stream in self._streams:
            yield stream, self._fragments.held_of(stream)

    def recheck(self) -> None:
        """Have workers connect again whose tokens are no longer what they were."""
        for stream in self._streams:
            if not self._access.is_good(stream.caller):
                stream.end("UNAVAILABLE", "the executor's tokens have changed; reconnect")

    def go_away(self, reason: str, reconnect_delay: float) -> None:
        """Tell every worker that the executor goes."""
        message = worker_pb2.GoAway(reason=reason, reconnect_delay=times.duration(reconnect_delay))
        for stream in self._sessions.values():
            stream.push(worker_pb2.ExecutorMessage(go_away=message))

    def _welcome(self, command: c.Welcomed) -> None:
        stream = command.stream
        assert isinstance(stream, Stream)
        if stream not in self._streams:  # it ended while its Hello was decided
            self.engine.submit(i.StreamLost(command.session_id, stream))
            return
        stream.session_id = command.session_id
        self._sessions[command.session_id] = stream
        if self._history is not None:
            session, worker, sdk = command.session_id, stream.instance_id, stream.sdk_name
            self._history.note("welcomed", session=session, worker=worker, sdk=sdk, resumed=command.resumed)
        log.info("worker %s %s", stream.name, "is back" if command.resumed else "has connected")
        stream.push(
            worker_pb2.ExecutorMessage(
                welcome=worker_pb2.Welcome(
                    session_id=command.session_id,
                    resumed=command.resumed,
                    protocol=PROTOCOL,
                    heartbeat_interval=times.duration(self._limits.heartbeat_interval),
                    session_grace=times.duration(self._limits.session_grace),
                    limits=wire.to_limits(self._limits),
                    unwanted_attempts=[wire.to_attempt(attempt) for attempt in command.unwanted],
                )
            )
        )

    # Streams.

    async def connect(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serve one stream until either side ends it."""
        try:
            caller = self._access.caller(context, Role.WORKER)
        except AccessError as error:  # it passed the gate, but the tokens were read again since
            refuse(context, as_status(error))
            return
        stream = Stream(self.engine.now().mono, caller)
        self._streams[stream] = None
        reader = asyncio.ensure_future(self._read(stream, requests))
        writer = asyncio.ensure_future(self._write(stream, context))
        try:
            waiting: set[asyncio.Future[Any]] = {reader, writer, stream.ending}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if stream.ending.done():
                ended = stream.ending.result()
                if self._history is not None:
                    self._history.note(
                        "refused_stream", worker=stream.instance_id, code=ended.code, message=ended.message
                    )
                log.info("the stream of %s ends: %s: %s", stream.name, ended.code, one_line(ended.message))
                self._gone(stream)
                await asyncio.wait({writer}, timeout=STALLED_SECONDS)  # it ends with the stream, after what is queued
                refuse(context, StatusError(getattr(grpc.StatusCode, ended.code), ended.message, ended.violation))
        finally:
            self._gone(stream)
            reader.cancel()
            writer.cancel()
            writer.add_done_callback(lambda task: task.cancelled() or task.exception())  # it may end as the call does

    def _gone(self, stream: Stream) -> None:
        if stream not in self._streams:
            return
        del self._streams[stream]
        self._fragments.drop(stream)
        if self._sessions.get(stream.session_id) is stream:
            del self._sessions[stream.session_id]
        if stream.session_id:
            if self._history is not None:
                self._history.note("gone", session=stream.session_id)
            self.engine.submit(i.StreamLost(stream.session_id, stream))

    async def _read(self, stream: Stream, requests: AsyncIterator[bytes]) -> None:
        turn = self._pacing.turn(stream.caller.name)
        try:
            async for data in requests:
                if turn.rest or self._is_full(stream):
                    await self._let_others(stream, turn)
                await self._take(stream, data, turn)
                if stream.ending.done():
                    return
        except Ended as ended:
            stream.end(ended.code, ended.message, ended.violation)
            await asyncio.Event().wait()  # the handler ends the call; ending here would look like the worker's doing
        except grpc.RpcError as error:
            log.debug("the stream of %s broke: %s", stream.name, error)

    async def _take(self, stream: Stream, data: bytes, turn: Turn) -> None:
        """Take the messages of a frame. A bug of ours in that costs its sender only. Raises Ended."""
        engine, caller, now = self.engine, stream.caller, self.engine.now()
        stream.last_heard = now.mono
        turn.begin(engine.decisions)
        is_large = len(data) > SMALL_FRAME_BYTES
        try:
            for number, message in enumerate(self._frame(data)):
                input_ = None
                for input_ in self._message(stream, message, f"messages[{number}]", now.wall, len(data)):
                    if input_ is not None:
                        engine.submit(caller.restrict(input_))
                        turn.left -= 1
                    if (is_large or input_ is None or turn.left % LOOKS_EVERY == 0) and turn.is_over:
                        await self._let_others(stream, turn, in_line=input_ is None)
                        if stream.ending.done():
                            return
                if input_ is None and turn.is_over:
                    await self._let_others(stream, turn)
            turn.end(is_work=type(input_) is not i.Heartbeat)
        except Ended:
            raise
        except Exception:
            self.engine.vitals.faults += 1
            log.exception("a message of %s can't be read, a bug in Stepwire", stream.name)
            raise Ended("INTERNAL", "a bug in Stepwire keeps a message from being read; reconnect") from None

    def _holds(self, stream: Stream, run_id: str, invocation: int) -> bool:
        """Whether a worker has a body that it speaks of."""
        session = self.engine.state.sessions.get(stream.session_id)
        held = session.invocations.get(run_id) if session is not None else None
        return held is not None and held.fence == invocation

    async def _let_others(self, stream: Stream, turn: Turn, *, in_line: bool = False) -> None:
        """Let other streams have their turn; take nothing more until there is room, so that gRPC lets no more come.

        Of those that read what is large one goes on in a turn of the loop.
        """
        stream.waits, to_decide = True, turn.left <= 0
        turn.end()
        if in_line:
            async with self._large.of(stream.caller.name):
                await asyncio.sleep(0)
        elif not self._is_full(stream):
            await asyncio.sleep(0)
        if to_decide:
            turn.begin(0)
            await (self.engine.caught_up() if turn.has_others else self.engine.decides())
            turn.waited()
        async with turn.account.line:
            while rest := turn.rest:  # noqa: ASYNC110 - who went on before has had more meanwhile
                await asyncio.sleep(min(rest, ACTIVE_SECONDS / 2))  # and nobody else may want anything any more
        while self._is_full(stream):  # noqa: ASYNC110 - neither engine nor gRPC would tell
            await asyncio.sleep(WAIT_SECONDS)
        stream.waits = False
        stream.last_heard = self.engine.now().mono
        turn.begin(self.engine.decisions)

    def _is_full(self, stream: Stream) -> bool:
        return self.engine.overloaded or stream.unread_bytes > MOST_UNREAD_BYTES

    async def _write(self, stream: Stream, context: Any) -> None:
        stream.ending.add_done_callback(lambda _: stream.wake.set())
        while stream.messages or not stream.ending.done():
            await stream.wake.wait()
            stream.wake.clear()
            await self._flush(stream, context)  # all that the turn of the loop has brought in which it was woken

    async def _flush(self, stream: Stream, context: Any) -> None:
        messages, stream.messages = stream.messages, []
        for frame in frames(stream, messages, self._limits.max_frame_bytes):
            stream.writing_since = self.engine.now().mono
            await context.write(frame)
            stream.writing_since = None

    async def watch(self) -> None:
        """End streams that are silent or do not read; runs as long as the server."""
        while True:
            await asyncio.sleep(self._limits.heartbeat_interval / 4)
            now = self.engine.now().mono
            patience = 2 * self._limits.heartbeat_interval
            for stream in list(self._streams):
                silence = now - stream.last_heard
                allowed = patience if stream.greeted else max(patience, HELLO_SECONDS)
                if silence > allowed and not stream.waits:
                    stream.end("DEADLINE_EXCEEDED", f"no message for {silence:.1f} s; reconnect")
                elif stream.writing_since is not None:
                    self._push_on(stream, now - stream.writing_since, patience)

    def _push_on(self, stream: Stream, stalled: float, patience: float) -> None:
        """Cut a worker that does not read what it is sent, before too much is queued for it."""
        if stalled <= min(STALLED_SECONDS, patience):
            return
        unread, limit = stream.unread_bytes, self._max_unread_bytes
        if unread > limit:
            code, reason = "RESOURCE_EXHAUSTED", f"and {unread} bytes wait for it, over --max-unread-bytes={limit}"
        elif stalled > patience:
            interval = self._limits.heartbeat_interval
            code, reason = "DEADLINE_EXCEEDED", f"longer than two heartbeat intervals of {interval:g} s"
        else:
            return
        stream.messages.clear()
        message = f"worker {stream.name} has not read what it is sent for {stalled:.1f} s, {reason}; reconnect"
        stream.end(code, message)

    # In.

    def _frame(self, data: bytes) -> Sequence[worker_pb2.WorkerMessage]:
        limit = self._limits.max_frame_bytes
        if len(data) > limit:
            raise Ended("RESOURCE_EXHAUSTED", f"a frame of {len(data)} bytes, over --max-frame-bytes={limit}")
        try:
            frame = worker_pb2.WorkerFrame.FromString(data)
        except DecodeError:
            raise Ended("INVALID_ARGUMENT", "a frame that can't be parsed as stepwire.v1.WorkerFrame") from None
        if not frame.messages:
            raise Ended("INVALID_ARGUMENT", "a frame without messages", "messages")
        return frame.messages

    def _message(
        self, stream: Stream, message: worker_pb2.WorkerMessage, field: str, now: float, size: int
    ) -> Iterable[i.Input | None]:
        """Read a message out of `size` bytes: what is to be submitted. What is large comes in pieces. Raises Ended.

        None comes where others may have a turn before there is something to submit.
        """
        kind = message.WhichOneof("kind")
        if kind is None:
            raise Ended("INVALID_ARGUMENT", "a message without a kind, or of one that version 1 does not know", field)
        if kind == "fragment":
            return self._fragment(stream, message.fragment, field, now)
        if kind == "hello":
            self._hello(stream, message.hello, f"{field}.hello")
            return ()
        if not stream.session_id:
            state = "before Welcome has answered its Hello" if stream.greeted else "before Hello"
            raise Ended("FAILED_PRECONDITION", f"{kind} came {state}: send Hello first, and wait for Welcome")
        if kind == "steps_found":
            found = message.steps_found
            if not self._holds(stream, found.run_id, found.invocation):
                del found.steps[:]  # they are nobody's; the core says so to whoever can't have been given the body
            if found.steps and is_large(found, size):
                return many_steps_found(stream.session_id, found, self._limits, now)
        elif kind == "step_cancelled" and len(message.step_cancelled.keys) > STEPS_A_PIECE:
            return many_steps_cancelled(stream.session_id, message.step_cancelled, self._limits, now)
        try:
            input_ = READ[kind](stream.session_id, getattr(message, kind), self._limits, now)
        except FormError as error:
            raise Ended("INVALID_ARGUMENT", f"{kind}: {error}", f"{field}.{kind}.{error.field}") from None
        if kind == "heartbeat":
            answer(stream)
        return (input_,)

    def _fragment(
        self, stream: Stream, fragment: worker_pb2.Fragment, field: str, now: float
    ) -> Iterable[i.Input | None]:
        data = self._fragments.add(stream, fragment, field)
        if data is not None:
            try:
                message_ = worker_pb2.WorkerMessage.FromString(data)
            except DecodeError:
                raise Ended("INVALID_ARGUMENT", "fragments that give no WorkerMessage", f"{field}.fragment") from None
            if message_.WhichOneof("kind") in ("fragment", "hello"):
                raise Ended("INVALID_ARGUMENT", "a Hello or a fragment inside of fragments", f"{field}.fragment")
            return self._message(stream, message_, field, now, len(data))
        return ()

    def _hello(self, stream: Stream, hello: worker_pb2.Hello, field: str) -> None:
        if stream.greeted:
            raise Ended("FAILED_PRECONDITION", "a second Hello: it comes once, as the first message of a stream")
        stream.greeted = True
        if not hello.min_protocol <= PROTOCOL <= hello.max_protocol:
            theirs = f"{hello.min_protocol} to {hello.max_protocol}"
            raise Ended(
                "FAILED_PRECONDITION",
                f"no common protocol version: the worker speaks {theirs}, this executor {PROTOCOL} to {PROTOCOL}; "
                f"use {'a newer' if hello.min_protocol > PROTOCOL else 'an older'} executor "
                "or another version of the SDK",
            )
        try:
            session_id = f"{self.engine.state.epoch}.{self._new_session_id()}"
            worker = read_hello(hello, self._limits, stream, session_id, self.engine.now().wall)
            stream.caller.check_app(worker.app, f"worker {worker.instance_id}")
        except FormError as error:
            raise Ended("INVALID_ARGUMENT", f"hello.{error}", f"{field}.{error.field}") from None
        except AccessError as error:
            raise Ended(error.code, error.message) from None
        if self.engine.failing:
            raise Ended("UNAVAILABLE", f"{self.engine.refusal()}; reconnect")
        stream.instance_id = worker.instance_id
        stream.sdk_name = worker.sdk_name
        self.engine.submit(worker)
        work = count_new(self.engine.state, worker) * REGISTERING_SECONDS
        until = asyncio.get_running_loop().time() + work
        self._pacing.took(self._pacing.account(stream.caller.name), work, until)
