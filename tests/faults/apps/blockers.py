"""Steps that take the event loop, or the whole interpreter, from the worker they run in."""

from __future__ import annotations

import asyncio
import math
import re
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


def match(size: int) -> float:
    """Match a text of so many letters; gives the seconds that it took."""
    begun = time.monotonic()
    re.match(r"(a+)+$", "a" * size + "b")
    return time.monotonic() - begun


def hold_interpreter(seconds: float) -> int:
    """Match a bad pattern at the first attempt: for so long, or up to twice as long, no other thread runs."""
    attempt = note("begin")
    if attempt.number == 1:
        size, taken = 16, 0.0
        while taken < seconds / 16:
            size += 1
            taken = match(size)
        match(size + math.ceil(math.log2(seconds / taken)))  # each letter doubles the time
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
