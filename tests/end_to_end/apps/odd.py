"""Functions that do what they should not."""

from __future__ import annotations

import asyncio
import time

import stepwire

app = stepwire.App("odd")


async def double(n: int) -> int:
    return n * 2


async def block(seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251 - this is the point
    return "done"


@app.function("no-steps", trigger="odd/no-steps")
async def no_steps(ctx: stepwire.Context, step: stepwire.Step) -> str:
    return "nothing to do"


@app.function("too-many", trigger="odd/too-many")
async def too_many(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return len(await asyncio.gather(*[step.run("double", double, n) for n in range(100_001)]))


@app.function("blocks", trigger="odd/blocks")
async def blocks(ctx: stepwire.Context, step: stepwire.Step) -> list[object]:
    return list(
        await asyncio.gather(step.run("block", block, ctx.event.data["seconds"]), step.run("double", double, 1))
    )


@app.function("body-blocks", trigger="odd/body-blocks")
async def body_blocks(ctx: stepwire.Context, step: stepwire.Step) -> int:
    time.sleep(ctx.event.data["seconds"])  # noqa: ASYNC251
    return await step.run("double", double, 4)


@app.function("waits-for-nothing", trigger="odd/waits-for-nothing")
async def waits_for_nothing(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await asyncio.Event().wait()


@app.function("foreign", trigger="odd/foreign")
async def foreign(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return await asyncio.to_thread(lambda: 1)


@app.function("nested", trigger="odd/nested")
async def nested(ctx: stepwire.Context, step: stepwire.Step) -> int:
    async def outer() -> int:
        return await step.run("inner", double, 1)

    return await step.run("outer", outer)


@app.function("odd-id", trigger="odd/odd-id")
async def odd_id(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return await step.run(ctx.event.data["id"], double, 21)
