"""Functions in which everything that goes by a clock is under way at once."""

from __future__ import annotations

import asyncio
from typing import Any

import stepwire
from tests.end_to_end.apps.flows import fail_until, wait_at_gate, work

app = stepwire.App("timed")
SHORT_SECONDS = 3.0
LONG_SECONDS = 3600.0
BACKOFF = stepwire.Retry(retries=1, initial_interval=SHORT_SECONDS)


@app.function("all", trigger=stepwire.on_event("timed/all"), timeout=LONG_SECONDS)
async def everything(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
    """Attempts, backoffs, waits for events, timeouts, long and short, and a sleep."""
    (paid, missed), opened, attempts, overdue, _ = await asyncio.gather(
        asyncio.gather(
            step.wait_for_event("paid", "timed/paid", timeout=LONG_SECONDS),
            step.wait_for_event("missed", "timed/missed", timeout=SHORT_SECONDS),
        ),
        step.run("gate", wait_at_gate, "open", attempt_timeout=LONG_SECONDS, timeout=LONG_SECONDS),
        asyncio.gather(*[step.run("backoff", fail_until, 2, retries=BACKOFF) for _ in range(5)]),
        asyncio.gather(
            step.run("overdue", work, 1, 60.0, attempt_timeout=SHORT_SECONDS, retries=0),
            step.run("late", work, 1, 60.0, timeout=SHORT_SECONDS),
            return_exceptions=True,
        ),
        step.sleep("nap", ctx.event.data["nap"]),
    )
    return [paid.data if paid else None, missed, opened > 0, attempts, [type(each).__name__ for each in overdue]]


@app.function("steps", trigger=stepwire.on_event("timed/steps"))
async def steps(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """One step after the other, with a short sleep."""
    total = 0
    for n in range(5):
        total += await step.run("work", work, n)
    await step.sleep("nap", 0.2)
    return total
