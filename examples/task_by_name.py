"""A step that is called by its name: any worker of the app that has the task may run it, in any language.

stepwire dev examples.task_by_name:app
stepwire send files/arrived --data '{"contents": ["a", "b"]}' --wait
"""

from __future__ import annotations

import asyncio
import hashlib

import stepwire

app = stepwire.App("checksums")


@app.task("sha256")
def sha256(content: str) -> str:
    """Hash a text. A task takes one value and needs no replay of the function that calls it."""
    return hashlib.sha256(content.encode()).hexdigest()


@app.function("hash-files", trigger=stepwire.on_event("files/arrived"))
async def hash_files(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
    """Call the task once for each file, all at once."""
    return await asyncio.gather(
        *[step.call("sha256", content, output_type=str) for content in ctx.event.data["contents"]]
    )
