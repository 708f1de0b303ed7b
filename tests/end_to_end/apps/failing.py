"""Functions whose failures the logs must tell."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import stepwire

app = stepwire.App("failing")
POLICY = stepwire.Retry(retries=1, initial_interval=0.01, maximum_interval=0.02)
library = logging.getLogger("some.library")


def breaks() -> None:
    library.info("looking up", extra={"customer": 7})
    raise ValueError("no such customer")


@app.task("breaks-as-task")
def breaks_as_task(data: object) -> None:
    raise ValueError("no such customer")


@app.function("step-fails", trigger="step-fails", retries=0)
async def step_fails(ctx: stepwire.Context, step: stepwire.Step) -> None:
    ctx.logger.info("it begins", extra={"customer": 8})
    await step.run("look-up", breaks, retries=POLICY)


@app.function("task-fails", trigger="task-fails", retries=0)
async def task_fails(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.call("breaks-as-task", retries=POLICY)


@app.function("body-fails", trigger="body-fails", retries=POLICY)
def body_fails(ctx: stepwire.Context, step: stepwire.SyncStep) -> None:
    raise LookupError("the body is broken")


@app.function("too-slow", trigger="too-slow", retries=0)
async def too_slow(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("nap", asyncio.sleep, 60, attempt_timeout=0.05, retries=0)


@app.function("goes-well", trigger="goes-well")
async def goes_well(ctx: stepwire.Context, step: stepwire.Step) -> str:
    return await step.run("fine", str, 1)


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.function("step-dies", trigger="step-dies")
async def step_dies(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("poison", dies, retries=0)
