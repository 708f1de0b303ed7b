"""Restate's service. Steps are `ctx.run_typed`, waited for by `restate.gather`.

They are started and gathered in waves: each of its steps costs `gather` another look at all that it waits for, so that
one `gather` of 1,000 takes five times as long as five of 200, and one of 10,000 more than a minute.
"""

from __future__ import annotations

import restate

WAVE = 200
"""Steps under way at a time: as many as the slots of Stepwire's two workers."""

bench = restate.Service("bench")


async def nothing(n: int) -> int:
    """Do nothing."""
    return n


@bench.handler()
async def fan(ctx: restate.Context, count: int) -> int:
    """Run steps in parallel."""
    total = 0
    for first in range(0, count, WAVE):
        wave = range(first, min(count, first + WAVE))
        for done in await restate.gather(*[ctx.run_typed("nothing", nothing, n=n) for n in wave]):
            total += await done
    return total


@bench.handler()
async def chain(ctx: restate.Context, count: int) -> int:
    """Run steps one after the other."""
    n = 0
    for _ in range(count):
        n = await ctx.run_typed("next", nothing, n=n + 1)
    return n


app = restate.app([bench])
