"""The simulated network: streams and calls between processes, slow, cut, stalled, and heard twice.

Order within a direction of a stream is kept, as TCP does; whatever else can happen to it, does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from stepwire.gathering import status
from stepwire_proto.v1 import worker_pb2
from tests.simulation.machine import Process

TO_EXECUTOR, TO_WORKER = 0, 1
CONNECT = "/stepwire.v1.WorkerService/Connect"
KEEPALIVE_SECONDS = 12.0
"""After which a client notices that its connection is dead."""
TWICE = ({"step_run", "step_failed", "steps_found", "heartbeat", "evicted"}, {"recorded", "cancel"})
"""Messages that may be heard twice, by direction."""


@dataclass(slots=True)
class Conditions:
    """How the network is. Delays are in seconds, others are probabilities."""

    least_delay: float = 0.0002
    most_delay: float = 0.002
    twice: float = 0.0
    silent_death: float = 0.0
    """That the end of a process is not told to those it was connected to."""
    lag: float = 0.0
    """That a worker says something else of its loop than before."""


class Status:
    """How a handler's call ends if it returns: what grpc.aio's ServicerContext has of it."""

    def __init__(self) -> None:
        self.code, self.details = "OK", ""
        self.trailing: Any = ()

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the code."""
        self.code = code.name

    def set_details(self, details: str) -> None:
        """Set the message."""
        self.details = details

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Set what a status has beside its message: whoever is asked to be patient reads for how long."""
        self.trailing = metadata


class Aborted(Exception):  # noqa: N818
    """Ends a call's handler with a status."""


class Network:
    """Connects processes to the one server that listens."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.server: Server | None = None
        self.calls: list[StreamCall] = []
        """Of workers."""
        self.waits: list[StreamCall] = []
        """Of clients."""
        self.counts: dict[str, int] = {}

    def count(self, what: str) -> None:
        """Note that something has happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def delay(self, process: Process) -> float:
        """Draw how long something takes to arrive."""
        conditions = self.conditions
        return process.machine.dice.uniform(conditions.least_delay, conditions.most_delay)

    def open(
        self,
        process: Process,
        on_frame: Callable[[bytes], None],
        on_end: Callable[[str, str], None],
        method: str = CONNECT,
    ) -> StreamCall:
        """Open a stream, a worker's or a client's."""
        among = self.calls if method == CONNECT else self.waits
        call = StreamCall(self, process, on_frame, on_end, method, among)
        among.append(call)
        return call

    def forget(self, process: Process) -> None:
        """Take a process for dead: those it was connected to hear of it, or not."""
        silent = process.machine.dice.random() < self.conditions.silent_death
        for call in [*self.calls, *self.waits]:
            if call.worker is process or (call.server is not None and call.server.process is process):
                call.drop()
                if silent and call.method != CONNECT:
                    process.machine.after(KEEPALIVE_SECONDS, call.cut)
                elif silent:
                    self.count("silent death")
                    call.stall(TO_EXECUTOR, 1e9)
                    call.stall(TO_WORKER, 1e9)
                else:
                    call.cut()
        if self.server is not None and self.server.process is process:
            self.server.die()
            self.server = None


class Server:
    """What a listening process serves: handlers of streams, and unary methods, by name."""

    def __init__(
        self,
        process: Process,
        streams: dict[str, Callable[[Any, Any], Awaitable[None]]],
        methods: dict[str, Any],
    ) -> None:
        self.process = process
        self.streams = streams
        self.methods = methods
        self.pending: dict[UnaryCall, None] = {}

    def die(self) -> None:
        """End all unary calls that are under way."""
        for call in list(self.pending):
            call.fail("UNAVAILABLE", "connection reset by peer")


class StreamCall(Status):
    """A bidirectional stream of a worker, or of a client, which is where it says "worker" too.

    The worker's side is callbacks, the executor's is what grpc.aio gives a handler.
    """

    def __init__(
        self,
        network: Network,
        worker: Process,
        on_frame: Callable[[bytes], None],
        on_end: Callable[[str, str], None],
        method: str,
        among: list[StreamCall],
    ) -> None:
        super().__init__()
        self._network = network
        self._among = among
        self.method = method
        self._machine = worker.machine
        self.worker = worker
        self.server = network.server
        self._on_frame = on_frame
        self._on_end = on_end
        self._begun = worker.machine.now
        self._arrived = [0.0, 0.0]
        self._stalled = [0.0, 0.0]
        self._under_way: tuple[deque[Callable[[], None]], ...] = (deque(), deque())
        self._sent = False
        self._requests: asyncio.Queue[bytes | None] | None = None
        self._over = False
        """Cut: nothing arrives any more but the news of it."""
        self._told = False
        self._server_told = False
        self._handler: asyncio.Task[None] | None = None
        if self.server is None or not self.server.process.alive:
            self._over = True
            self._arrive(TO_WORKER, lambda: self._end("UNAVAILABLE", "connection refused"))
        else:
            self._arrive(TO_EXECUTOR, self._accept)

    # The network's.

    @property
    def calm_since(self) -> float:
        """Since when nothing has held it up: the end of the last stall, or its begin."""
        return max(self._begun, *self._stalled)

    def stall(self, direction: int, seconds: float) -> None:
        """Let nothing arrive in a direction for a while; then all of it does."""
        self._stalled[direction] = max(self._stalled[direction], self._machine.now + seconds)

    def cut(self) -> None:
        """Lose the connection; either side hears of it when it does."""
        if not self._over:
            self._over = True
            self._network.count("cut")
            self._arrive(TO_WORKER, lambda: self._end("UNAVAILABLE", "connection reset by peer"))
            self._arrive(TO_EXECUTOR, self._end_requests)

    def drop(self) -> None:
        """Leave it out of what may still be disturbed."""
        if self in self._among:
            self._among.remove(self)

    def _arrive(self, direction: int, call: Callable[[], None]) -> None:
        machine = self._machine
        when = machine.now + self._network.delay(self.worker)
        when = self._arrived[direction] = max(when, self._arrived[direction], self._stalled[direction])
        self._under_way[direction].append(call)
        machine.at(when, lambda: self._deliver(direction))

    def _deliver(self, direction: int) -> None:
        """Let what was sent first arrive, unless a stall has begun since."""
        until = self._stalled[direction]
        if until <= self._machine.now:
            self._under_way[direction].popleft()()
        elif until < 1e8:
            self._machine.at(until, lambda: self._deliver(direction))

    def _doubled(self, direction: int, frame: bytes) -> bytes | None:
        if self.method != CONNECT or self._machine.dice.random() >= self._network.conditions.twice:
            return None
        kind: Any = worker_pb2.WorkerFrame if direction == TO_EXECUTOR else worker_pb2.ExecutorFrame
        whole = kind.FromString(frame)
        if any(message.WhichOneof("kind") not in TWICE[direction] for message in whole.messages):
            return None  # what it says again would come after what it did not say again
        self._network.count("heard twice")
        return frame

    # The worker's side.

    def send(self, frame: bytes) -> None:
        """Send a frame to the executor."""
        if self._over or not self.worker.instant():
            return
        self._arrive(TO_EXECUTOR, lambda: self._request(frame))
        again = self._doubled(TO_EXECUTOR, frame) if self._sent else None
        self._sent = True
        if again is not None:
            self._arrive(TO_EXECUTOR, lambda: self._request(again))
        self.worker.instant()

    def finish(self) -> None:
        """Half-close: nothing more will be sent."""
        if not self._over:
            self._arrive(TO_EXECUTOR, self._end_requests)

    def cancel(self) -> None:
        """Give the call up."""
        if not self._over:
            self._over = True
            self._arrive(TO_EXECUTOR, self._end_requests)
        self._end("CANCELLED", "cancelled by the worker")

    def _frame(self, frame: bytes) -> None:
        if not self._over and self.worker.alive:
            self._machine.mark(frame)
            self.worker.call_soon(self._on_frame, frame)

    def _end(self, code: str, details: str) -> None:
        if not self._told:
            self._told = True
            self.drop()
            if self.worker.alive:
                self.worker.call_soon(self._on_end, code, details)

    # The executor's side.

    def _accept(self) -> None:
        server = self.server
        if self._over:
            return
        if server is None or not server.process.alive:
            self.cut()
            return
        self._requests = asyncio.Queue()
        server.process.call_soon(self._serve)

    def _serve(self) -> None:
        assert self.server is not None
        self._handler = self.server.process.spawn(self._handle())

    async def _handle(self) -> None:
        assert self.server is not None
        try:
            await self.server.streams[self.method](self._iterate(), self)
            code, details = self.code, self.details
        except Aborted as aborted:
            code, details = aborted.args
        except Exception as error:
            self._machine.errors.append(f"the handler of a stream failed: {error!r}")
            raise
        if not self._over:
            self._server_told = True
            self._arrive(TO_WORKER, lambda: self._end(code, details))
            self._arrive(TO_WORKER, self._close)

    def _close(self) -> None:
        self._over = True

    async def _iterate(self) -> AsyncIterator[bytes]:
        assert self._requests is not None
        while (frame := await self._requests.get()) is not None:
            yield frame

    def _request(self, frame: bytes) -> None:
        if not self._over:
            self._machine.mark(frame)
            self._put(frame)

    def _end_requests(self) -> None:
        if not self._server_told:
            self._server_told = True
            self._put(None)

    def _put(self, frame: bytes | None) -> None:
        if self._requests is not None and self.server is not None and self.server.process.alive:
            self.server.process.call_soon(self._requests.put_nowait, frame)

    async def write(self, frame: bytes) -> None:
        """Send a frame to the worker: grpc.aio's ServicerContext."""
        assert self.server is not None
        process = self.server.process
        await process.survive()
        if not self._over:
            self._arrive(TO_WORKER, lambda: self._frame(frame))
            again = self._doubled(TO_WORKER, frame)
            if again is not None:
                self._arrive(TO_WORKER, lambda: self._frame(again))
        await process.survive()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        """End the stream with a status: grpc.aio's ServicerContext."""
        raise Aborted(code.name, details)


class UnaryCall(Status):
    """One call of a client."""

    def __init__(self, network: Network, client: Process, method: str, request: bytes, timeout: float | None) -> None:
        super().__init__()
        self._network = network
        self._client = client
        self._server = server = network.server
        self.answer: asyncio.Future[bytes] = client.create_future()
        machine = client.machine
        if timeout is not None:
            client.call_later(timeout, self._fail, "DEADLINE_EXCEEDED", "Deadline Exceeded")
        if server is None:
            machine.after(network.delay(client), lambda: self.fail("UNAVAILABLE", "connection refused"))
            return
        server.pending[self] = None
        self._handler: asyncio.Task[None] | None = None
        machine.after(network.delay(client), lambda: self._begin(method, request))

    def fail(self, code: str, details: str) -> None:
        """Have the client see an error."""
        if self._client.alive:
            self._client.call_soon(self._fail, code, details)

    def _fail(self, code: str, details: str) -> None:
        if self._server is not None:
            self._server.pending.pop(self, None)
        if not self.answer.done():
            status = getattr(grpc.StatusCode, code)
            trailing = grpc.aio.Metadata(*self.trailing)
            self.answer.set_exception(grpc.aio.AioRpcError(status, grpc.aio.Metadata(), trailing, details))
        if self._server is not None and self._handler is not None and self._server.process.alive:
            self._server.process.call_soon(self._handler.cancel)

    def _begin(self, method: str, request: bytes) -> None:
        server = self._server
        if server is not None and server.process.alive:

            def serve() -> None:
                self._handler = server.process.spawn(self._handle(method, request))

            server.process.call_soon(serve)

    async def _handle(self, method: str, request: bytes) -> None:
        server = self._server
        assert server is not None
        handler, kind = server.methods[method]
        try:
            response = await handler(kind.FromString(request), self)
        except Exception as error:
            self._client.machine.errors.append(f"the handler of {method} failed: {error!r}")
            raise
        await server.process.survive()
        if self.code != "OK":
            self._arrive(lambda: self.fail(self.code, self.details))
            return
        data = response.SerializeToString()
        self._arrive(lambda: self._client.alive and self._client.call_soon(self._succeed, data))
        await server.process.survive()

    def _arrive(self, call: Callable[[], object]) -> None:
        assert self._server is not None
        self._server.pending.pop(self, None)
        self._client.machine.after(self._network.delay(self._client), lambda: call() and None)

    def _succeed(self, data: bytes) -> None:
        self._handler = None
        if not self.answer.done():
            self.answer.set_result(data)


class Channel:
    """What a client takes for a grpc.aio.Channel."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any) -> Any:
        """Give a callable for a method."""

        async def call(request: Any, timeout: float | None = None, metadata: object = ()) -> Any:
            pending = UnaryCall(self._network, self._process, method, request_serializer(request), timeout)
            return response_deserializer(await pending.answer)

        return call

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any) -> Any:
        """Give a callable for a method."""

        def call(requests: AsyncIterator[Any], metadata: object = ()) -> ClientStream:
            frames = (request_serializer(each) async for each in requests)
            return ClientStream(self._network, self._process, method, frames, response_deserializer)

        return call


class ClientStream:
    """What a client takes for a call of grpc.aio with streams on both sides."""

    def __init__(
        self, network: Network, process: Process, method: str, requests: AsyncIterator[bytes], read: Any
    ) -> None:
        self._read = read
        self._received: asyncio.Queue[bytes | tuple[str, str]] = asyncio.Queue()
        self._call = network.open(process, self._received.put_nowait, self._end, method)
        self._writer = process.create_task(self._write(requests))

    def cancel(self) -> None:
        """Give the call up."""
        self._writer.cancel()
        self._call.cancel()

    async def _write(self, requests: AsyncIterator[bytes]) -> None:
        async for each in requests:
            self._call.send(each)

    def _end(self, code: str, details: str) -> None:
        self._received.put_nowait((code, details))

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            received = await self._received.get()
            if isinstance(received, tuple):
                code, details = received
                if code == "OK":
                    return
                raise status(getattr(grpc.StatusCode, code), details)
            yield self._read(received)
