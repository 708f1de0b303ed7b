"""The played worker: a client of the executor on a real gRPC stream. Frames are bytes, so that it can send anything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from stepwire_conformance.executor_rules import ExecutorRules
from stepwire_conformance.frames import FrameError, Framer, Joiner
from stepwire_conformance.proxy import Proxy
from stepwire_conformance.transcript import FailedError, Transcript
from stepwire_proto.conformance.v1 import case_pb2
from stepwire_proto.v1 import worker_pb2

LARGEST_BYTES = 64 << 20
OPTIONS = [
    ("grpc.max_receive_message_length", LARGEST_BYTES),
    ("grpc.max_send_message_length", LARGEST_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
]


class Over:
    """Stands in the queue after the last message of a stream."""


class PlayedWorker:
    """One worker over all of its streams."""

    def __init__(self, name: str, host: str, port: int, transcript: Transcript) -> None:
        self.name = name or "worker"
        self._proxy = Proxy(port, host)
        self._transcript = transcript
        self._rules = ExecutorRules()
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._framer = Framer(worker_pb2.WorkerMessage)
        self._joiner = Joiner(worker_pb2.ExecutorMessage)
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self.queue: asyncio.Queue[tuple[float, worker_pb2.ExecutorMessage] | Over | FailedError] = asyncio.Queue()
        self.interval = 0.0
        """Of heartbeats, in seconds; 0 before the Welcome, and when it is silent."""
        self._journal: worker_pb2.ExecutorMessage | None = None

    @property
    def fragments(self) -> int:
        """How many fragments have come on this stream."""
        return self._joiner.count

    async def open(self) -> None:
        """Open a stream."""
        if not self._proxy.port:
            await self._proxy.listen()
        await self._leave()
        self._framer, self._joiner = Framer(worker_pb2.WorkerMessage), Joiner(worker_pb2.ExecutorMessage)
        self.queue = asyncio.Queue()
        self._journal, self.interval = None, 0.0
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._proxy.port}", OPTIONS)
        connect: Any = self._channel.stream_stream("/stepwire.v1.WorkerService/Connect")
        self._call = connect()
        self._transcript.note(f"{self.name} opens a stream")
        self._tasks = [asyncio.create_task(self._read(self._call)), asyncio.create_task(self._beat())]

    async def send(self, act: case_pb2.WorkerSend) -> None:
        """Send what an act says."""
        for message in act.messages:
            self._transcript.said(self.name, message)
            if message.HasField("hello"):
                self._rules.hello(message.hello)
            self._rules.sent(message)
        if act.raw:
            self._transcript.note(f"{self.name} ▸ the bytes {act.raw[:60]!r}")
        frames = [act.raw] if act.raw else self._framer.frames(act.messages, act.fragment_bytes)
        async with self._writing:
            for frame in frames:
                with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # its end is told by `status`
                    await self._call.write(frame)

    def reset(self) -> None:
        """Reset the connection."""
        self._transcript.note(f"{self.name}: the connection is reset")
        self.interval = 0.0
        self._proxy.last.reset()

    async def finish(self) -> None:
        """End this side of the stream."""
        self._transcript.note(f"{self.name} ends its side of the stream")
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    async def status(self, within: float) -> tuple[str, str, list[str]]:
        """Wait for the end of the stream: code, message, and the fields that BadRequest names. Raises FailedError."""
        try:
            code = await asyncio.wait_for(self._call.code(), within)
        except TimeoutError:
            raise FailedError(f"the stream should have ended, but is open after {within:g} s") from None
        details, fields = await self._call.details(), []
        for key, value in await self._call.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for each in status_pb2.Status.FromString(value).details:
                    bad = error_details_pb2.BadRequest()
                    if each.Unpack(bad):
                        fields += [violation.field for violation in bad.field_violations]
        self._transcript.note(f"the executor has ended the stream of {self.name}: {code.name} {details}")
        return code.name, details or "", fields

    async def close(self) -> None:
        """End everything."""
        await self._leave()
        await self._proxy.close()

    async def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._call is not None:
            self._call.cancel()
        if self._channel is not None:
            await self._channel.close()

    async def _beat(self) -> None:
        beat = case_pb2.WorkerSend(messages=[worker_pb2.WorkerMessage(heartbeat=worker_pb2.Heartbeat())])
        while True:
            await asyncio.sleep(self.interval / 3 or 0.05)
            if self.interval:
                async with self._writing:
                    with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                        await self._call.write(next(iter(self._framer.frames(beat.messages))))

    async def _read(self, call: Any) -> None:
        while True:
            try:
                frame = await call.read()
            except grpc.RpcError:
                frame = grpc.aio.EOF
            if frame is grpc.aio.EOF:
                self.interval = 0.0
                self.queue.put_nowait(Over())
                return
            try:
                messages = self._joiner.messages(frame)
            except FrameError as error:
                self.queue.put_nowait(FailedError(f"the executor broke the contract: {error}"))
                return
            for breach in self._rules.frame(len(frame)):
                self.queue.put_nowait(FailedError(breach))
            for message in messages:
                self._take(message)

    def _take(self, message: worker_pb2.ExecutorMessage) -> None:
        if message.WhichOneof("kind") != "recorded" or message.recorded.ByteSize():
            self._transcript.said(f"executor to {self.name}", message)
        for breach in self._rules.received(message):
            self.queue.put_nowait(FailedError(breach))
        if message.HasField("journal_chunk") and self._journal is not None:
            self._journal.invoke.journal.extend(message.journal_chunk.entries)
            self._journal.invoke.planned.extend(message.journal_chunk.planned)
        elif message.HasField("invoke"):
            self._journal = message
        else:
            self.queue.put_nowait((time.monotonic(), message))
            return
        if len(self._journal.invoke.journal) >= self._journal.invoke.journal_length:
            self.queue.put_nowait((time.monotonic(), self._journal))
            self._journal = None
