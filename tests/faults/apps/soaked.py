"""What a soak asks for beside flows.py. The other half is TypeScript: sdk_typescript/tests/apps/soaked.ts."""

from __future__ import annotations

import asyncio
from typing import Any

import stepwire
from tests.end_to_end.apps.flows import SOON, app, note, work
from tests.end_to_end.apps.raising import ODD


@app.function("row", trigger="flows/row")
async def row(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """Invoke functions one after the other, of Python and of TypeScript in turn."""
    count = ctx.event.data["count"]
    return [await step.invoke("child", "ts-child" if n % 2 else "child", {"n": n}) for n in range(count)]


def raise_at_first(kind: str) -> int:
    """Raise oddly at the first attempt."""
    if note("begin").number == 1:
        raise ODD[kind]()
    return 1


@app.function("odd", trigger="flows/odd", retries=SOON)
async def odd(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    """A step and a body that raise what nobody expects, and are tried again."""
    kind = ctx.event.data["kind"]
    await step.run("odd", raise_at_first, kind, retries=SOON)
    if ctx.attempt == 1:
        raise ODD[kind]()
    return kind


@app.function("polls", trigger="flows/polls", retries=0)
async def polls(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """A body that does not come to rest."""
    task = asyncio.create_task(step.run("work", work, 1))
    while not task.done():  # noqa: ASYNC110 - this is the point
        await asyncio.sleep(0)
    return task.result()
