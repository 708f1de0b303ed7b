"""`stepwire workers` and `stepwire functions`: what is connected and registered, as tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stepwire.cli import words
from stepwire.cli.output import DEFAULT_EXECUTOR, ExecutorOption, JsonOption, ask, print_json, screen

if TYPE_CHECKING:
    from rich.table import Table

    from stepwire.records import FunctionInfo, WorkerInfo

AppOption = Annotated[str, typer.Option("--app", metavar="APP", help="Only of this app.", show_default=False)]


def workers(executor: ExecutorOption = DEFAULT_EXECUTOR, app: AppOption = "", as_json: JsonOption = False) -> None:
    """List the workers that are connected, or were a moment ago."""
    found = ask(executor, lambda client: client.workers(app=app))
    if as_json:
        from stepwire.cli.as_json import plain

        return print_json({"workers": plain(found)})
    console = screen()
    if not found:
        console.print("No worker is connected. Start one: [bold]stepwire worker module:app[/]")
        return None
    console.print(workers_table(found, datetime.now(UTC)))
    for worker in found:
        if worker.blocking_stack:
            console.print(f"\n[yellow]{worker.instance_id} is blocked for {words.duration(worker.loop_lag)}:[/]")
            console.print(worker.blocking_stack.rstrip(), style="dim", markup=False)
    return None


def workers_table(found: list[WorkerInfo], now: datetime) -> Table:
    """Make the table of workers."""
    from rich.text import Text

    table = plain_table("WORKER", "STATE", "APP", "SLOTS", "LIVE", "SINCE", "SDK", "LABELS")
    styles = {"connected": "green", "draining": "yellow", "lost": "red"}
    for one in found:
        state = Text(one.state.value, styles.get(one.state.value, ""))
        if one.loop_lag >= 1:
            state.append(f" (loop {words.duration(one.loop_lag)} late)", "yellow")
        table.add_row(
            Text(words.one_line(one.instance_id), "magenta"),
            state,
            words.one_line(f"{one.app} {one.app_version}"),
            used(one.slots_taken, one.slots),
            str(one.live_invocations),
            words.age(one.connected_at, now),
            words.one_line(f"{one.sdk_name} {one.sdk_version}"),
            Text(words.one_line(" ".join(f"{key}={value}" for key, value in sorted(one.labels.items()))), "dim"),
        )
    return table


def used(taken: int, slots: int, width: int = 8) -> str:
    """Draw how many slots are taken."""
    full = -(-taken * width // slots) if slots else 0
    return f"[cyan]{'█' * full}[/][bright_black]{'░' * (width - full)}[/] {taken}/{slots}"


def functions(executor: ExecutorOption = DEFAULT_EXECUTOR, app: AppOption = "", as_json: JsonOption = False) -> None:
    """List the functions that workers have registered, now or before."""
    found = ask(executor, lambda client: client.functions(app=app))
    if as_json:
        from stepwire.cli.as_json import plain

        return print_json({"functions": plain(found)})
    console = screen()
    if not found:
        console.print("No function is registered. Start a worker: [bold]stepwire worker module:app[/]")
        return None
    console.print(functions_table(found, datetime.now(UTC)))
    return None


def functions_table(found: list[FunctionInfo], now: datetime) -> Table:
    """Make the table of functions."""
    from rich.text import Text

    table = plain_table("FUNCTION", "APP", "TRIGGER", "RETRIES", "WORKERS", "REGISTERED")
    for one in found:
        table.add_row(
            Text(words.one_line(one.id), "bold"),
            words.one_line(f"{one.app} {one.app_version}"),
            Text(words.one_line(", ".join(one.triggers)) or "only invoked", "" if one.triggers else "dim"),
            str(one.retry.retries) if one.retry else "",
            Text(str(one.workers), "green" if one.workers else "red"),
            words.age(one.registered_at, now),
        )
    return table


def plain_table(*columns: str) -> Table:
    """Make a table without lines, which reads well and can be cut by other programs."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table
