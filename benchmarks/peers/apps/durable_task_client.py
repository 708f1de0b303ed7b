"""Durable Task's client: two calls for each run. The address is the backend's."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from durabletask.client import AsyncTaskHubGrpcClient

from benchmarks.peers.drive import LONGEST_SECONDS, Run, main


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Run]:
    """Give what runs something."""
    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.ERROR)  # by default it writes lines for each orchestration
    async with AsyncTaskHubGrpcClient(host_address=address, logger=quiet) as client:

        async def run(kind: str, count: int) -> int:
            instance = await client.schedule_new_orchestration(kind, input=count)
            state = await client.wait_for_orchestration_completion(instance, timeout=int(LONGEST_SECONDS))
            if state is None or state.serialized_output is None:
                raise ValueError(f"an orchestration came to nothing: {state}")
            result: int = json.loads(state.serialized_output)
            return result

        yield run


if __name__ == "__main__":
    main(connect)
