"""A function that comes to wait for one thing after the other, each until a test lets it go on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import stepwire
from tests.end_to_end.apps.flows import wait_at_gate

app = stepwire.App("moves")


def fail() -> None:
    """Fail, and ask for a retry that is far away."""
    raise stepwire.RetryAfterError("the bank is closed", 3600)


async def until_told(step: stepwire.Step, name: str, work: Coroutine[Any, Any, Any]) -> None:
    """Let `work` go on until an event is sent."""
    told = asyncio.create_task(step.wait_for_event(f"told-{name}", f"moves/{name}"))
    doing = asyncio.create_task(work)
    await asyncio.wait({told, doing}, return_when=asyncio.FIRST_COMPLETED)
    doing.cancel()


@app.function("job", trigger=stepwire.on_event("moves/job"))
async def job(ctx: stepwire.Context, step: stepwire.Step) -> str:
    """Wait for a slot, a retry, a sleep and another run."""
    await asyncio.gather(*[step.run("held", wait_at_gate, name) for name in ("one", "two")])
    await until_told(step, "retry", step.run("pay", fail))
    await until_told(step, "sleep", step.sleep("nap", 3600))
    await step.invoke("child", inner)
    return "done"


@app.function("inner")
async def inner(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """What the job invokes."""
    await step.run("deep", wait_at_gate, "deep")
