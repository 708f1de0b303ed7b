"""The played worker: a client of the executor on a real gRPC stream. Frames are bytes, so that it can send anything."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
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
    """One worker over all of its streams.

    It uses gRPC's sync stack in threads: grpc.aio tells a stream's end as INTERNAL when it meets a write.
    """

    def __init__(self, name: str, host: str, port: int, transcript: Transcript) -> None:
        self.name = name or "worker"
        self._proxy = Proxy(port, host)
        self._transcript = transcript
        self._rules = ExecutorRules()
        self._channel: grpc.Channel | None = None
        self._call: Any = None
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._over = asyncio.Event()
        self._framer = Framer(worker_pb2.WorkerMessage)
        self._joiner = Joiner(worker_pb2.ExecutorMessage)
        self._beating: asyncio.Task[None] | None = None
        self._reader: threading.Thread | None = None
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
        self.queue, self._out, self._over = asyncio.Queue(), queue.SimpleQueue(), asyncio.Event()
        self._journal, self.interval = None, 0.0
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._proxy.port}", OPTIONS)
        connect: Any = self._channel.stream_stream("/stepwire.v1.WorkerService/Connect")
        self._call = connect(iter(self._out.get, None))
        self._transcript.note(f"{self.name} opens a stream")
        loop = asyncio.get_running_loop()
        self._reader = threading.Thread(target=self._read, args=(self._call, loop), daemon=True)
        self._reader.start()
        self._beating = asyncio.create_task(self._beat())

    def send(self, act: case_pb2.WorkerSend) -> None:
        """Send what an act says."""
        for message in act.messages:
            self._transcript.said(self.name, message)
            if message.HasField("hello"):
                self._rules.hello(message.hello)
            self._rules.sent(message)
        if act.raw:
            self._transcript.note(f"{self.name} ▸ the bytes {act.raw[:60]!r}")
        for frame in [act.raw] if act.raw else self._framer.frames(act.messages, act.fragment_bytes):
            self._out.put(frame)

    def reset(self) -> None:
        """Reset the connection."""
        self._transcript.note(f"{self.name}: the connection is reset")
        self.interval = 0.0
        self._proxy.last.reset()

    def finish(self) -> None:
        """End this side of the stream."""
        self._transcript.note(f"{self.name} ends its side of the stream")
        self.interval = 0.0
        self._out.put(None)

    async def status(self, within: float) -> tuple[str, str, list[str]]:
        """Wait for the end of the stream: code, message, and the fields that BadRequest names. Raises FailedError."""
        try:
            await asyncio.wait_for(self._over.wait(), within)
        except TimeoutError:
            raise FailedError(f"the stream should have ended, but is open after {within:g} s") from None
        code, details, fields = self._call.code(), self._call.details() or "", []
        for key, value in self._call.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for each in status_pb2.Status.FromString(value).details:
                    bad = error_details_pb2.BadRequest()
                    if each.Unpack(bad):
                        fields += [violation.field for violation in bad.field_violations]
        self._transcript.note(f"the executor has ended the stream of {self.name}: {code.name} {details}")
        return code.name, details, fields

    async def close(self) -> None:
        """End everything."""
        await self._leave()
        await self._proxy.close()

    async def _leave(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        self._out.put(None)
        if self._call is not None:
            self._call.cancel()
        if self._reader is not None:
            await asyncio.to_thread(self._reader.join)
        if self._channel is not None:
            self._channel.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.interval / 3 or 0.05)
            if self.interval:
                beat = worker_pb2.WorkerMessage(heartbeat=worker_pb2.Heartbeat())
                self._out.put(next(iter(self._framer.frames([beat]))))

    # In the reader's thread.

    def _read(self, call: Any, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(grpc.RpcError):
            for frame in call:
                loop.call_soon_threadsafe(self._frame, call, frame)
        loop.call_soon_threadsafe(self._end, call)

    # On the loop.

    def _end(self, call: Any) -> None:
        if call is self._call:
            self.interval = 0.0
            self._over.set()
            self.queue.put_nowait(Over())

    def _frame(self, call: Any, frame: bytes) -> None:
        if call is not self._call:
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
