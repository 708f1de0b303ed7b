"""Functions of the benchmark of many runs: they sleep until a time of day, and say when they went on."""

from __future__ import annotations

import time

import stepwire

app = stepwire.App("many")


@app.function("sleeper", trigger="many/sleep")
async def sleeper(ctx: stepwire.Context, step: stepwire.Step) -> float:
    """Sleep until a time; gives the one at which the body went on. Both are Unix seconds."""
    await step.sleep_until("sleep", ctx.event.data["until"])
    return time.time()
