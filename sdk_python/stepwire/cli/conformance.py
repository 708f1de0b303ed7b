"""`stepwire conformance`: holds a worker of any SDK, or an executor, against the contract. The kit is a package."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwire.cli.exits import CommandError, ExitCode, usage
from stepwire.cli.output import screen
from stepwire.cli.processes import EXECUTOR_MODULE, require_executor

if TYPE_CHECKING:
    from stepwire_conformance import Report

Command = Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What to start.")]
Cases = Annotated[list[str] | None, typer.Option("--case", metavar="NAME", help="Only this case; may be repeated.")]
Listing = Annotated[bool, typer.Option("--list", help="Show the cases, and run none.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the report into a file.")]
Folder = Annotated[
    Path | None, typer.Option("--cases", metavar="FOLDER", help="Take the cases from here; by default the kit's own.")
]
Patience = Annotated[
    float, typer.Option(min=0.1, help="Stretches all times that something is waited for, for a slow machine.")
]


def worker(
    command: Command = None,
    case: Cases = None,
    show_list: Listing = False,
    json_file: Json = None,
    folder: Folder = None,
    at_once: Annotated[int, typer.Option(min=0, help="How many cases run at once; 0: as many as suit.")] = 0,
    patience: Patience = 1.0,
) -> int:
    """Hold a worker against the contract: start COMMAND for each case, and play the executor to it."""
    import asyncio

    from stepwire_conformance.cases import CaseError, worker_cases
    from stepwire_conformance.report import show
    from stepwire_conformance.transcript import FailedError
    from stepwire_conformance.workers import DEFAULT_AT_ONCE, run_worker_cases

    try:
        cases = worker_cases(case or (), folder)
    except CaseError as error:
        raise usage(str(error)) from None
    if show_list:
        return _show_list(cases)
    if not command:
        raise usage("say what to start: stepwire conformance worker -- COMMAND...")
    console = screen()
    try:
        report = asyncio.run(
            run_worker_cases(
                command,
                cases,
                at_once=at_once or DEFAULT_AT_ONCE,
                patience=patience,
                told=lambda result: show(result, console),
            )
        )
    except FailedError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    return _conclude(report, json_file)


def executor(
    command: Command = None,
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="An executor that runs already, instead of COMMAND; no TLS.")
    ] = "",
    case: Cases = None,
    show_list: Listing = False,
    json_file: Json = None,
    folder: Folder = None,
    patience: Patience = 1.0,
) -> int:
    """Hold an executor against the contract: start COMMAND, by default our own, and play workers and clients to it."""
    import asyncio

    from stepwire_conformance.cases import CaseError, executor_cases
    from stepwire_conformance.executors import run_executor_cases, started_executor
    from stepwire_conformance.report import show
    from stepwire_conformance.transcript import FailedError

    try:
        cases = executor_cases(case or (), folder)
    except CaseError as error:
        raise usage(str(error)) from None
    if show_list:
        return _show_list(cases)
    if command and address:
        raise usage("give either --address or a command, not both")
    if not command and not address:
        require_executor()
    console = screen()

    async def run() -> Report:
        async with AsyncExitStack() as stack:
            started = command or [sys.executable, "-m", EXECUTOR_MODULE]
            at = address or await stack.enter_async_context(started_executor(started, patience))
            return await run_executor_cases(at, cases, patience=patience, told=lambda result: show(result, console))

    try:
        report = asyncio.run(run())
    except FailedError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    return _conclude(report, json_file)


def _show_list(cases: list[Any]) -> int:
    from rich.table import Table

    table = Table("case", "shows", box=None)
    for named in cases:
        table.add_row(named.name, named.case.shows)
    screen().print(table)
    return ExitCode.FINE


def _conclude(report: Report, json_file: Path | None) -> int:
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(report.as_data(), indent=2) + "\n")
        except OSError as error:
            raise usage(f"can't write {json_file}: {error.strerror}") from None
    screen().print(report.summary)
    return ExitCode.FINE if report.good else ExitCode.RUN_FAILED
