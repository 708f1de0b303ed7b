from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
from rich.console import Console

from stepwire.cli import live
from stepwire.client import Client
from stepwire.errors import ExecutorError
from stepwire.records import Run, RunState, RunUpdate, StepKind, StepState
from tests.sdk_python.cli.test_tree import fan_out, run, step


class Source:
    """What a client's `watch` gives, with many small changes: only the stream, as the rest is not asked."""

    def __init__(self, changes: int, pause: float) -> None:
        self._changes = changes
        self._pause = pause

    async def watch(self, run_id: str) -> AsyncIterator[RunUpdate]:
        yield RunUpdate(run(), tuple(fan_out(10_000)))
        for index in range(self._changes):
            await asyncio.sleep(self._pause)
            yield RunUpdate(run(), (step("summarize-chunk", StepState.SUCCEEDED, index + 2, index),))
        yield RunUpdate(run(RunState.SUCCEEDED), ())


def terminal(height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80, height=height)


def written(console: Console) -> str:
    return cast(io.StringIO, console.file).getvalue()


async def test_a_terminal_is_not_flooded() -> None:
    """However many changes come, there are no more pictures than 8 a second, the first and the last."""
    console = terminal()
    begun = time.monotonic()
    source = cast(Client, Source(changes=400, pause=0.001))
    [ended] = await live.follow(source, [run().id], live.Tree(console, [run().id]))
    seconds = time.monotonic() - begun
    assert ended.state is RunState.SUCCEEDED
    text = written(console)
    assert text.count(run().id) <= seconds * live.REFRESHES_PER_SECOND + 4
    assert "✓ summarize-text  succeeded" in text


async def test_a_tree_fits_a_low_terminal() -> None:
    console = terminal(height=12)
    source = cast(Client, Source(changes=1, pause=0))
    await live.follow(source, [run().id], live.Tree(console, [run().id]))
    last = written(console).rsplit("✓ summarize-text", 1)[-1]
    assert len(last.splitlines()) <= 11


async def test_lines_are_few_and_tell_the_end() -> None:
    console = Console(file=io.StringIO(), width=200)
    source = cast(Client, Source(changes=400, pause=0))
    await live.follow(source, [run().id], live.Lines(console, [run().id]))
    lines = written(console).splitlines()
    assert len(lines) < 10
    assert "succeeded" in lines[-1]


async def test_an_error_of_one_of_several_watches_is_that_error() -> None:
    class Refusing(Source):
        async def watch(self, run_id: str) -> AsyncIterator[RunUpdate]:
            if run_id == "other":
                raise ExecutorError("NOT_FOUND", "there is no run 'other'")
            async for update in super().watch(run_id):
                yield update

    source: Any = Refusing(changes=1000, pause=0.01)
    with pytest.raises(ExecutorError, match="no run 'other'"):
        await live.follow(source, [run().id, "other"], live.Silence())


async def test_a_tree_asks_how_far_invoked_runs_have_come() -> None:
    class Parent(Source):
        async def watch(self, run_id: str) -> AsyncIterator[RunUpdate]:
            waits = step("bill", StepState.WAITING, 1, kind=StepKind.INVOKE, child_run_id="child")
            yield RunUpdate(run(), (waits,))
            async with asyncio.timeout(30):
                await asked.wait()
            yield RunUpdate(run(RunState.SUCCEEDED), ())

        async def get(self, run_id: str) -> Run:
            assert run_id == "child"
            asked.set()
            return replace(run(step_counts=Counter({StepState.SUCCEEDED: 412})), id="child")

    asked = asyncio.Event()
    console = terminal()
    await live.follow(cast(Client, Parent(0, 0)), [run().id], live.Tree(console, [run().id]))
    assert "1 invoked run: 412 done" in written(console)
