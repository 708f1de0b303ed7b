"""One function sends events, which start many runs of another; each reports back with an event of its own.

stepwire dev examples.fan_out_by_events:app
stepwire send newsletter/requested --data '{"users": ["ada", "grace", "edsger"]}' --wait
"""

from __future__ import annotations

import asyncio

import stepwire

app = stepwire.App("newsletter")


def render(user: str) -> str:
    """Write a user's letter."""
    return f"Dear {user}, here is what is new."


@app.function("send-newsletter", trigger=stepwire.on_event("newsletter/requested"))
async def send_newsletter(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
    """The events are sent once, however often this body is replayed."""
    users = ctx.event.data["users"]
    request = ctx.run_id
    waits = [
        asyncio.create_task(
            step.wait_for_event(
                "delivered", "newsletter/delivered", match={"user": user, "request": request}, timeout=60
            )
        )
        for user in users
    ]
    await step.send_events("fan-out", [("newsletter/user", {"user": user, "request": request}) for user in users])
    delivered = await asyncio.gather(*waits)
    return [event.data["user"] for event in delivered if event is not None]


@app.function("send-to-user", trigger=stepwire.on_event("newsletter/user"))
async def send_to_user(ctx: stepwire.Context, step: stepwire.Step) -> str:
    """One run for each user."""
    letter = await step.run("render", render, ctx.event.data["user"])
    await step.send_events("report", [("newsletter/delivered", ctx.event.data)])
    return letter
