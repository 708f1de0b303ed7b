"""A scripted executor: a real gRPC server that sends what a test says and keeps what the worker sends."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc

from stepwire import App
from stepwire.frames import Framer, Joiner, worker_messages
from stepwire.worker import Worker
from stepwire_proto.v1 import event_pb2, opcode_pb2, value_pb2, worker_pb2


class Stream:
    """One stream of the worker under test."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.out: queue.Queue[worker_pb2.ExecutorMessage | None] = queue.Queue()
        self.messages: queue.Queue[tuple[int, worker_pb2.WorkerMessage]] = queue.Queue()
        self.kept: list[tuple[int, worker_pb2.WorkerMessage]] = []
        """What came while a test asked for something else."""
        self.frames = 0
        self.ended = threading.Event()
        self.clean = False
        self.holds_on = False
        """Whether the stream stays open when the worker has ended its side."""
        self.mute = False
        """Whether heartbeats are left without an answer."""
        self.status: tuple[grpc.StatusCode, str] = (grpc.StatusCode.UNAVAILABLE, "reset by the test")

    def send(self, **message: Any) -> None:
        """Send one message of a kind."""
        self.out.put(worker_pb2.ExecutorMessage(**message))

    async def next(self, kind: str, timeout: float = 10.0) -> Any:
        """Give the worker's next message of a kind; others are kept."""
        return (await self.next_framed(kind, timeout))[1]

    async def next_framed(self, kind: str, timeout: float = 10.0) -> tuple[int, Any]:
        """Give the next message of a kind with the number of its frame."""
        for number, (frame, message) in enumerate(self.kept):
            if message.WhichOneof("kind") == kind:
                del self.kept[number]
                return frame, getattr(message, kind)
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            try:
                frame, message = await asyncio.to_thread(self.messages.get, True, left)
            except queue.Empty:
                break
            if message.WhichOneof("kind") == kind:
                return frame, getattr(message, kind)
            if not message.HasField("heartbeat"):
                self.kept.append((frame, message))
        kept = [message.WhichOneof("kind") for _, message in self.kept]
        raise AssertionError(f"no {kind} came in {timeout} s, but {kept}")

    def reset(self) -> None:
        """Break the stream."""
        self.out.put(None)

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """End the stream with a status."""
        self.status = (code, details)
        self.out.put(None)

    async def hello(self, **welcome: Any) -> worker_pb2.Hello:
        """Take the Hello and answer with a Welcome."""
        hello = await self.next("hello")
        fields: dict[str, Any] = {"session_id": "s-1", "protocol": 1, **welcome}
        message = worker_pb2.Welcome(**fields)
        if not message.HasField("heartbeat_interval"):
            message.heartbeat_interval.seconds = 1
        self.send(welcome=message)
        assert isinstance(hello, worker_pb2.Hello)
        return hello

    def invoke(self, function: str, run_id: str = "r1", fence: int = 1, **more: Any) -> None:
        """Start a body."""
        event = event_pb2.Event(id="e", name="go", data=value_pb2.Payload(data=b"null", encoding="json"))
        fields: dict[str, Any] = {"lead": True, "attempt": 1, "events": [event], **more}
        self.send(invoke=worker_pb2.Invoke(run_id=run_id, invocation=fence, function_id=function, **fields))

    def start(self, *keys: str, run_id: str = "r1", invocation: int = 1, first_fence: int = 100) -> None:
        """Start closures."""
        steps = worker_pb2.RunSteps()
        for number, key in enumerate(keys):
            start = steps.attempts.add(number=1)
            start.attempt.CopyFrom(attempt(key, first_fence + number, run_id))
            start.closure.invocation = invocation
        self.send(run_steps=steps)

    def record(self, *attempts: value_pb2.Attempt) -> None:
        """Say that results are durable."""
        self.send(recorded=worker_pb2.Recorded(attempts=attempts))


def attempt(key: str, fence: int, run_id: str = "r1") -> value_pb2.Attempt:
    """Name an attempt; "id:2" is the third repetition of "id"."""
    name, _, index = key.partition(":")
    return value_pb2.Attempt(run_id=run_id, key=value_pb2.StepKey(id=name, index=int(index or 0)), fence=fence)


def entry(key: str, sequence: int, value: bytes = b"1") -> opcode_pb2.JournalEntry:
    """Make a journal entry of a closure."""
    message = opcode_pb2.JournalEntry(sequence=sequence, kind=opcode_pb2.STEP_KIND_CLOSURE, attempts=1)
    message.key.CopyFrom(attempt(key, 0).key)
    message.recorded_at.seconds = 1_700_000_000 + sequence
    message.output.data, message.output.encoding = value, "json"
    return message


class ScriptedExecutor:
    """Serves Connect on a free port; `stream()` gives the worker's next stream."""

    def __init__(self) -> None:
        self._streams: queue.Queue[Stream] = queue.Queue()
        self._made: list[Stream] = []
        self._pool = ThreadPoolExecutor(16)
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        method: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        handler = grpc.method_handlers_generic_handler("stepwire.v1.WorkerService", {"Connect": method})
        self._server.add_generic_rpc_handlers((handler,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def stream(self, timeout: float = 10.0) -> Stream:
        """Give the next stream that the worker opens."""
        return await asyncio.to_thread(self._streams.get, True, timeout)

    def _connect(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        stream = Stream(context)
        self._made.append(stream)
        self._streams.put(stream)
        threading.Thread(target=self._read, args=(stream, requests), daemon=True).start()
        framer = Framer(worker_pb2.ExecutorMessage)
        while (message := stream.out.get()) is not None:
            yield from framer.frames([message])
        if not stream.clean:
            context.abort(*stream.status)

    def _read(self, stream: Stream, requests: Iterator[bytes]) -> None:
        joiner = Joiner()
        try:
            for frame in requests:
                stream.frames += 1
                for message in worker_messages(frame, joiner):
                    stream.messages.put((stream.frames, message))
                    if message.HasField("heartbeat") and not stream.mute:
                        stream.send(recorded=worker_pb2.Recorded())
            stream.clean = True
        except grpc.RpcError:
            stream.clean = False
        stream.ended.set()
        if not stream.holds_on:
            stream.out.put(None)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        stopped = self._server.stop(0)
        for stream in self._made:
            stream.out.put(None)  # a handler that still waits would keep the process from ending
        stopped.wait()
        self._pool.shutdown()


@asynccontextmanager
async def serving(
    app: App, executor: ScriptedExecutor, **options: Any
) -> AsyncIterator[tuple[Worker, asyncio.Task[None]]]:
    """Run a worker for a test; it is drained at the end if it still runs."""
    worker = Worker(app, executor.address, **{"drain_seconds": 0.2, **options})
    task = asyncio.create_task(worker.run())
    try:
        yield worker, task
    finally:
        if not task.done():
            worker.drain()
            worker.drain()
            await asyncio.wait_for(asyncio.shield(task), 10)
