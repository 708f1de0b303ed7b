"""A gRPC server on asyncio that sends back every message of `/bench.Echo/Stream`. Prints its port; ends with stdin.

The message `END` ends the call with FAILED_PRECONDITION.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc

END = b"\x0a\x03end"


async def echo(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    """Send back what comes."""
    async for message in requests:
        if message == END:
            context.set_trailing_metadata((("reason", "asked"),))
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the end, ä")
        yield message


async def main() -> None:
    """Serve until stdin ends."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.method_handlers_generic_handler(
        "bench.Echo", {"Stream": grpc.stream_stream_rpc_method_handler(echo)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


asyncio.run(main())
