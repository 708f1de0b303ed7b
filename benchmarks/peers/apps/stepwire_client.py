"""Stepwire's client: an event for each run. The address is the executor's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.peers.drive import Run, main
from stepwire.client import Client


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Run]:
    """Give what runs something."""
    async with Client(address) as client:

        async def run(kind: str, count: int) -> int:
            receipt = await client.send(f"peers/{kind}", {"count": count})
            result: int = await client.result(receipt.run_ids[0])
            return result

        yield run


if __name__ == "__main__":
    main(connect)
