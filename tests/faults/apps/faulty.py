"""Functions that harm the process that they run in, and harmless ones to run beside them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import threading
import time
from pathlib import Path
from typing import Any

import stepwire
from tests.end_to_end.apps.flows import gate, note

app = stepwire.App("faulty")
SOON = stepwire.Retry(retries=2, initial_interval=0.05)


def die() -> None:
    """End the process as a crash in native code would."""
    note("begin")
    os._exit(1)


async def innocent(n: int, seconds: float) -> int:
    """Take a while."""
    note("begin")
    await asyncio.sleep(seconds)
    return n


async def settle(step: stepwire.Step, name: str, code: Any, *arguments: Any) -> Any:
    """Run a step; gives its output, or the type of the error that it ended with."""
    try:
        return await step.run(name, code, *arguments, retries=SOON)
    except stepwire.StepError as error:
        return error.failure.type


@app.function("poison", trigger="faulty/poison")
async def poison(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
    """One step that kills every worker among many that take a while."""
    count, seconds = ctx.event.data["count"], ctx.event.data["seconds"]
    innocents = [settle(step, "innocent", innocent, n, seconds) for n in range(count)]
    half = count // 2
    return list(await asyncio.gather(*innocents[:half], settle(step, "poison", die), *innocents[half:]))


@app.function("bystander", trigger="faulty/bystander")
async def bystander(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
    """Another run on the same workers."""
    return [await settle(step, "innocent", innocent, n, 0.1) for n in range(10)]


@app.function("lone", trigger="faulty/lone", retries=SOON)
async def lone(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """A lone step, which runs eagerly, kills."""
    await step.run("poison", die)


@app.function("once", trigger="faulty/once")
async def once(ctx: stepwire.Context, step: stepwire.Step) -> str:
    """A lone step, which must not begin twice, kills."""
    try:
        await step.run("poison", die, retries=0)
    except stepwire.StepError as error:
        return error.failure.type
    return "survived"


@app.function("body", trigger="faulty/body")
async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """The body itself kills."""
    os._exit(1)


def hoard() -> int:
    """Take more memory than the process may have."""
    note("begin")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), before[1]))
    try:
        return len(bytearray(1 << 32))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@app.function("memory", trigger="faulty/memory")
async def memory(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
    """A step that finds no memory."""
    return list(await asyncio.gather(settle(step, "hoard", hoard), settle(step, "innocent", innocent, 1, 0.1)))


def stubborn() -> int:
    """Never look whether it was cancelled."""
    note("begin")
    while not gate("open").exists():
        time.sleep(0.01)
    return threading.get_ident()


@app.function("stubborn", trigger="faulty/stubborn")
async def stubborn_function(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """A sync step that does not end."""
    await step.run("stubborn", stubborn)


async def stubborn_task() -> int:
    """Take no notice of being cancelled."""
    note("begin")
    while not gate("open").exists():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
    return 1


async def stubborn_thread() -> int:
    """Have a thread of the loop's at work, which can't be cancelled."""
    return await asyncio.to_thread(stubborn)


@app.function("stubborn-task", trigger="faulty/stubborn-task")
async def stubborn_task_function(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """An async step that does not end."""
    await step.run("stubborn", stubborn_task)


@app.function("stubborn-thread", trigger="faulty/stubborn-thread")
async def stubborn_thread_function(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """An async step that waits for a thread which does not end."""
    await step.run("stubborn", stubborn_thread)


@app.function("random", trigger="faulty/random")
async def random_ids(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Another id in every replay."""
    await step.run(f"step-{random.SystemRandom().getrandbits(64)}", innocent, 1, 0.0)
    return await step.run("die-once", die_once)


@app.function("set-order", trigger="faulty/set-order")
async def set_order(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Steps in the order of a set of strings, which is another one in every process."""
    for name in {f"step-{n}" for n in range(20)}:
        await step.run(name, innocent, 1, 0.0)
    return await step.run("die-once", die_once)


def die_once() -> int:
    """End the process at the first attempt: whoever comes after it replays."""
    if note("begin").number == 1:
        os._exit(1)
    return 1


@app.function("circle", trigger="faulty/circle")
async def circle(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    """Invoke itself."""
    return await step.invoke("again", "circle", None)


@app.function("unknown", trigger="faulty/unknown")
async def unknown(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    """Invoke a function that nobody serves."""
    return await step.invoke("nobody", "nobody", None)


async def grow(size: int) -> str:
    """Give much."""
    note("begin")
    return "x" * size


@app.function("large", trigger="faulty/large")
async def large(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
    """An output over the limit beside one that is not."""
    return list(await asyncio.gather(settle(step, "large", grow, 5 << 20), settle(step, "small", grow, 5)))
