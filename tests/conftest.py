"""Options of the test run, and what is made once for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import Cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the reviewed transcripts anew")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server; a test makes a database of its own in it."""
    with Cluster() as made:
        yield made
