"""What is printed of a run that is not its live tree: every step, the result, the failure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.highlighter import JSONHighlighter
from rich.text import Text

from stepwire.cli.as_json import plain
from stepwire.cli.block import Block
from stepwire.cli.tree import RunView
from stepwire.errors import Failure
from stepwire.records import Run, RunState, RunUpdate, Step
from stepwire.visible import escaped_json, one_line

SHORT_LINES = 20
"""After `--wait` and `watch` a result is cut to so many lines; `runs show` gives it whole."""


def whole_tree(run: Run, steps: Sequence[Step], width: int, now: datetime, *, every: bool) -> Group:
    """Draw a run's tree from its records, folded or with `every` step."""
    view = RunView()
    view.update(RunUpdate(run=run, steps=tuple(steps)))
    return view.render(width, now, lines=None if every else 40)


def result(run: Run, *, full: bool) -> RenderableType:
    """Say how a run ended: its output as JSON, or its failure with the stack; nothing if it has not ended."""
    if run.state is RunState.SUCCEEDED:
        return Group("", json_lines(plain(run.output), None if full else SHORT_LINES))
    if run.state is RunState.CANCELLED:
        return Text(f"\ncancelled: {one_line(run.cancel_reason)}" if run.cancel_reason else "\ncancelled", "yellow")
    if run.failure and run.state is RunState.FAILED:
        return Group("", *failure_parts(run.failure))
    return Text()


def json_lines(value: object, most: int | None) -> RenderableType:
    """Draw a value as indented JSON in at most `most` lines."""
    text = escaped_json(json.dumps(value, indent=2, ensure_ascii=False))
    lines = text.split("\n")
    if most is None or len(lines) <= most:
        drawn = JSONHighlighter()(text)
        drawn.no_wrap, drawn.overflow = True, None
        return drawn
    return Text("\n".join([*lines[: most - 1], f"… {len(lines) - most + 1:,} more lines; see `stepwire runs show`"]))


def failure_parts(failure: Failure) -> Iterator[RenderableType]:
    """Draw a failure with its stack and its causes. Only a type and the first line of a message are not indented."""
    prefix = ""
    one: Failure | None = failure
    while one:
        head, _, rest = str(one).partition("\n")
        yield Text(prefix).append(one_line(head), "bold red")
        if rest:
            yield Block(rest, "bold red")
        if one.stack:
            yield Block(one.stack.rstrip(), "dim")
        prefix, one = "caused by ", one.cause
