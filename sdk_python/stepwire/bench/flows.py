"""Functions whose steps do nothing, so that what remains is Stepwire's own time."""

from __future__ import annotations

import asyncio

import stepwire

app = stepwire.App("bench")


async def nothing(n: int) -> int:
    """Do nothing."""
    return n


@app.function("fan", trigger="bench/fan")
async def fan(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Run many steps in parallel."""
    results = await asyncio.gather(*[step.run("nothing", nothing, n) for n in range(ctx.event.data["count"])])
    return len(results)


@app.function("chain", trigger="bench/chain")
async def chain(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """Run some steps, one after the other."""
    n = 0
    for _ in range(ctx.event.data["count"]):
        n = await step.run("next", nothing, n + 1)
    return n
