"""What may lie between a worker and the executor: a TCP proxy that cuts and stalls, and a relay that repeats frames.

Both run on the test's own loop, and lead to an address that may go away and come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Self

import grpc

from stepwire_proto.v1 import worker_pb2

HOST = "127.0.0.1"
CHUNK_BYTES = 4096
METHOD = "/stepwire.v1.WorkerService/Connect"
TAKEN_ONCE = frozenset({"step_run", "step_failed", "steps_found", "heartbeat", "recorded", "cancel"})
"""Messages that may come twice: the second changes nothing."""


class Way(enum.Enum):
    """A direction."""

    TO_EXECUTOR = enum.auto()
    TO_WORKER = enum.auto()


BOTH = (Way.TO_EXECUTOR, Way.TO_WORKER)


class Connection:
    """Two sockets and what goes from each to the other. Ends travel the same way as bytes, and as late."""

    def __init__(self, proxy: Proxy, worker: asyncio.StreamWriter, executor: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writers = {Way.TO_WORKER: worker, Way.TO_EXECUTOR: executor}
        self._flows = {way: asyncio.Event() for way in BOTH}
        for way in BOTH:
            self.let(way, way not in proxy.stalled)

    def let(self, way: Way, flows: bool) -> None:
        """Let bytes through, or keep them."""
        self._flows[way].set() if flows else self._flows[way].clear()

    async def run(self, worker: asyncio.StreamReader, executor: asyncio.StreamReader) -> None:
        """Carry bytes until both directions have ended."""
        try:
            await asyncio.gather(self._pump(Way.TO_EXECUTOR, worker), self._pump(Way.TO_WORKER, executor))
        finally:
            for writer in self._writers.values():
                writer.close()

    async def _pump(self, way: Way, reader: asyncio.StreamReader) -> None:
        writer = self._writers[way]
        try:
            while data := await reader.read(CHUNK_BYTES):
                self._proxy.passes(way, data)
                await asyncio.sleep(self._proxy.delay_seconds)
                await self._flows[way].wait()
                left = self._proxy.spend(way, len(data))
                writer.write(data[:left])
                await writer.drain()
                if left < len(data):
                    self._proxy.close()
                    return
        except ConnectionError:
            await self._flows[way].wait()
            reset(writer)
            return
        await self._flows[way].wait()
        with contextlib.suppress(OSError):  # the other side is gone already
            writer.write_eof()

    def reset(self) -> None:
        """End it as a host does that has forgotten it."""
        for writer in self._writers.values():
            reset(writer)

    def close(self) -> None:
        """End it in order, after what has been written."""
        for writer in self._writers.values():
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a TCP reset."""
    with contextlib.suppress(OSError):  # it is closed already
        no_linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
    writer.transport.abort()


class Proxy:
    """`async with Proxy(executor.address) as proxy`: a worker that is given `proxy.address` gets to the executor.

    `delay_seconds` holds every 4 KiB back by so much, and all that comes behind it.
    """

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._left: dict[Way, int] = {}
        self._refusing = False
        self._server: asyncio.Server | None = None
        self.address = ""
        self.stalled: set[Way] = set()
        """Directions in which new connections bring nothing through."""
        self.delay_seconds = 0.0
        self.accepted = 0
        """How many connections there have been."""
        self.seen: Callable[[Way, bytes], None] | None = None
        """Called with what is about to pass."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.address = f"{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._connections.values())
        self.reset()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refusing:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            reset(writer)
            return
        connection = Connection(self, writer, far_writer)
        self.accepted += 1
        task = self._connections[connection] = asyncio.ensure_future(connection.run(reader, far_reader))
        task.add_done_callback(lambda _: self._connections.pop(connection, None))

    def reset(self) -> None:
        """End all connections with a reset."""
        for connection in list(self._connections):
            connection.reset()

    def close(self) -> None:
        """End all connections in order."""
        for connection in list(self._connections):
            connection.close()

    def stall(self, *ways: Way, new: bool = True) -> None:
        """Keep what comes in these directions, so that a connection is half-open; of `new` ones too."""
        for connection in self._connections:
            for way in ways:
                connection.let(way, False)
        if new:
            self.stalled.update(ways)

    def go_on(self) -> None:
        """Bring everything through, also what was kept."""
        self.stalled.clear()
        for connection in self._connections:
            for way in BOTH:
                connection.let(way, True)

    def close_after(self, way: Way, size: int) -> None:
        """Bring so many more bytes through in a direction, and then close all connections."""
        self._left[way] = size

    def passes(self, way: Way, data: bytes) -> None:
        """Show what is about to pass."""
        if self.seen is not None:
            self.seen(way, data)

    def spend(self, way: Way, size: int) -> int:
        """Give how many of so many bytes may go through."""
        left = self._left.get(way, size)
        if left < size:
            del self._left[way]
            return left
        if way in self._left:
            self._left[way] = left - size
        return size

    def refuse(self, refusing: bool = True) -> None:
        """Refuse new connections, or take them again."""
        self._refusing = refusing


class Relay:
    """Carries frames of WorkerService.Connect, and brings those twice that hold only what may come twice."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._server = grpc.aio.server()
        handler: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        service, _, method = METHOD.lstrip("/").partition("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.address = f"{HOST}:{self._server.add_insecure_port(f'{HOST}:0')}"
        self.repeated: dict[str, int] = {}
        """How many messages came twice, by kind."""

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def _connect(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async with grpc.aio.insecure_channel(self._target) as channel:
            connect: Any = channel.stream_stream(METHOD)
            call = connect(self._twice(requests, worker_pb2.WorkerFrame))
            try:
                async for frame in self._twice(call, worker_pb2.ExecutorFrame):
                    yield frame
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details())

    async def _twice(self, frames: AsyncIterator[bytes], form: type[Any]) -> AsyncIterator[bytes]:
        async for data in frames:
            yield data
            kinds: Collection[str] = [message.WhichOneof("kind") for message in form.FromString(data).messages]
            if TAKEN_ONCE.issuperset(kinds):
                for kind in kinds:
                    self.repeated[kind] = self.repeated.get(kind, 0) + 1
                yield data
