"""Attacks by connections, open calls, and fair load; and none at all, for comparison."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import grpc

import stepwire
from benchmarks.attacks.target import APP, CONNECT, Target
from stepwire.testing import WorkerThread

STREAMS, CONNECTIONS = 10_000, 500
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What a client begins a connection of HTTP/2 with: no setting is changed."""
OPENING_SECONDS = 5.0
WIDTH = 10_000

fair = stepwire.App(APP)


async def nothing(n: int) -> int:
    """Do nothing."""
    return n


@fair.function("fan", trigger=f"{APP}/fan")
async def fan(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Run so many steps in parallel."""
    await asyncio.gather(*[step.run("nothing", nothing, n) for n in range(ctx.event.data)])
    return int(ctx.event.data)


async def burn(target: Target) -> None:
    """Burn CPU, and leave the executor alone."""
    target.begun.set()
    while True:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
        await asyncio.sleep(0)


async def fan_outs(target: Target) -> None:
    """Run fan-outs of 10,000 steps, one after the other, as an honest app may."""
    with WorkerThread(fair, target.address, slots=32):
        async with stepwire.Client(target.address) as client:
            while True:
                receipt = await client.send(f"{APP}/fan", WIDTH)
                target.begun.set()
                await client.result(receipt.run_ids[0], 600)
                target.outcomes["OK"] += 1


async def open_streams(target: Target) -> None:
    """Hold 10,000 calls open on one connection: workers that say no Hello, and clients that wait for no run."""
    async with target.channel() as channel:

        async def hold(number: int) -> None:
            method = "/stepwire.v1.RunService/WaitRuns" if number % 2 else CONNECT
            while True:
                made: Any = channel.stream_stream(method)
                call = made(metadata=target.token)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call.read()
                await target.note(await call.code())

        holding = asyncio.gather(*[hold(number) for number in range(STREAMS)])
        await asyncio.sleep(OPENING_SECONDS)
        target.begun.set()
        await holding


async def silent_connections(target: Target) -> None:
    """Hold 500 connections open that say nothing, or nothing beyond HTTP/2's first words."""
    host, _, port = target.address.rpartition(":")

    async def hold(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, int(port))
                if number % 2:
                    writer.write(PREFACE)
                while await reader.read(1 << 16):
                    pass
                writer.close()
            target.outcomes["closed"] += 1

    holding = asyncio.gather(*[hold(number) for number in range(CONNECTIONS)])
    await asyncio.sleep(1)
    target.begun.set()
    await holding
