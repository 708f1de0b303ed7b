"""A relay between workers and the executor that notes how large the frames are which pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Self

import grpc

HOST = "127.0.0.1"
SERVICE, METHOD = "stepwire.v1.WorkerService", "Connect"
NO_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Counted:
    """`async with Counted(executor.address) as relay`: a worker that is given `relay.address` gets to the executor."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._server = grpc.aio.server(options=NO_LIMIT)
        handler: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        self.address = f"{HOST}:{self._server.add_insecure_port(f'{HOST}:0')}"
        self.largest: dict[str, int] = {"to the executor": 0, "to the worker": 0}
        """Bytes of the largest frame, by direction."""

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def _connect(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async with grpc.aio.insecure_channel(self._target, options=NO_LIMIT) as channel:
            connect: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")
            async for frame in self._seen("to the worker", connect(self._seen("to the executor", requests))):
                yield frame

    async def _seen(self, way: str, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for frame in frames:
            self.largest[way] = max(self.largest[way], len(frame))
            yield frame
