"""Options of the test run, and what is made once for all tests."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwire.testing import guard
from tests.postgres import Cluster
from tools import needs

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the reviewed transcripts anew")


FOREIGN = ("STEPWIRE_", "OTEL_", "PG")
"""Beginnings of variables by which the caller's shell would change what Stepwire and its stores do."""
SHELL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PYTHONASYNCIODEBUG")


def pytest_configure(config: pytest.Config) -> None:
    """Have what tests rely on, in this process and in those that they start, whatever shell the run was started by."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name in SHELL:
            del os.environ[name]
    for name in SHELL:
        os.unsetenv(name)  # readline, which pytest imports, sets some past os.environ
    os.environ["TERM"] = "xterm-256color"
    os.environ |= guard.mark()  # of all that tests start, however they do
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in what they run in the background


SLOW = ("faults", "fuzz", "conformance", "polyglot", "end_to_end", "simulation")
"""Folders whose files take minutes: begun first, none of them is left over when all other processes have ended."""


def pytest_report_header(config: pytest.Config) -> str | None:
    left_out = needs.missing()
    if not left_out:
        return None
    return f"left out are tests that need {', '.join(left_out)}: `python -m tools.needs` says more"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(HERE).parts[0]
        return SLOW.index(folder) if folder in SLOW else len(SLOW)

    if changing := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"the processes of a run would not agree on the names of tests: {changing}")
    items.sort(key=place)
    wanted = {item: needs_of(item) for item in items}
    lacking = set(needs.missing(set().union(*wanted.values())))
    left_out = [item for item in items if wanted[item] & lacking]
    if left_out and os.environ.get("CI"):
        raise pytest.UsageError(f"CI must run every test, and there is no {', '.join(sorted(lacking))}")
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not wanted[item] & lacking]


def needs_of(item: pytest.Item) -> set[str]:
    """Give what a test needs of the machine: what its marks say, and PostgreSQL for whoever uses the cluster."""
    named = {name for mark in item.iter_markers("needs") for name in mark.args}
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    uses_cluster = "cluster" in getattr(item, "fixturenames", ()) or "postgresql" in parameters
    return named | {"postgresql"} if uses_cluster else named


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server; a test makes a database of its own in it."""
    with Cluster() as made:
        yield made
