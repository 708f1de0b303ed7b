"""Ask two services and take the first answer; the other step is cancelled, in every replay the same one.

stepwire dev examples.race:app
stepwire send quote/wanted --data '{"article": "lamp"}' --wait
"""

from __future__ import annotations

import asyncio

import stepwire

app = stepwire.App("quotes")


async def ask(service: str, article: str, delay_seconds: float) -> dict[str, str]:
    """Ask a service, which takes its time."""
    await asyncio.sleep(delay_seconds)
    return {"service": service, "article": article}


@app.function("first-quote", trigger=stepwire.on_event("quote/wanted"))
async def first_quote(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, str]:
    """`race` returns the first result and cancels the rest."""
    article = ctx.event.data["article"]
    return await step.parallel(
        lambda: step.run("ask-swift", ask, "swift", article, 0.05),
        lambda: step.run("ask-sleepy", ask, "sleepy", article, 30.0),
        race=True,
    )
