"""The demo's function: cut a text, summarise the chunks in parallel, summarise the summaries."""

from __future__ import annotations

import os
import time
from pathlib import Path
from pydoc_data.topics import topics

import stepwire
from examples.demo.summary import summarize

CHUNK_CHARACTERS = 7_000
FAILING_CHUNK = 5
"""The summary of this chunk fails at its first attempt."""
PAUSE_SECONDS = 0.5
"""Each summary takes this much longer than it needs, so that there is something to watch, and to kill."""

app = stepwire.App("demo")


def read(path: str | None) -> str:
    """Read the text: a file, or the language reference that every CPython carries."""
    return Path(path).read_text(errors="replace") if path else "\n\n".join(topics[name] for name in sorted(topics))


def split(path: str | None) -> list[str]:
    """Cut the text at paragraphs into chunks of about `CHUNK_CHARACTERS`."""
    chunks = [""]
    for paragraph in read(path).split("\n\n"):
        if len(chunks[-1]) > CHUNK_CHARACTERS:
            chunks.append("")
        chunks[-1] += paragraph + "\n\n"
    return chunks


def summarize_chunk(number: int, chunk: str) -> list[str]:
    """Summarise one chunk, and write down that the attempt was begun."""
    attempt = stepwire.current_attempt()
    with Path(os.environ["DEMO_LOG"]).open("a") as log:
        log.write(f"{attempt.index} {attempt.number} {os.getpid()}\n")
    time.sleep(PAUSE_SECONDS)
    if number == FAILING_CHUNK and attempt.number == 1:
        raise ConnectionError("injected by the demo: the summary service did not answer")
    return summarize(chunk, 3)


def summarize_summaries(summaries: list[list[str]]) -> list[str]:
    """Summarise what the chunks gave, each sentence once."""
    lines = dict.fromkeys(line for summary in summaries for line in summary)
    return summarize("\n".join(lines), 5)


@app.function("summarize-text", trigger=stepwire.on_event("demo/text.submitted"))
async def summarize_text(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, object]:
    """Summarise a text in three stages; the middle one is as parallel as the workers allow."""
    chunks = await step.run("split", split, ctx.event.data["path"])
    summaries = await step.parallel(
        *[
            lambda n=n, chunk=chunk: step.run("summarize-chunk", summarize_chunk, n, chunk)
            for n, chunk in enumerate(chunks)
        ]
    )
    summary = await step.run("summarize-summaries", summarize_summaries, summaries)
    return {"chunks": len(chunks), "characters": sum(map(len, chunks)), "summary": summary}
