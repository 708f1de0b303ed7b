"""Restate's client: a request of its HTTP ingress for each run. The address is the ingress's.

aiohttp serves it better than the SDK's own client, which is on httpx: 500 chains take little more than half the time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from benchmarks.peers.drive import Run, main


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Run]:
    """Give what runs something."""
    async with aiohttp.ClientSession(f"http://{address}", raise_for_status=True) as session:

        async def run(kind: str, count: int) -> int:
            async with session.post(f"/bench/{kind}", json=count) as response:
                result: int = await response.json()
                return result

        yield run


if __name__ == "__main__":
    main(connect)
