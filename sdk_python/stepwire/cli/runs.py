"""`stepwire runs`: list, show, watch, cancel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stepwire.cli import arguments, words
from stepwire.cli.exits import CommandError, ExitCode, usage
from stepwire.cli.output import DEFAULT_EXECUTOR, ExecutorOption, JsonOption, ask, hints, print_json, screen
from stepwire.visible import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from stepwire.client import Client
    from stepwire.records import Run, RunState, Step

RunIdArgument = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="The run's id.")]

PAGE = 50


def list_runs(
    executor: ExecutorOption = DEFAULT_EXECUTOR,
    function: Annotated[str, typer.Option(metavar="ID", help="Only of this function.", show_default=False)] = "",
    app: Annotated[str, typer.Option(metavar="APP", help="Only of this app.", show_default=False)] = "",
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help="Only in this state (pending, running, succeeded, failed, cancelled); repeat for several.",
        ),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            metavar="AGE|TIME", help="Only created since then: 1h, 2d, or 2030-01-31T12:00.", show_default=False
        ),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = PAGE,
    every: Annotated[bool, typer.Option("--all", help="All of them, however many.", show_default=False)] = False,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    now = datetime.now(UTC)
    states = run_states(state or [])
    created_after = arguments.instant(since, "--since", now) if since else None

    async def question(client: Client) -> list[Run]:
        found: list[Run] = []
        wanted = None if every else limit + 1
        async for run in client.list(app=app, function=function, states=states, created_after=created_after):
            found.append(run)
            if len(found) == wanted:
                break
        return found

    found = ask(executor, question)
    more = not every and len(found) > limit
    found = found if every else found[:limit]
    if as_json:
        from stepwire.cli.as_json import plain

        return print_json({"runs": plain(found), "more": more})
    console = screen()
    if not found:
        console.print("No runs." if not (function or app or states or since) else "No runs match.")
        return None
    show_runs(console, found, now)
    if more:
        hints().print(f"the newest {limit}; more with --limit N or --all", style="dim")
    if not all(run.state.ended for run in found):
        hints().print("what a run waits for: stepwire why RUN", style="dim")
    return None


def run_states(names: Sequence[str]) -> list[RunState]:
    """Give the states that were named, by comma or by repetition."""
    from stepwire.records import RunState

    known = {state.value: state for state in RunState if state is not RunState.UNKNOWN}
    wanted = [name.strip().lower() for text in names for name in text.split(",")]
    for name in wanted:
        if name not in known:
            raise usage(f"--state {name!r} is no state of a run; they are {', '.join(known)}")
    return [known[name] for name in wanted]


def show_runs(console: Console, found: Sequence[Run], now: datetime) -> None:
    """Print the table of runs."""
    from rich.text import Text

    from stepwire.cli import tables
    from stepwire.cli.tree import RUN_ICONS, counts

    rows = []
    for run in found:
        icon, style = RUN_ICONS[run.state]
        took = words.duration(words.between(run.started_at or run.created_at, run.ended_at or now))
        rows.append(
            [
                Text(one_line(run.id)),
                Text(f"{icon} {run.state.value}", style),
                Text(one_line(run.function), "bold").append(f" {one_line(run.app)}", "dim"),
                Text(words.age(run.created_at, now)),
                Text(took),
                counts(run.step_counts),
            ]
        )
    tables.show(console, ("RUN", "STATE", "FUNCTION", "AGE", "TOOK", "STEPS"), rows, elastic=(5, 2))


def show(
    run: RunIdArgument,
    executor: ExecutorOption = DEFAULT_EXECUTOR,
    steps: Annotated[bool, typer.Option("--steps", help="A line for every step, and their outputs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a run: its steps, its result or its failure."""

    async def question(client: Client) -> tuple[Run, list[Step]]:
        record = await client.get(run)
        return record, [step async for step in client.steps(run, outputs=steps or as_json)]

    record, found = ask(executor, question)
    if as_json:
        from stepwire.cli.as_json import plain

        return print_json({"run": plain(record), "steps": plain(found)})
    from stepwire.cli.show import result, whole_tree

    console = screen()
    console.print(whole_tree(record, found, console.width, datetime.now(UTC), every=steps))
    console.print(result(record, full=True))
    if not record.state.ended:
        hints().print(f"what it waits for: stepwire why {one_line(record.id)}", style="dim", soft_wrap=True)
    return None


def watch(run: RunIdArgument, executor: ExecutorOption = DEFAULT_EXECUTOR, as_json: JsonOption = False) -> int:
    """Watch a run until it ends. Exit code 0 if it succeeds, 1 if it fails or is cancelled."""
    return watch_all(executor, [run], as_json)


def watch_all(executor: str, run_ids: Sequence[str], as_json: bool) -> int:
    """Show runs until all have ended, then their results; give the exit code."""
    from stepwire.cli import live
    from stepwire.cli.show import result

    console = screen()

    async def question(client: Client) -> list[Run]:
        shown = live.Tree if console.is_terminal else live.Lines
        watcher = live.JsonLines() if as_json else shown(console, run_ids)
        await live.follow(client, run_ids, watcher)
        return [await client.get(run_id) for run_id in run_ids]

    try:
        ended = ask(executor, question)
    except KeyboardInterrupt:
        from rich.text import Text

        command = f"stepwire runs watch {one_line(run_ids[0])}"
        hints().print(Text.assemble("the run goes on; see it again with ", (command, "bold")), soft_wrap=True)
        raise
    if not as_json:
        for record in ended:
            console.print(result(record, full=False))
    return exit_code(ended)


def exit_code(ended: Sequence[Run]) -> ExitCode:
    """Give the exit code for runs that were waited for."""
    return ExitCode.FINE if all(run.state.value == "succeeded" for run in ended) else ExitCode.RUN_FAILED


def cancel(
    run: RunIdArgument,
    executor: ExecutorOption = DEFAULT_EXECUTOR,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for people.", show_default=False)] = "",
    as_json: JsonOption = False,
) -> None:
    """Cancel a run and the runs that it invoked. Refused (exit code 5) if it has succeeded or failed before."""
    record = ask(executor, lambda client: client.cancel(run, reason=reason))
    if as_json:
        from stepwire.cli.as_json import plain

        print_json({"run": plain(record)})
    if record.state.value != "cancelled":
        raise CommandError(f"run {run} has {record.state.value} already; it can't be cancelled", ExitCode.REFUSED)
    if not as_json:
        from rich.text import Text

        screen().print(Text.assemble(("⊘", "yellow"), f" run {one_line(record.id)} is cancelled"))
