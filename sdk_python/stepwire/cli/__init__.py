"""The command line: `stepwire`. It asks the executor for everything and never opens the store.

This package's import stays light: gRPC, Protobuf and Pydantic are imported by the commands that need them.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line with the process's arguments, and exit."""
    from stepwire.cli.app import app

    app()
