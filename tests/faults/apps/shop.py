"""An app for tests in which only the way to the executor matters."""

from __future__ import annotations

import stepwire

app = stepwire.App("shop")


@app.function("double", trigger=stepwire.on_event("shop/double"))
async def double(ctx: stepwire.Context, step: stepwire.Step) -> int:
    number = ctx.event.data["n"]
    return await step.run("double", lambda: number * 2)
