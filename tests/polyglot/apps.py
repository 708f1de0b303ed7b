"""What the generated clients ask for."""

from __future__ import annotations

import stepwire

app = stepwire.App("greetings")


@app.function("greet", trigger=stepwire.on_event("greeting/wanted"))
async def greet(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, str]:
    name = ctx.event.data["name"]
    return {"greeting": await step.run("write", lambda: f"Hello, {name}!")}


@app.function("fill", trigger=stepwire.on_event("output/wanted"))
async def fill(ctx: stepwire.Context, step: stepwire.Step) -> str:
    size: int = ctx.event.data["bytes"]
    return "x" * (size - len('""'))


@app.function("insult", trigger=stepwire.on_event("insult/wanted"))
async def insult(ctx: stepwire.Context, step: stepwire.Step) -> None:
    raise stepwire.NonRetriableError("we are polite here")
