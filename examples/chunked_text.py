"""A text cut into chunks, each worked on in parallel, at most eight at a time.

stepwire dev examples.chunked_text:app
stepwire send text/submitted --data '{"text": "one two three four"}' --wait
"""

from __future__ import annotations

import stepwire

app = stepwire.App("chunked-text")

WORDS_A_CHUNK = 100


def split(text: str) -> list[str]:
    """Cut a text into chunks of `WORDS_A_CHUNK` words."""
    words = text.split()
    return [" ".join(words[start : start + WORDS_A_CHUNK]) for start in range(0, len(words), WORDS_A_CHUNK)]


def longest_word(chunk: str) -> str:
    """Find the longest word of a chunk; the first of several."""
    return max(chunk.split(), key=len)


@app.function("longest-word", trigger=stepwire.on_event("text/submitted"))
async def find_longest_word(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, object]:
    """`step.map` starts one step for each chunk and gives the results in order."""
    chunks = await step.run("split", split, ctx.event.data["text"])
    words = await step.map("longest-in-chunk", longest_word, chunks, concurrency=8)
    return {"chunks": len(chunks), "longest": max(words, key=len)}
