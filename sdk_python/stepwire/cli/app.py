"""The commands put together, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from stepwire.cli import bench, conformance, dev, listing, processes, runs, send, status, token, version, why
from stepwire.cli.exits import MEANINGS, CommandError, ExitCode
from stepwire.cli.plain_help import PlainCommand, PlainGroup
from stepwire.cli.secured import secured
from stepwire.visible import indented

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The base of all errors that parsing the command line raises; typer names only one of them."""

_HELP = """Durable functions made of parallel steps.

Try it: [bold]stepwire dev module:app[/], then [bold]stepwire send NAME --data '{}' --wait[/].
"""


class Commands(PlainGroup):
    """The root command: writes every error as one clear line to stderr, and exits with the code that fits it."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *ignored: Any, **extra: Any
    ) -> None:
        """Run the command line and exit the process."""
        extra["standalone_mode"] = False
        sys.exit(int(self._run(args, extra)))

    def _run(self, args: Sequence[str] | None, extra: dict[str, Any]) -> int:
        try:
            for stream in (sys.stdout, sys.stderr):
                if reconfigure := getattr(stream, "reconfigure", None):
                    reconfigure(errors="replace")
            code = super().main(args, "stepwire", **extra) or 0
            with _writing():
                sys.stdout.flush()
            return code
        except CommandError as problem:
            return complain(problem.message, problem.code, problem.details)
        except _UsageError as error:
            message = _message(error, self._path_of(sys.argv[1:] if args is None else args))
            return complain(message, ExitCode.USAGE) if message else ExitCode.USAGE
        except (KeyboardInterrupt, typer.Abort):
            return ExitCode.INTERRUPTED
        except _UnreadError:
            _drop_output()
            return ExitCode.FINE
        except _FullError as error:
            _drop_output()
            return complain(f"can't write the output: {error}", ExitCode.OUTPUT)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the command line; typer would take it for a failure that nobody reads the help."""
        with _writing():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; typer would take it for a failure that nobody reads on."""
        with _writing():
            code = super().invoke(ctx)
            sys.stdout.flush()
        return code

    def _path_of(self, args: Sequence[str]) -> str:
        """Give the words of the command line that name a command."""
        path, commands = ["stepwire"], self.commands
        for word in args:
            command = commands.get(word)
            if command is None:
                break
            path.append(word)
            commands = getattr(command, "commands", {})
        return " ".join(path)


class _UnreadError(Exception):
    """Whoever read our output has gone, like `head` when it has seen enough."""


class _FullError(Exception):
    """Our output can't be written: the disk is full."""


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Take errors that the output makes for what they are."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich's way to say it
            raise _UnreadError from end
        raise
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO, errno.EBADF) or isinstance(error, BrokenPipeError):
            raise _UnreadError from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _FullError(error.strerror) from error
        raise


def _drop_output() -> None:
    """Have what is still to be written go nowhere: the last flush must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def complain(message: str, code: ExitCode, details: tuple[str, ...] = ()) -> ExitCode:
    """Write an error to stderr and give the exit code back."""
    lines = [f"stepwire: {indented(message)}", *(f"  {indented(detail)}" for detail in details)]
    with contextlib.suppress(OSError):  # then nobody can be told
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
    return code


def _message(error: Exception, path: str) -> str:
    """Write a usage error in one line that says where help is; empty if the help itself was shown already."""
    text: str = getattr(error, "format_message", lambda: str(error))().replace("\n", " ").rstrip(".")
    text = text.replace(": Value error, ", ": ")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else path
    return f"{text[:1].lower()}{text[1:]}; see `{path} --help`" if text else ""


app = typer.Typer(
    cls=Commands,
    help=_HELP,
    epilog="Exit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANINGS.items()),
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    asked: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=version.show_short, help="Show the version.")
    ] = False,
) -> None:
    """What stands before any command; without a text of its own, so that the help above is shown."""


runs_app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help="Look at runs, watch them, cancel them.")
runs_app.command("list", cls=PlainCommand)(secured(runs.list_runs))
runs_app.command("show", cls=PlainCommand)(secured(runs.show))
runs_app.command("watch", cls=PlainCommand)(secured(runs.watch))
runs_app.command("cancel", cls=PlainCommand)(secured(runs.cancel))

token_app = typer.Typer(
    cls=PlainGroup, no_args_is_help=True, help="Make tokens, with which clients and workers are let in."
)
token_app.command("new", cls=PlainCommand)(token.new)

conformance_app = typer.Typer(
    cls=PlainGroup, no_args_is_help=True, help="Hold a worker or an executor of any make against the contract."
)
conformance_app.command("worker", cls=PlainCommand)(conformance.worker)
conformance_app.command("executor", cls=PlainCommand)(conformance.executor)

_SERVE = "Serve"
_ASK = "Ask the executor"
_PASS_ON: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app.command("dev", cls=PlainCommand, rich_help_panel=_SERVE)(dev.dev)
app.command("executor", cls=PlainCommand, rich_help_panel=_SERVE, context_settings=_PASS_ON, add_help_option=False)(
    processes.executor
)
app.command("worker", cls=PlainCommand, rich_help_panel=_SERVE)(secured(processes.worker))
app.command("send", cls=PlainCommand, rich_help_panel=_ASK)(secured(send.send))
app.add_typer(runs_app, name="runs", rich_help_panel=_ASK)
app.command("why", cls=PlainCommand, rich_help_panel=_ASK)(secured(why.why))
app.command("workers", cls=PlainCommand, rich_help_panel=_ASK)(secured(listing.workers))
app.command("status", cls=PlainCommand, rich_help_panel=_ASK)(secured(status.status))
app.command("functions", cls=PlainCommand, rich_help_panel=_ASK)(secured(listing.functions))
app.add_typer(token_app, name="token", rich_help_panel=_SERVE)
app.add_typer(conformance_app, name="conformance", rich_help_panel=_SERVE)
app.command("bench", cls=PlainCommand, rich_help_panel=_SERVE)(secured(bench.bench))
app.command("version", cls=PlainCommand, rich_help_panel=_ASK)(version.version)
