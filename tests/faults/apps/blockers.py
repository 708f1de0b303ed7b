"""Steps that take the event loop, or the whole interpreter, from the worker they run in."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time

import stepwire
from tests.end_to_end.apps.flows import SOON, note, work

app = stepwire.App("flows")


async def block_loop(seconds: float) -> int:
    """What nobody should write."""
    note("begin")
    time.sleep(seconds)  # noqa: ASYNC251 - this is the fault
    note("end")
    return 1


async def where() -> int:
    """Give the process where the step runs."""
    note("begin")
    note("end")
    return os.getpid()


def hold_interpreter(seconds: float) -> int:
    """Wait in native code at the first attempt, as bad native code does: no other thread runs meanwhile."""
    attempt = note("begin")
    if attempt.number == 1:
        ctypes.PyDLL(None).poll(None, 0, int(seconds * 1000))  # PyDLL keeps the interpreter's lock
    note("end")
    return 1


@app.function("block", trigger=stepwire.on_event("flows/block"))
async def block(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """One step blocks the loop, another one does not."""
    seconds = ctx.event.data["seconds"]
    return await asyncio.gather(step.run("block", block_loop, seconds, retries=SOON), step.run("beside", work, 1))


@app.function("hold", trigger=stepwire.on_event("flows/hold"))
async def hold(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """One step holds the interpreter, another one does not."""
    seconds = ctx.event.data["seconds"]
    return await asyncio.gather(step.run("hold", hold_interpreter, seconds, retries=SOON), step.run("beside", work, 1))


@app.function("parked", trigger=stepwire.on_event("flows/parked"))
async def parked(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """Wait for an event; gives the processes where the body was first and last."""
    first = await step.run("first", where)
    await step.wait_for_event("go", "flows/go")
    return [first, os.getpid()]


@app.function("blocking-body", trigger=stepwire.on_event("flows/blocking-body"))
async def blocking_body(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """Block the loop in the body itself, after an event."""
    await step.wait_for_event("block", "flows/block-now")
    time.sleep(ctx.event.data["seconds"])  # noqa: ASYNC251 - this is the fault
