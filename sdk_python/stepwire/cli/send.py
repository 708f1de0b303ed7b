"""`stepwire send`: send an event, and wait for what it starts."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated

import typer

from stepwire.cli import arguments
from stepwire.cli.exits import ExitCode, is_away
from stepwire.cli.output import DEFAULT_EXECUTOR, ExecutorOption, JsonOption, ask, hints, print_json, screen
from stepwire.cli.runs import exit_code, watch_all
from stepwire.errors import StepwireError
from stepwire.visible import one_line

if TYPE_CHECKING:
    from stepwire.client import Client
    from stepwire.records import EventReceipt, Run


REGISTRATION_SECONDS = 10.0
"""For how long `--wait` waits for the executor and for the first worker: `stepwire dev` may just have been started."""


def send(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="The event's name, like `shop/order.placed`.")
    ],
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="JSON|@FILE", help="The data: JSON, @FILE, or @- for stdin.")
    ] = "null",
    event_id: Annotated[
        str,
        typer.Option(
            "--id", metavar="ID", help="Makes the event once only: sent again it starts nothing.", show_default=False
        ),
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the runs that it starts, and show them.")
    ] = False,
    executor: ExecutorOption = DEFAULT_EXECUTOR,
    as_json: JsonOption = False,
) -> int:
    """Send an event. With --wait the exit code says whether the runs succeeded (3 if it started none)."""
    value = arguments.json_data(data)

    async def question(client: Client) -> tuple[EventReceipt, list[str]]:
        if wait:
            await registered(client, name)
        receipt = await client.send(name, value, id=event_id)
        return receipt, [] if receipt.run_ids else await known_events(client)

    receipt, known = ask(executor, question)
    if wait and receipt.run_ids:
        if as_json:
            return wait_in_json(executor, receipt)
        say(receipt)
        return watch_all(executor, receipt.run_ids, as_json=False)
    if as_json:
        print_json({"event": described(receipt)} | ({"runs": []} if wait else {}))
    else:
        say(receipt)
    if not receipt.run_ids:
        hints().print(no_function(name, known), style="yellow", soft_wrap=True)
    return ExitCode.NOT_FOUND if wait else ExitCode.FINE


async def registered(client: Client, name: str) -> None:
    """Wait a while for the executor, and for the first worker if no function takes the event yet."""
    import asyncio

    loop = asyncio.get_running_loop()
    missing, told, end = "worker", "", 0.0
    while True:
        try:
            taken = any(name in function.triggers for function in await client.functions())
            if taken or any(worker.state.value == "connected" for worker in await client.workers()):
                return
            missing = "worker"
        except StepwireError as error:
            if not is_away(error):  # sending says what is wrong; a token may be for sending only
                return
            missing = "executor"
        if missing != told:
            told, end = missing, loop.time() + REGISTRATION_SECONDS
            text = f"no {missing} is there yet: waiting up to {REGISTRATION_SECONDS:g} s for the first one"
            hints().print(text, style="dim", soft_wrap=True)
        elif loop.time() > end:
            return
        await asyncio.sleep(0.1)


async def known_events(client: Client) -> list[str]:
    """Give the names of events that start a function; none if the executor does not say."""
    try:
        return sorted({trigger for function in await client.functions() for trigger in function.triggers})
    except StepwireError:
        return []


def no_function(name: str, known: list[str]) -> str:
    """Explain that an event started nothing, and what may have been meant."""
    text = f"no function takes {name!r}; the event is kept, and runs that wait for it get it"
    known = list(map(one_line, known))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.75)
    if near:
        return f"{text}. Did you mean {' or '.join(near)}?"
    shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    return f"{text}. Functions take: {shown}" if known else f"{text}. No worker has registered a function yet"


def described(receipt: EventReceipt) -> dict[str, object]:
    """Give the receipt for scripts."""
    return {"id": receipt.event_id, "run_ids": list(receipt.run_ids), "duplicate": receipt.duplicate}


def say(receipt: EventReceipt) -> None:
    """Print the receipt for people."""
    from rich.text import Text

    console = screen()
    again = "  seen before, nothing new started" if receipt.duplicate else ""
    said = Text.assemble(("✓", "green"), f" event {one_line(receipt.event_id)}", (again, "yellow"))
    console.print(said, soft_wrap=True)
    for run_id in receipt.run_ids:
        console.print(Text.assemble("  run   ", (one_line(run_id), "bold")), soft_wrap=True)


def wait_in_json(executor: str, receipt: EventReceipt) -> int:
    """Wait for the runs, print one JSON object, give the exit code."""
    from stepwire.cli import live
    from stepwire.cli.as_json import plain

    async def question(client: Client) -> list[Run]:
        await live.follow(client, receipt.run_ids, live.Silence())
        return [await client.get(run_id) for run_id in receipt.run_ids]

    ended = ask(executor, question)
    print_json({"event": described(receipt), "runs": plain(ended)})
    return exit_code(ended)
