"""What tests have that talk to the `executor` of their module."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from stepwire.testing import ExecutorProcess
from tests.executor.peer import Peer


@pytest.fixture
def channel(executor: ExecutorProcess) -> Iterator[grpc.Channel]:
    """A channel to the executor."""
    with grpc.insecure_channel(executor.address) as channel:
        yield channel


@pytest.fixture
def peer(executor: ExecutorProcess) -> Iterator[Peer]:
    """A worker whose messages are written by hand."""
    with Peer(executor.address) as peer:
        yield peer
