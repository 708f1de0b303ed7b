"""A TCP proxy before the played executor, so that a connection can break in every way in which real ones do.

gRPC's server can't reset a stream, kill a connection or fall silent below HTTP/2. The proxy reads just enough of HTTP/2
to know where a frame ends and which stream was opened last.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

PREFACE_BYTES = 24
HEAD_BYTES = 9
HEADERS = 1
RST_STREAM = 3


class Connection:
    """One connection of the worker, and the one that stands for it at the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client = client
        self._server = server
        self.stream_id = 0
        """Of the HTTP/2 stream that was opened last."""
        self._open = asyncio.Event()
        self._open.set()

    @property
    def server_side_port(self) -> int:
        """The port that the server sees this connection come from."""
        port: int = self._server.get_extra_info("sockname")[1]
        return port

    def reset(self) -> None:
        """Reset the connection: the worker gets RST."""
        raw: socket.socket = self._client.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is closed already
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._client.transport.abort()
        self._server.transport.abort()

    def end(self) -> None:
        """Close the connection: the worker gets FIN."""
        self._client.close()
        self._server.transport.abort()

    def reset_stream(self, code: int) -> None:
        """Reset the stream that was opened last, with an error code of HTTP/2; the connection lives."""
        head = (4).to_bytes(3, "big") + bytes([RST_STREAM, 0]) + self.stream_id.to_bytes(4, "big")
        self._client.write(head + code.to_bytes(4, "big"))

    def freeze(self) -> None:
        """Let nothing pass any more, in either direction."""
        self._open.clear()

    async def from_client(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the worker sends, and look for streams that it opens."""
        self._server.write(await reader.readexactly(PREFACE_BYTES))
        while True:
            head = await reader.readexactly(HEAD_BYTES)
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            await self._open.wait()
            if head[3] == HEADERS:
                self.stream_id = int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
            self._server.write(head + body)
            await self._server.drain()

    async def from_server(self, reader: asyncio.StreamReader) -> None:
        """Pass on what the server sends, frame by frame."""
        while True:
            head = await reader.readexactly(HEAD_BYTES)
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            await self._open.wait()
            self._client.write(head + body)
            await self._client.drain()


class Proxy:
    """Listens on a free port of the loopback interface. Use it as an async context manager."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def listen(self) -> None:
        """Take connections, on the same port as before if it is not the first time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=4 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    def go_down(self) -> None:
        """Reset all connections, and refuse new ones until `listen` is called."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections.values()):
            connection.reset()

    def connection(self, server_side_port: int) -> Connection:
        """Give the connection that the server sees come from this port."""
        return self._connections[server_side_port]

    async def close(self) -> None:
        """End everything."""
        self.go_down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self._target_port, limit=4 << 20)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(writer, to_server[1])
        port = connection.server_side_port
        self._connections[port] = connection
        for work in (connection.from_client(reader), connection.from_server(to_server[0])):
            task = asyncio.create_task(self._carry(connection, work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, connection: Connection, work: object) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await work  # type: ignore[misc]
        connection.end()  # one side is gone: so is the other
