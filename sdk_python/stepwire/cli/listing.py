"""`stepwire workers` and `stepwire functions`: what is connected and registered, as tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stepwire.cli import words
from stepwire.cli.output import DEFAULT_EXECUTOR, ExecutorOption, JsonOption, ask, print_json, screen
from stepwire.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from stepwire.records import FunctionInfo, WorkerInfo

START = "stepwire worker module:app"
AppOption = Annotated[str, typer.Option("--app", metavar="APP", help="Only of this app.", show_default=False)]


def workers(executor: ExecutorOption = DEFAULT_EXECUTOR, app: AppOption = "", as_json: JsonOption = False) -> None:
    """List the workers that are connected, or were a moment ago."""
    found = ask(executor, lambda client: client.workers(app=app))
    if as_json:
        from stepwire.cli.as_json import plain

        return print_json({"workers": plain(found)})
    from rich.text import Text

    console = screen()
    if not found:
        console.print(Text.assemble("No worker is connected. Start one: ", (START, "bold")))
        return None
    show_workers(console, found, datetime.now(UTC))
    return None


WORKER_STYLES = {"connected": "green", "draining": "yellow", "lost": "red"}


def show_workers(console: Console, found: list[WorkerInfo], now: datetime) -> None:
    """Print the table of workers, and under it what blocks them."""
    from rich.text import Text

    from stepwire.cli import tables
    from stepwire.cli.block import Block

    rows = [
        [
            Text(one_line(one.instance_id), "magenta"),
            Text(one.state.value, WORKER_STYLES.get(one.state.value, "")),
            Text(one_line(f"{one.app} {one.app_version}".rstrip())),
            used(one.slots_taken, one.slots),
            Text(str(one.live_invocations)),
            Text(words.age(one.connected_at, now)),
            Text(one_line(f"{one.sdk_name} {one.sdk_version}"), "dim"),
            Text(one_line(" ".join(f"{key}={value}" for key, value in sorted(one.labels.items())))),
        ]
        for one in found
    ]
    head = ("WORKER", "STATE", "APP", "SLOTS", "RUNS", "AGE", "SDK", "LABELS")
    tables.show(console, head, rows, elastic=(6, 7, 2, 0))
    for one in found:
        if one.loop_lag >= 1 or one.blocking_stack:
            late = f"{one_line(one.instance_id)}: its event loop is blocked for {words.duration(one.loop_lag)}"
            console.print(Text(f"\n{late}", "yellow"), soft_wrap=True)
            console.print(Block(one.blocking_stack.rstrip(), "dim"))


def used(taken: int, slots: int, width: int = 6) -> Text:
    """Draw how many slots are taken."""
    from rich.text import Text

    full = min(width, -(-taken * width // slots)) if slots else 0
    return Text.assemble(("█" * full, "cyan"), ("░" * (width - full), "bright_black"), f" {taken}/{slots}")


def functions(executor: ExecutorOption = DEFAULT_EXECUTOR, app: AppOption = "", as_json: JsonOption = False) -> None:
    """List the functions that workers have registered, now or before."""
    found = ask(executor, lambda client: client.functions(app=app))
    if as_json:
        from stepwire.cli.as_json import plain

        return print_json({"functions": plain(found)})
    from rich.text import Text

    console = screen()
    if not found:
        console.print(Text.assemble("No function is registered. Start a worker: ", (START, "bold")))
        return None
    show_functions(console, found, datetime.now(UTC))
    return None


def unserved(one: FunctionInfo, now: datetime) -> str:
    """Say for how long no worker has served a function."""
    return "0" if one.unserved_since is None else f"0 for {words.age(one.unserved_since, now)}"


def show_functions(console: Console, found: list[FunctionInfo], now: datetime) -> None:
    """Print the table of functions."""
    from rich.text import Text

    from stepwire.cli import tables

    rows = [
        [
            Text(one_line(one.id), "bold"),
            Text(one_line(", ".join(one.triggers))) if one.triggers else Text("only invoked", "dim"),
            Text(one_line(f"{one.app} {one.app_version}".rstrip())),
            Text(str(one.workers), "green") if one.workers else Text(unserved(one, now), "red"),
            Text(str(one.retry.retries) if one.retry else ""),
            Text(words.age(one.registered_at, now)),
        ]
        for one in found
    ]
    head = ("FUNCTION", "TRIGGER", "APP", "WORKERS", "RETRIES", "AGE")
    tables.show(console, head, rows, elastic=(1, 2, 0))
