"""Stepwire's functions."""

from __future__ import annotations

import asyncio

import stepwire

app = stepwire.App("peers")


async def nothing(n: int) -> int:
    """Do nothing."""
    return n


@app.function("fan", trigger="peers/fan")
async def fan(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Run steps in parallel."""
    return sum(await asyncio.gather(*[step.run("nothing", nothing, n) for n in range(ctx.event.data["count"])]))


@app.function("chain", trigger="peers/chain")
async def chain(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Run steps one after the other."""
    n = 0
    for _ in range(ctx.event.data["count"]):
        n = await step.run("next", nothing, n + 1)
    return n
