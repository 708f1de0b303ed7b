"""Functions with large events and with long pauses, beside those of flows.py."""

from __future__ import annotations

from typing import Any

import stepwire
from tests.end_to_end.apps.flows import app, note


@app.function("heavy", trigger=stepwire.on_event("flows/heavy"))
async def heavy(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    """A function whose event is large."""
    return await step.run("length", length, ctx.event.data["text"])


async def length(text: str) -> int:
    """Measure a text."""
    note("begin")
    return len(text)


async def fail_once(pause: float) -> int:
    """Fail at the first attempt, and ask for the next after a pause; gives the number of the one that did not."""
    number = note("begin").number
    if number == 1:
        raise stepwire.RetryAfterError("injected", pause)
    return number


@app.function("waits-to-retry", trigger=stepwire.on_event("flows/waits-to-retry"))
async def waits_to_retry(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    """A step that fails once, and is tried again after a given time."""
    return await step.run("again", fail_once, ctx.event.data["seconds"])
