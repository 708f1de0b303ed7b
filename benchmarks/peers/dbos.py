"""DBOS: a library on a SQLite file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.system import System, app


@contextmanager
def stage() -> Iterator[Sequence[str]]:
    """Make a folder for the file: there is nothing to start."""
    with tempfile.TemporaryDirectory(prefix="stepwire-dbos-", ignore_cleanup_errors=True) as folder:
        yield [*app("dbos_app"), f"sqlite:///{Path(folder) / 'dbos.sqlite'}"]


SYSTEM = System(
    "DBOS",
    "in the process that starts the workflows, as a library is used: no network between them; a SQLite file with the "
    "pragmas that DBOS leaves at SQLite's defaults (a rollback journal, `synchronous=FULL`); one connection and 16 "
    "threads, which is faster than its defaults; async steps, gathered",
    ["dbos", "sqlalchemy"],
    stage,
)
