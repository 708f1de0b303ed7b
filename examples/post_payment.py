"""Two steps in parallel after a payment, with asyncio.gather.

stepwire dev examples.post_payment:app
stepwire send stripe/charge.created --data '{"user_id": "u-1", "amount": 4200}' --wait
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import stepwire

app = stepwire.App("signup-flow")


@dataclass
class Receipt:
    """What was sent to whom. A step's annotation brings the type back, live and in replay."""

    user_id: str
    amount_cents: int


async def update_user(user_id: str) -> str:
    """Mark a user as paying."""
    await asyncio.sleep(0.05)
    return f"{user_id} is a customer"


async def send_email(user_id: str, amount_cents: int) -> Receipt:
    """Send the receipt."""
    await asyncio.sleep(0.05)
    return Receipt(user_id, amount_cents)


@app.function("post-payment-flow", trigger=stepwire.on_event("stripe/charge.created"))
async def post_payment(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, object]:
    """Both steps run at once, on whichever workers have room; the function goes on with both results."""
    user_id, amount = ctx.event.data["user_id"], ctx.event.data["amount"]
    updated, receipt = await asyncio.gather(
        step.run("update-user", update_user, user_id),
        step.run("send-email", send_email, user_id, amount),
    )
    return {"updated": updated, "sent_cents": receipt.amount_cents}
