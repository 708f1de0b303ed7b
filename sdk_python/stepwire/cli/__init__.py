"""The command line: `stepwire`. It asks the executor for everything and never opens the store.

This package's import stays light: gRPC, Protobuf and Pydantic are imported by the commands that need them.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line with the process's arguments, and exit."""
    hold_standard_streams()
    try:
        from stepwire.cli.app import app

        app()
    except KeyboardInterrupt:  # while this was imported
        sys.exit(INTERRUPTED)


def hold_standard_streams() -> None:
    """Open what the caller has closed of stdin, stdout and stderr on nothing: else a socket would take its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - it lives as long as the process
