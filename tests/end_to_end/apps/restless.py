"""Functions whose bodies do not come to rest, or do not want to end."""

from __future__ import annotations

import asyncio
import time

import stepwire

app = stepwire.App("restless")


async def work(seconds: float = 0.1) -> int:
    await asyncio.sleep(seconds)
    return 1


@app.function("polls", trigger="restless/polls")
async def polls(ctx: stepwire.Context, step: stepwire.Step) -> int:
    task = asyncio.create_task(step.run("work", work))
    while not task.done():  # noqa: ASYNC110 - this is the point
        await asyncio.sleep(0)
    return task.result()


@app.function("polls-slowly", trigger="restless/polls-slowly", timeout=1)
async def polls_slowly(ctx: stepwire.Context, step: stepwire.Step) -> None:
    task = asyncio.create_task(step.run("work", work, 60.0))
    while not task.done():
        time.sleep(0.05)  # noqa: ASYNC251
        await asyncio.sleep(0)


@app.function("asks-for-nothing", trigger="restless/asks-for-nothing")
def asks_for_nothing(ctx: stepwire.Context, step: stepwire.SyncStep) -> None:
    while True:
        step.map("a", work, [])


@app.function("maps-nothing", trigger="restless/maps-nothing")
async def maps_nothing(ctx: stepwire.Context, step: stepwire.Step) -> None:
    task = asyncio.create_task(step.run("work", work))
    while not task.done():
        await step.map("a", work, [])


@app.function("swallows", trigger="restless/swallows")
async def swallows(ctx: stepwire.Context, step: stepwire.Step) -> None:
    while True:
        try:
            await step.run("poll", work)
            await step.sleep("pause", 60)
        except:  # noqa: E722
            pass


@app.function("swallows-in-a-thread", trigger="restless/swallows-in-a-thread")
def swallows_in_a_thread(ctx: stepwire.Context, step: stepwire.SyncStep) -> None:
    while True:
        try:
            step.run("poll", work)
            step.sleep("pause", 60)
        except:  # noqa: E722
            pass


@app.function("plain", trigger="restless/plain")
async def plain(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return await step.run("work", work)
