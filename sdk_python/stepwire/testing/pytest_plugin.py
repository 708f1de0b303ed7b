"""Fixtures for pytest, loaded by it wherever Stepwire is installed: nothing is imported before a fixture is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stepwire.testing.executor import ExecutorProcess


@pytest.fixture
def stepwire_executor() -> Iterator[ExecutorProcess]:
    """A real executor of this test's own: on a free port, with an empty store in a temporary folder."""
    from stepwire.testing.executor import ExecutorProcess

    with ExecutorProcess() as executor:
        yield executor
