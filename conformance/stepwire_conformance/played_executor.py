"""The played executor: a real gRPC server behind the proxy. It takes frames as bytes and watches over the rules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from stepwire_conformance.frames import FrameError, Framer, Joiner
from stepwire_conformance.proxy import Connection, Proxy
from stepwire_conformance.rules import Rules, StreamRules
from stepwire_conformance.transcript import FailedError, Transcript
from stepwire_proto.v1 import worker_pb2

LARGEST_BYTES = 64 << 20
OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", LARGEST_BYTES),
    ("grpc.max_send_message_length", LARGEST_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
]


@dataclass
class Received:
    """One message, the pages of StepsFound joined."""

    message: worker_pb2.WorkerMessage
    pages: int = 1


class Ended:
    """Stands in a stream's queue after the last message."""


class PlayedStream:
    """One stream of the worker."""

    def __init__(self, context: Any, connection: Connection, rules: Rules, transcript: Transcript) -> None:
        self._context = context
        self.connection = connection
        self._all_rules = rules
        self.rules = StreamRules()
        self._transcript = transcript
        self._joiner = Joiner(worker_pb2.WorkerMessage)
        self._framer = Framer(worker_pb2.ExecutorMessage)
        self._writing = asyncio.Lock()
        self.queue: asyncio.Queue[Received | Ended | FailedError] = asyncio.Queue()
        self.heartbeats: asyncio.Queue[tuple[float, worker_pb2.Heartbeat]] = asyncio.Queue()
        self.over = asyncio.Event()
        """The handler is to end the stream with `status`."""
        self.status: tuple[grpc.StatusCode, str] = (grpc.StatusCode.OK, "")
        self.answers = True
        """Whether heartbeats are answered."""
        self.lost = False
        """Whether the case has broken or ended it: what still comes is of no interest."""
        self.max_frame_bytes = 0
        self._page: Received | None = None

    async def send(
        self, messages: Iterable[worker_pb2.ExecutorMessage], fragment_bytes: int = 0, unknown: bytes = b""
    ) -> None:
        """Send messages in one frame, or in as many as they need."""
        async with self._writing:
            for frame in self._framer.frames(messages, fragment_bytes, unknown):
                with contextlib.suppress(grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                    await self._context.write(frame)

    def end(self, code: grpc.StatusCode, message: str) -> None:
        """End the stream with a status."""
        self.status = (code, message)
        self.lost = True
        self.over.set()

    async def read(self) -> None:
        """Take what the worker sends, until it ends its side."""
        while True:
            try:
                frame = await self._context.read()
            except Exception:  # the call is gone; grpc.aio has several errors for that
                frame = grpc.aio.EOF
            if frame is grpc.aio.EOF:
                break
            if self.lost:
                continue
            await self._take(frame)
        if not self.lost:
            self._transcript.note("the worker has ended its side of the stream")
        self.queue.put_nowait(Ended())
        self.over.set()

    async def _take(self, frame: bytes) -> None:
        breaches = list(self._all_rules.frame(self.rules, len(frame), self.max_frame_bytes))
        try:
            messages = self._joiner.messages(frame)
        except FrameError as error:
            messages = []
            breaches.append(f"rule 2: {error}")
        for message in messages:
            breaches += self._all_rules.received(self.rules, message)
            self._transcript.said("worker  ", message)
            if message.HasField("heartbeat"):
                self.heartbeats.put_nowait((self._transcript.seconds, message.heartbeat))
                if self.answers and self.rules.interval:
                    await self.send([worker_pb2.ExecutorMessage(recorded=worker_pb2.Recorded())])
                continue
            self._queue(message)
        for breach in breaches:
            self.queue.put_nowait(FailedError(breach))

    def _queue(self, message: worker_pb2.WorkerMessage) -> None:
        """Queue a message; pages of StepsFound are kept until the last one."""
        page = self._page
        if message.HasField("steps_found") and page is not None:
            found, more = page.message.steps_found, message.steps_found
            if (found.run_id, found.invocation) == (more.run_id, more.invocation):
                found.steps.extend(more.steps)
                found.sequence, found.quiescent = more.sequence, more.quiescent
                page.pages += 1
                if more.quiescent:
                    self.queue.put_nowait(page)
                    self._page = None
                return
        if message.HasField("steps_found") and not message.steps_found.quiescent:
            self._page = Received(message)
            return
        self.queue.put_nowait(Received(message))


class PlayedExecutor:
    """Listens for one worker. Use it as an async context manager."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self.rules = Rules()
        self.streams: asyncio.Queue[PlayedStream] = asyncio.Queue()
        """Those that no act has accepted yet."""
        self._server = grpc.aio.server(options=OPTIONS)
        self.proxy: Proxy

    @property
    def address(self) -> str:
        """Where the worker finds it."""
        return f"127.0.0.1:{self.proxy.port}"

    async def __aenter__(self) -> PlayedExecutor:
        handler: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        service = grpc.method_handlers_generic_handler("stepwire.v1.WorkerService", {"Connect": handler})
        self._server.add_generic_rpc_handlers((service,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.proxy = Proxy(port)
        await self.proxy.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.proxy.close()
        await self._server.stop(0)

    async def _connect(self, _: object, context: Any) -> None:
        connection = self.proxy.connection(int(context.peer().rpartition(":")[2]))
        stream = PlayedStream(context, connection, self.rules, self._transcript)
        self._transcript.note("the worker opens a stream")
        self.streams.put_nowait(stream)
        reader = asyncio.create_task(stream.read())
        try:
            await stream.over.wait()
        finally:
            reader.cancel()
        code, message = stream.status
        if code is not grpc.StatusCode.OK:
            await context.abort(code, message)
