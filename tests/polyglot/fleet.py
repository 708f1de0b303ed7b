"""One half of an app that TypeScript workers serve too (sdk_typescript/tests/apps/fleet.ts)."""

from __future__ import annotations

import asyncio
from typing import Any

import stepwire

app = stepwire.App("fleet")


@app.task("square")
async def square(n: int) -> dict[str, Any]:
    await asyncio.sleep(0.005)
    return {"square": n * n, "by": "python"}


@app.function("from-python", trigger="fleet/from-python")
async def from_python(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, Any]:
    numbers = range(ctx.event.data["count"])
    squares = await asyncio.gather(*[step.call("square", n) for n in numbers])
    total = await step.run("sum", lambda: sum(each["square"] for each in squares))
    return {"sum": total, "by": [each["by"] for each in squares]}
