"""DBOS's workflows, and its client: DBOS is a library, so that the process that starts workflows runs them too.

The address is the URL of its system database. Steps are started in order and gathered, as its documentation says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbos import DBOS

from benchmarks.peers.drive import Run, main

CONNECTIONS = 1
"""One instead of twenty: SQLite lets one write, and several sleep while they wait for each other's locks."""
THREADS = 16
"""Those that wait for the connection; by default each step under way takes one."""


@DBOS.step()
async def nothing(n: int) -> int:
    """Do nothing."""
    return n


@DBOS.workflow()
async def fan(count: int) -> int:
    """Run steps in parallel."""
    return sum(await asyncio.gather(*[nothing(n) for n in range(count)]))


@DBOS.workflow()
async def chain(count: int) -> int:
    """Run steps one after the other."""
    n = 0
    for _ in range(count):
        n = await nothing(n + 1)
    return n


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Run]:
    """Give what runs something."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": address,
            "run_admin_server": False,
            "log_level": "ERROR",
            "sys_db_pool_size": CONNECTIONS,
            "max_executor_threads": THREADS,
        }
    )
    DBOS.launch()
    workflows = {"fan": fan, "chain": chain}

    async def run(kind: str, count: int) -> int:
        handle = await DBOS.start_workflow_async(workflows[kind], count)
        result: int = await handle.get_result()
        return result

    yield run
    DBOS.destroy()


if __name__ == "__main__":
    main(connect)
