"""A function whose body sets a context variable, and steps and a task that look for it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import stepwire

app = stepwire.App("contexts")
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


async def seen() -> str:
    return tenant.get()


def seen_by_a_thread() -> str:
    return tenant.get()


@app.task("look")
async def look(_: None) -> str:
    return tenant.get()


@app.function("looks", trigger="looks")
async def looks(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, object]:
    begins_with = tenant.get()
    tenant.set("acme")
    lone = await step.run("lone", seen)
    threaded = await step.run("threaded", seen_by_a_thread)
    together = await asyncio.gather(step.run("a", seen), step.run("b", seen_by_a_thread), step.call("look", None))
    return {"begins_with": begins_with, "lone": lone, "threaded": threaded, "together": together, "body": tenant.get()}


@app.function("looks-too", trigger="looks-too")
def looks_too(ctx: stepwire.Context, step: stepwire.SyncStep) -> list[str]:
    begins_with = tenant.get()
    tenant.set("acme")
    return [begins_with, step.run("lone", seen), step.run("threaded", seen_by_a_thread), tenant.get()]
