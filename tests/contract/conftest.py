"""Every store in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stepwire_executor.store import Store
from stepwire_executor.store.memory import MemoryStore
from stepwire_executor.store.sqlite import SQLiteStore
from stepwire_executor.store.url import open_store
from tests.postgres import Cluster


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SQLiteStore(tmp_path / "new folder" / "store.db")
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        made = open_store(cluster.url(cluster.database()))
    await made.open()
    yield made
    await made.close()
