"""One half of an app that TypeScript workers serve too (sdk_typescript/tests/apps/fleet.ts)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import stepwire

app = stepwire.App("fleet")


@app.task("square")
async def square(asked: dict[str, Any]) -> dict[str, Any]:
    """Square a number, once a gate is open, if there is one: a file."""
    await asyncio.sleep(0.005)
    gate = Path(asked["gate"])  # the current folder if it is empty
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - another process opens the gate
        await asyncio.sleep(0.01)
    return {"square": asked["n"] ** 2, "by": "python"}


@app.function("from-python", trigger="fleet/from-python")
async def from_python(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, Any]:
    count, gate = ctx.event.data["count"], ctx.event.data["gate"]
    asked = [{"n": n, "gate": gate if n >= count / 2 else ""} for n in range(count)]
    squares = await asyncio.gather(*[step.call("square", each) for each in asked])
    total = await step.run("sum", lambda: sum(each["square"] for each in squares))
    return {"sum": total, "by": [each["by"] for each in squares]}
