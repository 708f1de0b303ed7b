"""The limits under Stepwire on the same machine: bare streams that echo the same frames, bare commits of the same rows.

python -m benchmarks.limits
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc

from benchmarks.store import finish, plan, run
from stepwire_executor.store import sqlite_open
from stepwire_executor.store.changes import changes
from stepwire_executor.store.sqlite import execute
from stepwire_proto.v1 import worker_pb2

METHOD = "/bench/Echo"
FRAMES = {1: 5_000, 10: 3_000, 100: 1_000}
"""Operations a frame, and how many frames are sent."""
WINDOW = 4
"""Frames under way."""
ROUND_TRIPS = 2_000
COMMITS = {1: 500, 100: 200, 1_000: 40}
"""Rows a commit, and how many commits."""


def frame(operations: int) -> bytes:
    """Give a frame of reports as a worker sends them."""
    made = worker_pb2.WorkerFrame()
    for n in range(operations):
        report = made.messages.add().step_run
        report.attempt.run_id = "01Q9GDNPSSAV9HBX15X5N7D6QG"
        report.attempt.key.id, report.attempt.key.index, report.attempt.fence = "nothing", n, (1 << 40) + n
        report.output.encoding, report.output.data = "json", b"%d" % n
    return made.SerializeToString()


async def serve(port: Connection) -> None:
    """Echo whatever comes, on a free port, which is told."""

    async def echo(frames: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for data in frames:
            yield data

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"Echo": handler}),))
    port.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()


def echo_process(port: Connection) -> None:
    """Be the other process."""
    asyncio.run(serve(port))


async def echoed(address: str, data: bytes, count: int, window: int) -> float:
    """Give the seconds in which frames go there and come back, some under way at a time."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()
        for _ in range(window):
            await call.write(data)
            await call.read()
        begun = time.perf_counter()
        for _ in range(window):
            await call.write(data)
        for number in range(count):
            await call.read()
            if number + window < count:
                await call.write(data)
        seconds = time.perf_counter() - begun
        call.cancel()
        return seconds


def streams() -> dict[str, float]:
    """Measure a stream between two processes."""
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=echo_process, args=(theirs,), daemon=True)
    other.start()
    address = f"127.0.0.1:{ours.recv()}"
    figures = {}
    try:
        for operations, count in FRAMES.items():
            seconds = asyncio.run(echoed(address, frame(operations), count, WINDOW))
            figures[f"stream: operations/s, {operations} a frame"] = operations * count / seconds
        seconds = asyncio.run(echoed(address, frame(1), ROUND_TRIPS, 1))
        figures["stream: round trip, ms"] = seconds / ROUND_TRIPS * 1e3
    finally:
        other.kill()
        other.join()
    return figures


def commits(folder: Path) -> dict[str, float]:
    """Measure group commits of planned and of finished steps by bare sqlite3, with the store's settings."""
    path = folder / "bare.db"
    bare = sqlite3.connect(path, isolation_level=None)
    sqlite_open.prepare(bare, path)
    figures = {}
    for number, (size, times) in enumerate(COMMITS.items(), 1):
        new = run(number)
        execute(bare, changes(new))
        [run_id] = new.new_runs
        seconds = []
        for at in range(times):
            planned = plan(run_id, 1 + at * size, size)
            for writes in (planned, finish(planned)):
                prepared = changes(writes)
                begun = time.perf_counter()
                execute(bare, prepared)
                seconds.append(time.perf_counter() - begun)
        figures[f"commit: ms, {size} rows"] = statistics.median(seconds) * 1e3
        figures[f"commit: rows/s, {size} a commit"] = size / statistics.median(seconds)
    bare.close()
    return figures


def limits() -> dict[str, float]:
    """Measure all."""
    with tempfile.TemporaryDirectory() as folder:
        return {**streams(), **commits(Path(folder))}


if __name__ == "__main__":
    for name, value in limits().items():
        sys.stdout.write(f"{name:36} {value:12,.2f}\n")
