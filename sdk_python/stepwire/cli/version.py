"""`stepwire version`: what is installed here."""

from __future__ import annotations

import platform

import typer

from stepwire.cli.exits import CommandError
from stepwire.cli.output import JsonOption, print_json, screen
from stepwire.cli.processes import require_executor
from stepwire.version import VERSION


def version(as_json: JsonOption = False) -> None:
    """Show the versions of the SDK, the executor (if it is installed), Python and the protocol."""
    found = {
        "stepwire": _version("stepwire"),
        "executor": _executor_version(),
        "protocol": _protocol(),
        "python": platform.python_version(),
        "grpcio": _version("grpcio"),
        "platform": platform.platform(),
    }
    if as_json:
        return print_json(found)
    from rich.text import Text

    console = screen()
    for name, value in found.items():
        shown = (value, "") if value is not None else ("not installed", "dim")
        console.print(Text.assemble((f"{name:<10}", "dim"), " ", shown))
    return None


def show_short(wanted: bool) -> None:
    """Print the version as other programs do, and exit, if it is asked for."""
    if wanted:
        typer.echo(f"stepwire {VERSION}")
        raise typer.Exit


def _version(distribution: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _executor_version() -> str | None:
    try:
        require_executor()
    except CommandError:
        return None
    return _version("stepwire")


def _protocol() -> str:
    from stepwire.worker.worker import PROTOCOL

    return str(PROTOCOL)
