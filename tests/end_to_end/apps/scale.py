"""A wide fan-out, and a wait after it: what comes then needs the whole journal."""

from __future__ import annotations

import asyncio

import stepwire

app = stepwire.App("scale")


async def double(n: int) -> int:
    return n * 2


@app.function("wide", trigger="scale/wide")
async def wide(ctx: stepwire.Context, step: stepwire.Step) -> int:
    count = ctx.event.data["count"]
    doubled = await asyncio.gather(*[step.run("double", double, n) for n in range(count)])
    await step.wait_for_event("go-on", "scale/go-on", timeout=300)
    return await step.run("sum", sum, doubled)
