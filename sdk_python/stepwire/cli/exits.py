"""What the command line's exit codes mean, and how every error becomes one clear line and one of them."""

from __future__ import annotations

from enum import IntEnum

from stepwire.errors import ExecutorError, RunFailedError, StepwireError
from stepwire.proxies import proxy_note


class ExitCode(IntEnum):
    """The exit codes; scripts may rely on them."""

    FINE = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    REFUSED = 5
    OUTPUT = 74
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.FINE: "fine",
    ExitCode.RUN_FAILED: "the run that was waited for failed or was cancelled; dev, worker: a process failed",
    ExitCode.USAGE: "wrong usage, or something is not installed",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.UNREACHABLE: "no executor answers",
    ExitCode.REFUSED: "the executor refused",
    ExitCode.OUTPUT: "the output can't be written",
    ExitCode.INTERRUPTED: "interrupted",
}
"""What `stepwire --help` says of them."""


class CommandError(StepwireError):
    """What ends a command: one line for stderr, the exit code, and more lines that explain."""

    def __init__(self, message: str, code: ExitCode, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = details


def usage(message: str) -> CommandError:
    """Make the problem of a wrong argument."""
    return CommandError(message, ExitCode.USAGE)


_UNREACHED = (
    "failed to connect",
    "connection refused",
    "connection reset",
    "dns resol",
    "socket closed",
    "unreachable",
)
"""What gRPC says, in a status that it makes itself, when there is nobody to make one."""

_CODES = {
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
}


def explain(error: StepwireError, executor: str) -> CommandError:
    """Turn an error of a call to the executor at `executor` (HOST:PORT) into what the user is told."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, RunFailedError):
        return CommandError(str(error), ExitCode.RUN_FAILED)
    if not isinstance(error, ExecutorError):
        return CommandError(str(error), ExitCode.USAGE)
    code = _CODES.get(error.code, ExitCode.REFUSED)
    fields = tuple(
        reason if reason.startswith(name) else f"{name}: {reason}"
        for name, reason in error.fields
        if reason != str(error)
    )
    if is_away(error):
        note = next(filter(None, map(proxy_note, executor.split(","))), "")
        remedy = "start one with `stepwire executor` or `stepwire dev module:app`"
        text = f"no executor answers at {executor}{note}; {'or ' if note else ''}{remedy}"
        return CommandError(text, code)
    if error.code == "UNIMPLEMENTED":
        return CommandError(f"what answers at {executor} is no Stepwire executor, or an older one: {error}", code)
    return CommandError(str(error) or error.code, code, fields)


def is_away(error: StepwireError) -> bool:
    """Whether no executor could be reached."""
    return isinstance(error, ExecutorError) and error.code == "UNAVAILABLE" and not is_answer(error)


def is_answer(error: ExecutorError) -> bool:
    """Tell an executor that answered "not now" (it drains, its store fails) from one that could not be reached."""
    text = str(error).lower()
    return not any(sign in text for sign in _UNREACHED)
