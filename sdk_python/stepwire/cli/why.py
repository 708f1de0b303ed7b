"""`stepwire why`: what a run waits for, as a tree of causes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stepwire.cli import words
from stepwire.cli.output import (
    DEFAULT_EXECUTOR,
    ExecutorOption,
    JsonOption,
    ask,
    hints,
    make_console,
    print_json,
    screen,
)
from stepwire.cli.runs import RunIdArgument
from stepwire.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

    from stepwire.client import Client
    from stepwire.records import Cause

FOLLOW_SECONDS = 1.0
"""How often `--follow` asks."""
RECONNECT_SECONDS = 30.0
"""For how long `--follow` asks an executor that does not answer any more."""
LONGEST_LINE = 10_000
"""Characters of a line without a terminal: other programs read whole lines."""

_RUN_ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b")
_NUMBERS = re.compile(r"\d+(\.\d+)?")
STYLES = {
    "ended": "bold",
    "store_failing": "red",
    "store_slow": "red",
    "executor_draining": "yellow",
    "executor_busy": "yellow",
    "no_worker": "yellow",
    "no_task_worker": "yellow",
    "workers_full": "yellow",
    "no_slot": "yellow",
    "body_retry": "yellow",
    "step_retry": "yellow",
    "worker_draining": "yellow",
    "worker_lost": "red",
    "worker_silent": "red",
    "worker_blocked": "red",
}
"""By the kind of a cause; what is well and only takes its time has no colour."""

ADVICE = {
    "no_worker": "start a worker that serves it: stepwire worker module:app (stepwire workers lists who is there)",
    "no_task_worker": "start a worker that has the task (stepwire workers lists who is there)",
    "workers_full": "start more workers, or raise --max-invocations of stepwire worker",
    "no_slot": "start more workers, or raise --slots of stepwire worker",
    "worker_blocked": "give blocking code a thread: make the step's function a plain def",
    "store_failing": "see the executor's log; it goes on by itself once the store is writable",
    "executor_draining": "start the executor again: runs go on where they are",
}
"""What people can do about a cause."""


def why(
    run: RunIdArgument,
    executor: ExecutorOption = DEFAULT_EXECUTOR,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Ask again, until the run has ended.", show_default=False)
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a run waits for: a slot, a retry, an event, a worker that is not there; or how it ended."""
    console = screen()
    if not console.is_terminal:
        console = make_console(width=LONGEST_LINE)
    if follow:
        ask(executor, lambda client: follow_causes(client, run, console, as_json))
        return
    causes = ask(executor, lambda client: client.why(run))
    show(console, run, causes, as_json)
    if not as_json:
        advise(causes)


async def follow_causes(client: Client, run_id: str, console: Console, as_json: bool) -> None:
    """Show the causes until the run has ended: drawn anew on a terminal, else whenever they change."""
    if console.is_terminal and not as_json:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            async for causes in answers(client, run_id):
                live.update(tree(run_id, causes, datetime.now(UTC)), refresh=True)
        return
    before: object = None
    async for causes in answers(client, run_id):
        if (now := look(causes)) != before:
            before = now
            show(console, run_id, causes, as_json)


async def answers(client: Client, run_id: str) -> AsyncIterator[list[Cause]]:
    """Ask again and again, also over restarts of the executor, until the run has ended."""
    import asyncio

    from stepwire.errors import ExecutorError

    clock = asyncio.get_running_loop().time
    heard_at: float | None = None
    while True:
        try:
            causes = await client.why(run_id)
        except ExecutorError as error:
            if error.code != "UNAVAILABLE" or heard_at is None or clock() > heard_at + RECONNECT_SECONDS:
                raise
        else:
            heard_at = clock()
            yield causes
            if causes[0].kind.value == "ended":
                return
        await asyncio.sleep(FOLLOW_SECONDS)


def look(causes: Sequence[Cause]) -> object:
    """Give what stays the same while nothing but time goes on."""
    return [(each.kind, each.step, each.step_count, each.worker, each.run_id, look(each.causes)) for each in causes]


def show(console: Console, run_id: str, causes: Sequence[Cause], as_json: bool) -> None:
    """Print the causes once."""
    if as_json:
        from stepwire.cli.as_json import plain

        print_json({"run_id": run_id, "causes": plain(causes)})
    else:
        console.print(tree(run_id, causes, datetime.now(UTC)))


def tree(run_id: str, causes: Sequence[Cause], now: datetime) -> Tree:
    """Draw the causes under the run, with times of day by the local clock."""
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(one_line(run_id), "bold"), guide_style="dim")
    grow(root, causes, now)
    return root


def grow(branch: Tree, causes: Sequence[Cause], now: datetime) -> None:
    """Put causes under a branch."""
    from rich.text import Text

    for cause, more in folded(causes):
        line = Text(one_line(cause.text), STYLES.get(cause.kind.value, ""))
        if times := clock_times(cause, now):
            line.append(f"  {times}", "dim")
        if more:
            line.append(f"  and {more:,} more like it", "dim")
        grow(branch.add(line), cause.causes, now)


def folded(causes: Sequence[Cause]) -> list[tuple[Cause, int]]:
    """Give causes of which those that differ in ids and numbers only are one, each with how many more there are."""
    first: dict[object, Cause] = {}
    counts: Counter[object] = Counter()
    for cause in causes:
        key = likeness(cause)
        first.setdefault(key, cause)
        counts[key] += 1
    return [(cause, counts[key] - 1) for key, cause in first.items()]


def likeness(cause: Cause) -> object:
    """Give what equal causes have in common."""
    text = _NUMBERS.sub("*", _RUN_ID.sub("*", cause.text))
    return cause.kind, text, tuple(map(likeness, cause.causes))


def clock_times(cause: Cause, now: datetime) -> str:
    """Write since when and until when by the local clock."""
    since = f"since {words.time_of_day(cause.since, now)}" if cause.since else ""
    until = f"until {words.time_of_day(cause.due_at, now)}" if cause.due_at else ""
    if cause.kind.value == "ended":
        since = since.replace("since", "at")
    return ", ".join(part for part in (since, until) if part)


def advise(causes: Sequence[Cause]) -> None:
    """Print what can be done about the first cause that has a remedy."""
    for cause in walk(causes):
        if advice := ADVICE.get(cause.kind.value):
            hints().print(advice, style="dim", soft_wrap=True)
            return


def walk(causes: Sequence[Cause]) -> list[Cause]:
    """Give causes, each before those under it."""
    return [each for cause in causes for each in (cause, *walk(cause.causes))]
