"""Functions that benchmarks need beyond those of `stepwire bench`."""

from __future__ import annotations

import asyncio
import hashlib
import time

import stepwire

app = stepwire.App("benchmarks")

GO_ON = "benchmarks/go-on"
"""Event for which `fan` and `chain` wait at their end when they are told to: the rest of them is a replay."""
LONGEST_SECONDS = 600.0


async def nothing(n: int) -> int:
    """Do nothing."""
    return n


def burn(seconds: float) -> int:
    """Burn so many seconds of CPU in this thread, with the GIL held; gives the number of hashes made.

    `hashlib` lets go of the GIL for 2,048 bytes and more only.
    """
    begun, made, digest = time.thread_time(), 0, b""
    while time.thread_time() - begun < seconds:
        for _ in range(100):
            digest = hashlib.sha256(digest).digest()
        made += 100
    return made


async def pause(seconds: float) -> None:
    """Wait as for I/O."""
    await asyncio.sleep(seconds)


async def large(size: int) -> str:
    """Give a value that takes so many bytes as JSON, its quotes included."""
    return "x" * (size - 2)


@app.function("fan", trigger="benchmarks/fan")
async def fan(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Run `count` steps in parallel, of `seconds` each if that is set; the last of them waits, if `wait` is set."""
    count, wait, seconds = int(ctx.event.data["count"]), bool(ctx.event.data.get("wait")), ctx.event.data.get("seconds")
    if seconds:
        await asyncio.gather(*[step.run("pause", pause, seconds) for _ in range(count - wait)])
    else:
        await asyncio.gather(*[step.run("nothing", nothing, n) for n in range(count - wait)])
    if wait:
        await step.wait_for_event("go-on", GO_ON, timeout=LONGEST_SECONDS)
    return count


@app.function("chain", trigger="benchmarks/chain")
async def chain(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Run `count` steps, one after the other, of `seconds` each if that is set; the last waits, if `wait` is set."""
    count, wait, seconds = int(ctx.event.data["count"]), bool(ctx.event.data.get("wait")), ctx.event.data.get("seconds")
    for n in range(count - wait):
        if seconds:
            await step.run("next", pause, seconds)
        else:
            await step.run("next", nothing, n)
    if wait:
        await step.wait_for_event("go-on", GO_ON, timeout=LONGEST_SECONDS)
    return count


@app.function("called")
async def called(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Be invoked, and do nothing."""
    return 1


@app.function("invokes", trigger="benchmarks/invokes")
async def invokes(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Invoke `count` runs, one after the other; the last step waits instead, if `wait` is set."""
    count, wait = int(ctx.event.data["count"]), bool(ctx.event.data.get("wait"))
    for _ in range(count - wait):
        await step.invoke("call", called)
    if wait:
        await step.wait_for_event("go-on", GO_ON, timeout=LONGEST_SECONDS)
    return count


@app.function("work", trigger="benchmarks/work")
async def work(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Burn CPU in `count` parallel steps of `seconds` each."""
    data = ctx.event.data
    hashes = await asyncio.gather(*[step.run("burn", burn, data["seconds"]) for _ in range(data["count"])])
    return len(hashes)


@app.function("wait", trigger="benchmarks/wait")
async def wait(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Wait in `count` parallel steps for `seconds` each."""
    data = ctx.event.data
    waited = await asyncio.gather(*[step.run("pause", pause, data["seconds"]) for _ in range(data["count"])])
    return len(waited)


@app.function("values", trigger="benchmarks/values")
async def values(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Take `count` values of `size` bytes from parallel steps."""
    data = ctx.event.data
    taken = await asyncio.gather(*[step.run("large", large, data["size"]) for _ in range(data["count"])])
    return len(taken)
