"""The commands that are processes of their own: `executor` and `worker`."""

from __future__ import annotations

import importlib.util
import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from stepwire.cli import arguments
from stepwire.cli.exits import CommandError, ExitCode, usage
from stepwire.cli.output import DEFAULT_EXECUTOR, ExecutorOption

EXECUTOR_MODULE = "stepwire_executor"
_EXECUTOR_NEEDS = (
    "stepwire_executor",
    "aiosqlite",
    "grpc_health",
    "grpc_reflection",
    "opentelemetry.sdk",
    "pydantic_settings",
)

Target = Annotated[
    str, typer.Argument(metavar="MODULE:APP", show_default=False, help="The app to serve, like `shop.flows:app`.")
]
Slots = Annotated[int, typer.Option(min=1, max=10_000, help="How many attempts each process runs at once.")]


class Level(StrEnum):
    """The least level of log lines."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


LogLevel = Annotated[
    Level, typer.Option("--log-level", envvar="STEPWIRE_LOG_LEVEL", help="Write log lines from this level on.")
]


def executor(context: typer.Context) -> None:
    """Run an executor: `python -m stepwire_executor` with the same arguments; its own --help lists them.

    `--json`, which every command takes, is its `--log-json`.
    """
    require_executor()
    arguments = ["--log-json" if argument == "--json" else argument for argument in context.args]
    os.execv(sys.executable, [sys.executable, "-m", EXECUTOR_MODULE, *arguments])


def require_executor() -> None:
    """Raise a problem that says how to install the executor, unless it is installed."""
    missing = [name for name in _EXECUTOR_NEEDS if not _is_installed(name)]
    if missing:
        raise CommandError(
            f'the executor is not installed ({", ".join(missing)} missing); run: pip install "stepwire[executor]"',
            ExitCode.USAGE,
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def worker(
    target: Target,
    executor: ExecutorOption = DEFAULT_EXECUTOR,
    slots: Slots = 32,
    processes: Annotated[int, typer.Option(min=1, help="How many worker processes.")] = 1,
    max_invocations: Annotated[
        int, typer.Option(min=1, help="How many live invocations each process holds at most.")
    ] = 1_000,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A label of the workers; give it as often as you like."),
    ] = None,
    drain_seconds: Annotated[
        float,
        typer.Option(
            parser=arguments.duration,
            metavar="DURATION",
            help="After SIGTERM or Ctrl-C: how long running attempts may finish.",
        ),
    ] = 30,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a source file changes.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="STEPWIRE_LOG_JSON", help="Write log lines as JSON objects.")
    ] = False,
    log_level: LogLevel = Level.INFO,
) -> int:
    """Serve an app: connect to the executor, take work, drain on SIGTERM or Ctrl-C."""
    check_target(target)
    from stepwire.worker import serve

    sys.path.insert(0, os.getcwd())
    return serve(
        target,
        executor=executor,
        slots=slots,
        processes=processes,
        max_invocations=max_invocations,
        labels=arguments.labels(label or []),
        drain_seconds=drain_seconds,
        reload=reload,
        log_json=as_json,
        log_level=log_level.value,
    )


def check_target(target: str) -> None:
    """Raise a usage problem unless `target` looks like `module:app`."""
    module, colon, name = target.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        if target.endswith(".py") or "/" in target:
            raise usage(f"{target!r} is a file; name the module and the app in it, like `flows:app`")
        raise usage(f"{target!r} does not name an app; write it like `flows:app` or `shop.flows:app`")
