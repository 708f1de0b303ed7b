"""A function whose step makes a span of its own, exported by the worker's process."""

from __future__ import annotations

import asyncio

from opentelemetry import trace

import stepwire

app = stepwire.App("traced")
tracer = trace.get_tracer("user-code")


async def work(n: int) -> int:
    with tracer.start_as_current_span("inside the step"):
        if n == 1 and stepwire.current_attempt().number == 1:
            raise ValueError("once")
        return n


@app.function("traced", trigger="traced")
async def traced(ctx: stepwire.Context, step: stepwire.Step) -> int:
    first = await step.run("first", work, 0)
    rest = await asyncio.gather(*[step.run("rest", work, n, retries=stepwire.Retry(2, 0.01)) for n in range(1, 4)])
    return first + sum(rest)
