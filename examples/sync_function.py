"""An ordinary function without async: steps return their results, `step.parallel` still fans out.

stepwire dev examples.sync_function:app
stepwire send order/placed --data '{"items": ["lamp", "chair"]}' --wait
"""

from __future__ import annotations

import stepwire

app = stepwire.App("orders")

PRICES = {"lamp": 30, "chair": 80}


def reserve(item: str) -> str:
    """Reserve an item."""
    return f"reserved {item}"


def price(item: str) -> int:
    """Look up a price."""
    return PRICES[item]


@app.function("place-order", trigger=stepwire.on_event("order/placed"))
def place_order(ctx: stepwire.Context, step: stepwire.SyncStep) -> dict[str, object]:
    """Each branch may hold several steps, one after the other."""

    def handle(item: str) -> int:
        step.run("reserve", reserve, item)
        return step.run("price", price, item)

    prices = step.parallel(*[lambda item=item: handle(item) for item in ctx.event.data["items"]])
    return {"total": sum(prices)}
