"""`stepwire dev`: an executor, workers that reload, and what to send them, in one command."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from stepwire import private
from stepwire.cli.arguments import duration
from stepwire.cli.exits import CommandError, ExitCode
from stepwire.cli.output import DEFAULT_PORT, JsonOption
from stepwire.cli.processes import Level, LogLevel, Slots, Target, check_target, require_executor
from stepwire.security import PREFIXES

HOST = "127.0.0.1"


def dev(
    target: Target,
    processes: Annotated[int, typer.Option(min=1, help="How many worker processes.")] = 1,
    slots: Slots = 32,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The executor's port; 8377, or a free one if that is taken.")
    ] = None,
    state: Annotated[Path, typer.Option(metavar="FOLDER", help="Where runs are kept.")] = Path(".stepwire"),
    drain_seconds: Annotated[
        float,
        typer.Option(parser=duration, metavar="DURATION", help="How long running attempts may finish."),
    ] = 10,
    as_json: JsonOption = False,
    log_level: LogLevel = Level.INFO,
) -> int:
    """Run an executor, workers and reload in one; Ctrl-C drains the workers, then the executor."""
    check_target(target)
    require_executor()
    chosen, taken = choose_port(port)
    prepare(state)
    import asyncio

    from stepwire.cli.plan import Plan
    from stepwire.cli.session import Session
    from stepwire.cli.voice import Voice

    for name in [name for name in os.environ if name.startswith(PREFIXES)]:
        del os.environ[name]  # they are for an executor elsewhere; this one is on loopback, and asks for nothing
    plan = Plan(target, processes, slots, HOST, chosen, taken, state, drain_seconds, log_level.value)
    return asyncio.run(Session(plan, Voice(as_json)).run())


def choose_port(wanted: int | None) -> tuple[int, int | None]:
    """Give the port to use, and the default one if it is taken. Raises CommandError if a wanted port is taken."""
    for port in (wanted or DEFAULT_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                if wanted:
                    raise CommandError(
                        f"port {wanted} is taken; leave --port out to use a free one", ExitCode.USAGE
                    ) from None
                continue
            found: int = probe.getsockname()[1]
            return found, None if port else DEFAULT_PORT
    raise CommandError(f"there is no free port on {HOST}", ExitCode.USAGE)


def prepare(state: Path) -> None:
    """Make the folder for the state, and keep it out of version control."""
    try:
        private.make_folders(state)
        ignore = state / ".gitignore"
        if not ignore.exists():
            with os.fdopen(private.open_to_append(ignore), "a") as file:
                file.write("*\n")
    except OSError as error:
        raise CommandError(f"can't write to {state}: {error.strerror}", ExitCode.USAGE) from None
