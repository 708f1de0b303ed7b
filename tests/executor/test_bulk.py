"""Calls with many events come in turn over callers, and rest while others want something."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from stepwire_core.inputs import Tick
from stepwire_executor.services.bulk import FEW, MOST, REST_SECONDS, Bulk
from stepwire_executor.store.memory import MemoryStore
from tests.executor.test_engine import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stepwire_executor.engine import Engine

LONG_SECONDS = 60.0
"""A rest that no test waits for."""
WORK = round(LONG_SECONDS / REST_SECONDS)


@asynccontextmanager
async def wanted(engine: Engine) -> AsyncIterator[None]:
    """Have something decided again and again."""

    async def want() -> None:
        while True:
            engine.submit(Tick())
            await asyncio.sleep(0.001)

    wanting = asyncio.ensure_future(want())
    yield
    wanting.cancel()


async def has_turn(bulk: Bulk, events: int, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds), bulk.turn("bulk", events):
            return True
    except TimeoutError:
        return False


async def test_a_call_with_many_events_rests_while_others_want_something_and_no_longer() -> None:
    async with running(MemoryStore()) as (engine, _):
        bulk = Bulk(engine)
        bulk.taken(WORK, 0)
        async with wanted(engine):
            assert not await has_turn(bulk, FEW + 1, 0.5)
        assert await has_turn(bulk, FEW + 1, LONG_SECONDS / 2)
        async with wanted(engine):
            assert await has_turn(bulk, FEW + 1, LONG_SECONDS / 2)


async def test_runs_that_a_call_has_started_make_the_rest_longer() -> None:
    async with running(MemoryStore()) as (engine, _), wanted(engine):
        bulk = Bulk(engine)
        bulk.taken(FEW + 1, WORK)
        assert not await has_turn(bulk, FEW + 1, 0.5)


async def test_a_call_with_few_events_waits_for_nobody() -> None:
    async with running(MemoryStore()) as (engine, _), wanted(engine):
        bulk = Bulk(engine)
        async with bulk.turn("bulk", 10 * MOST):
            assert not await has_turn(bulk, FEW + 1, 0.1)
            assert await has_turn(bulk, FEW, LONG_SECONDS)
        bulk.taken(WORK, 0)
        assert await has_turn(bulk, FEW, LONG_SECONDS)
