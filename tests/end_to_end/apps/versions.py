"""An app in two versions, whose steps differ: neither could go on with a run of the other."""

from __future__ import annotations

import os

import stepwire

VERSION = os.environ["APP_VERSION"]
app = stepwire.App("versions", version=VERSION)


def version() -> str:
    return VERSION


@app.function("work", trigger="versions/begun", retries=0)
async def work(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
    began = await step.run(f"begin in version {VERSION}", version)
    await step.wait_for_event("go on", "versions/went-on", match={"run": ctx.event.data["run"]})
    ended = await step.parallel([lambda: step.run("end", version), lambda: step.run("end", version)])
    return [began, *ended]
