"""One fan-out over two languages: the function is Python's, its tasks are called by name and run wherever there is one.

This worker, examples/go_worker and examples/rust_worker have the tasks `sha256` and `word-count`; only Go has
`resize-image`.

stepwire dev examples.mixed_languages:app
cd examples/go_worker && go run .
stepwire send album/arrived --data '{"notes": ["the sea", "the sun"], "pictures": []}' --wait
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections import Counter
from typing import TypedDict

import stepwire

app = stepwire.App("albums")


class Picture(TypedDict):
    """What is kept of a picture."""

    sha256: str
    thumbnail: str
    """PNG, in base64."""


@app.task("sha256")
def sha256(content: bytes) -> str:
    """Hash bytes, which travel between the languages as they are."""
    return hashlib.sha256(content).hexdigest()


@app.task("word-count")
def word_count(text: str) -> dict[str, int]:
    """Say how often each word of a text occurs, in lower case."""
    return Counter(re.findall(r"[^\W\d_]+", text.lower()))


@app.function("file-album", trigger=stepwire.on_event("album/arrived"))
async def file_album(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, object]:
    """Hash and shrink all pictures and count the words of all notes, all at once."""

    async def file_picture(image: str) -> Picture:
        digest, thumbnail = await asyncio.gather(
            step.call("sha256", base64.b64decode(image), output_type=str),
            step.call("resize-image", {"image": image, "width": ctx.event.data.get("width", 64)}, output_type=bytes),
        )
        return {"sha256": digest, "thumbnail": base64.b64encode(thumbnail).decode()}

    counts, pictures = await asyncio.gather(
        asyncio.gather(
            *[step.call("word-count", note, output_type=dict[str, int]) for note in ctx.event.data["notes"]]
        ),
        asyncio.gather(*[file_picture(image) for image in ctx.event.data["pictures"]]),
    )
    words = sum((Counter(count) for count in counts), Counter[str]())
    return {"words": words, "pictures": pictures}
