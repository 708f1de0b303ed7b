"""Functions that nobody serves are forgotten, as the store and the core see it together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import FunctionOptions, Now, StepKey, StepKind
from stepwire_executor.engine import Engine
from stepwire_executor.registrations import Registrations
from stepwire_executor.store import Store
from tests.executor.test_engine import Peers, found, running, send, store, take

__all__ = ["store"]
DAY = 86_400.0


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> Now:
        return Now(time.time() + self.passed, time.monotonic() + self.passed)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)


async def served(engine: Engine, peers: Peers) -> c.Invoke:
    """Have a worker serve two functions, of which one has a run; gives its invocation."""
    options = [FunctionOptions("sleeps", ("go",)), FunctionOptions("idle", ("other",))]
    engine.submit(i.Hello("w1", "i-w1", "app", "", options, (), 9, 9, stream="s1"))
    await send(engine)
    return await take(peers, c.Invoke)


async def test_a_function_whose_run_sleeps_is_kept_until_that_has_ended(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as (engine, peers):
        registrations = Registrations(engine, store, 30 * DAY)
        invoke = await served(engine, peers)
        await found(engine, invoke, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=300 * DAY))
        clock.passed += 60.0
        await until(lambda: not engine.state.runs)
        engine.submit(i.StreamLost("w1", "s1"))
        await registrations.check()
        assert len(engine.state.functions) == 2
        clock.passed += 31 * DAY
        await registrations.check()
        assert list(engine.state.functions) == [("app", "sleeps")]
        await engine.ask(lambda reply: i.RunCancelled(invoke.run.id, "enough", reply))
        await registrations.check()
        assert not engine.state.functions
        assert (await send(engine, "e9"))[0].run_ids == ()
    async with running(store, clock) as (engine, _):
        assert not engine.state.functions
