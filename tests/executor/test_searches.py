"""Look-ups beside the loop: what a crash cut off, the order in which waits are told, and how much is held at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core import matches, residence
from stepwire_core.commands import Wait
from stepwire_core.model import Event, StepKey, StepKind, WaitSpec
from stepwire_executor import event_index, matching, searches, telling
from stepwire_executor.engine import Engine
from stepwire_executor.store.memory import MemoryStore
from stepwire_proto.v1 import value_pb2
from tests.contract.store_rows import MUCH
from tests.executor.test_engine import Peers, found, hello, running, send, take


def wait_step(index: int = 0, wait: WaitSpec | None = None) -> i.StepPlanned:
    return i.StepPlanned(
        StepKey("w", index), StepKind.WAIT_FOR_EVENT, target="paid", wait=wait or WaitSpec(), delay=3600.0
    )


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.005)


async def given(store: MemoryStore, run_id: str) -> list[str]:
    """Give the ids of the events that the waits of a run were given, in the order of the waits."""
    steps = await store.get_steps(run_id, 0, 1000, MUCH)
    by_position = {event.position: event.id for event in store._tables.events.values()}
    return [by_position[step.event_position] for step in steps if step.event_position]


async def planned(store: MemoryStore, engine: Engine, invoke: c.Invoke, *steps: i.StepPlanned) -> None:
    """Have a body wait, and return when its look-ups are over."""
    await found(engine, invoke, *steps)

    async def over() -> bool:
        loaded = engine.state.runs.get(invoke.run.id)
        return len(store._tables.waits) == len(steps) and (
            loaded is None or loaded.waits is None or not loaded.waits.lookups
        )

    await until(over)


async def waiting(store: MemoryStore, engine: Engine, peers: Peers, *steps: i.StepPlanned) -> c.Invoke:
    """Have the body of a new run wait; gives its invocation."""
    engine.submit(hello())
    await send(engine)
    invoke = await take(peers, c.Invoke)
    await planned(store, engine, invoke, *steps)
    return invoke


async def test_a_sleeping_run_is_told_at_the_next_start_of_an_event_that_it_was_not_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(residence, "MOST_IDLE", 0)  # it sleeps at once
    store = MemoryStore()
    async with running(store) as (engine, peers):
        invoke = await waiting(store, engine, peers, wait_step())
        await until(lambda: asyncio.sleep(0, invoke.run.id not in engine.state.runs))
        engine._searches.begin = lambda *_: None  # type: ignore[method-assign]
        await send(engine, "e2", "paid")
        await send(engine, "e3", "paid")
    async with running(store):
        await until(lambda: asyncio.sleep(0, bool(store._tables.events)))

        async def told() -> bool:
            return await given(store, invoke.run.id) == ["e2"]

        await until(told)


class GatedStore(MemoryStore):
    """A store in which some look-ups for waits are held up."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.held = 0
        self.asked: list[tuple[str, int]] = []

    async def wait_paths(self, *arguments: Any) -> list[str]:
        if self.held:
            self.held -= 1
            await self.gate.wait()
        return await super().wait_paths(*arguments)

    async def find_events(self, name: str, app: str, after: int, limit: int, most_bytes: int) -> list[Event]:
        self.asked.append((name, after))
        return await super().find_events(name, app, after, limit, most_bytes)


async def test_a_later_event_is_not_told_before_an_earlier_one_that_is_held_up() -> None:
    store = GatedStore()
    async with running(store) as (engine, peers):
        invoke = await waiting(store, engine, peers, wait_step())
        store.held = 1
        await send(engine, "e2", "paid")
        await send(engine, "e3", "paid")
        await send(engine, "other", "other")
        await until(lambda: asyncio.sleep(0, "other" not in engine._searches._telling._arrived))
        assert await given(store, invoke.run.id) == []
        assert engine._searches.told < store._tables.events_by_key[(), "e2"][0].position
        store.gate.set()

        async def told() -> bool:
            return await given(store, invoke.run.id) == ["e2"]

        await until(told)
        await until(lambda: asyncio.sleep(0, engine._searches.told == engine.state.position))


async def test_new_events_wait_for_those_of_the_life_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residence, "MOST_IDLE", 0)
    store = GatedStore()
    async with running(store) as (engine, peers):
        invoke = await waiting(store, engine, peers, wait_step())
        await until(lambda: asyncio.sleep(0, invoke.run.id not in engine.state.runs))
        engine._searches.begin = lambda *_: None  # type: ignore[method-assign]
        await send(engine, "e2", "paid")
    store.held = 1
    async with running(store) as (engine, _):
        await send(engine, "e3", "paid")
        await engine.caught_up()
        assert await given(store, invoke.run.id) == []
        store.gate.set()

        async def told() -> bool:
            return await given(store, invoke.run.id) == ["e2"]

        await until(told)


async def test_a_start_tells_only_of_events_that_were_not_marked_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "MARKED_AFTER", 5)
    monkeypatch.setattr(residence, "MOST_IDLE", 0)
    store = GatedStore()
    async with running(store) as (engine, peers):
        await waiting(store, engine, peers, wait_step(wait=WaitSpec('["never"]', "[1]")), wait_step(1))
        for number in range(20):
            await send(engine, f"tick-{number}", "paid")
            await until(lambda: asyncio.sleep(0, engine._searches.told == engine.state.position))
    assert store._tables.told >= 15
    store.asked.clear()
    async with running(store):
        await until(lambda: asyncio.sleep(0, bool(store.asked)))
    assert store.asked[0] == ("paid", store._tables.told)


class PagedStore(MemoryStore):
    """A store that notes how many waits are read at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []

    async def find_waits(self, *arguments: Any) -> list[Wait]:
        page = await super().find_waits(*arguments)
        self.pages.append(len(page))
        return page


async def test_very_many_waits_are_told_of_an_event_in_pages_and_each_run_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "PAGE", 7)
    made: list[str] = []
    real = matching.event_output
    monkeypatch.setattr(matching, "event_output", lambda event: made.append(event.id) or real(event))
    store = PagedStore()
    async with running(store) as (engine, peers):
        engine.submit(hello(slots=100, max_invocations=100))
        run_ids = []
        for number in range(10):
            (receipt,) = await send(engine, f"start-{number}")
            run_ids += receipt.run_ids
            await found(engine, await take(peers, c.Invoke), *[wait_step(n) for n in range(3)])

        async def all_wait() -> bool:
            return len(store._tables.waits) == 30 and not any(
                loaded.waits is None or loaded.waits.lookups for loaded in engine.state.runs.values()
            )

        await until(all_wait)
        for number in range(3):
            await send(engine, f"p{number}", "paid")
            store.pages.clear()

            async def each_has(count: int = number + 1) -> bool:
                return all([len(await given(store, run_id)) == count for run_id in run_ids])

            await until(each_has)
            assert max(store.pages, default=0) <= 7
    assert made == ["p0", "p1", "p2"], "what is large is made once for all"
    assert [await given_after(store, run_id) for run_id in run_ids] == [["p0", "p1", "p2"]] * 10


async def test_of_a_run_that_was_told_of_an_event_no_more_waits_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "PAGE", 7)
    store = PagedStore()
    async with running(store) as (engine, peers):
        await waiting(store, engine, peers, *[wait_step(n) for n in range(100)])
        store.pages.clear()
        await send(engine, "p", "paid")
        await until(lambda: asyncio.sleep(0, engine._searches.told == engine.state.position))
    assert store.pages == [7, 0]


async def given_after(store: MemoryStore, run_id: str) -> list[str]:
    await store.close()
    await store.open()
    return await given(store, run_id)


async def test_a_wait_takes_the_first_of_very_many_large_events_without_reading_the_rest() -> None:
    store = GatedStore()
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        data = value_pb2.Payload(data=b'"%s"' % (b"x" * 300_000), encoding="json").SerializeToString()
        events = [Event(f"large-{n}", "paid", data, 1.0, digest=str(n)) for n in range(20)]
        await engine.ask(lambda reply: i.EventsSent(events, reply))
        await found(engine, invoke, *[wait_step(n) for n in range(3)])

        async def told() -> bool:
            return await given(store, invoke.run.id) == ["large-0", "large-1", "large-2"]

        await until(told)
        assert {name for name, _ in store.asked} == {"paid"}
        assert len(store.asked) <= 4


async def test_an_event_that_no_calendar_has_keeps_no_other_event_from_those_who_wait() -> None:
    store = MemoryStore()
    async with running(store) as (engine, peers):
        invoke = await waiting(store, engine, peers, wait_step(0), wait_step(1))
        late = Event("late", "paid", value_pb2.Payload().SerializeToString(), 253_402_300_800.0, digest="late")
        good = Event("good", "paid", value_pb2.Payload().SerializeToString(), 1.0, digest="good")
        await engine.ask(lambda reply: i.EventsSent([late, good], reply))

        async def told() -> bool:
            return await given(store, invoke.run.id) == ["late", "good"]

        await until(told)


def failing_once(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    failures = 0
    real = getattr(matching, what)

    def fail_once(*arguments: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise RuntimeError("of our own making")
        return real(*arguments)

    monkeypatch.setattr(matching, what, fail_once)


@pytest.mark.parametrize("what", ["event_output", "matches_of"])
async def test_an_event_that_can_not_be_given_keeps_no_other_event_from_those_who_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    store = MemoryStore()
    async with running(store) as (engine, peers):
        invoke = await waiting(store, engine, peers, wait_step(0), wait_step(1))
        failing_once(monkeypatch, what)
        events = [
            Event(id_, "paid", value_pb2.Payload().SerializeToString(), 1.0, digest=id_) for id_ in ("e2", "e3", "e4")
        ]
        await engine.ask(lambda reply: i.EventsSent(events, reply))

        async def told() -> bool:
            return await given(store, invoke.run.id) == ["e3", "e4"]

        await until(told)
        assert not peers.closed, "the engine did not begin anew"
    assert "bug in Stepwire" in caplog.text
    assert "of our own making" in caplog.text


class StandingStore(MemoryStore):
    """A store that gives no events before its gate is opened, and counts who waits there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.reading = self.most_reading = self.reads = 0

    async def find_positions(self, name: str, app: str, after: int, limit: int) -> list[int]:
        self.reading += 1
        self.reads += 1
        self.most_reading = max(self.reading, self.most_reading)
        await self.gate.wait()
        self.reading -= 1
        return await super().find_positions(name, app, after, limit)


async def test_few_look_ups_of_an_app_run_at_once_however_many_runs_begin_to_wait() -> None:
    store = StandingStore()
    async with running(store) as (engine, peers):
        engine.submit(hello(max_invocations=100))
        for number in range(20):
            await send(engine, f"e{number}")
        for _ in range(20):
            await found(engine, await take(peers, c.Invoke), wait_step())
        await until(lambda: asyncio.sleep(0, len(store._tables.waits) == 20))
        await engine.caught_up()
        for _ in range(100):
            await asyncio.sleep(0)
        assert store.reading == searches.LOOKED_UP_AT_ONCE
        store.gate.set()
        await until(lambda: asyncio.sleep(0, store.reads >= 20))
        assert store.most_reading == searches.LOOKED_UP_AT_ONCE


async def test_a_look_up_leaves_out_an_event_that_can_not_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        for id_ in ("e2", "e3", "e4"):
            await send(engine, id_, "paid")
        failing_once(monkeypatch, "event_output")
        await found(engine, invoke, wait_step(0), wait_step(1))

        async def told() -> bool:
            return await given(store, invoke.run.id) == ["e3", "e4"]

        await until(told)
        assert not peers.closed, "the engine did not begin anew"


async def test_events_that_reach_other_apps_only_cost_a_look_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = StandingStore()
    store.gate.set()
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        foreign = [Event(f"f{at}", "paid", b"", 1.0, apps=("other",)) for at in range(event_index.PAGE + 1)]
        await engine.ask(lambda reply: i.EventsSent(foreign, reply))
        await send(engine, "mine", "paid")
        decided: list[i.Input] = []
        submit = engine.submit

        def noting(input_: i.Input) -> None:
            decided.append(input_)
            submit(input_)

        monkeypatch.setattr(engine, "submit", noting)
        await found(engine, invoke, wait_step())

        async def told() -> bool:
            return await given(store, invoke.run.id) == ["mine"]

        await until(told)
        assert len([each for each in decided if isinstance(each, i.EventsLookedUp)]) == 1
        assert store.reads == 1


class AppStore(MemoryStore):
    """A store in which an app's look-ups for waits are held up."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked: list[str] = []

    async def wait_paths(self, event_name: str, app: str, *page: Any) -> list[str]:
        self.asked.append(app)
        if app == "slow":
            await self.gate.wait()
        return await super().wait_paths(event_name, app, *page)


async def two_apps(store: MemoryStore, engine: Engine, peers: Peers) -> tuple[str, str]:
    """Have a run of each of two apps wait for "paid"; gives their ids."""
    run_ids = []
    for number, app in enumerate(("slow", "shop")):
        engine.submit(replace(hello(f"1.{app}"), app=app))
        await engine.ask(lambda reply, app=app: i.EventsSent([event_for(f"s-{app}", "go", app)], reply))
        invoke = await take(peers, c.Invoke)
        steps = [wait_step(n) for n in range(3)]
        engine.submit(i.StepsFound(invoke.session_id, invoke.run.id, invoke.invocation, 0, steps, True))
        await until(lambda count=3 * (number + 1): asyncio.sleep(0, len(store._tables.waits) == count))
        loaded = engine.state.runs[invoke.run.id]
        await until(lambda loaded=loaded: asyncio.sleep(0, loaded.waits is None or not loaded.waits.lookups))
        run_ids.append(invoke.run.id)
    return run_ids[0], run_ids[1]


def event_for(id_: str, name: str, *apps: str) -> Event:
    return Event(id_, name, value_pb2.Payload().SerializeToString(), 1.0, digest=id_, apps=apps)


async def test_an_app_whose_waits_take_long_delays_no_other_apps() -> None:
    store = AppStore()
    async with running(store) as (engine, peers):
        slow, shop = await two_apps(store, engine, peers)
        for n in range(3):
            await send(engine, f"p{n}", "paid")

        async def told(run_id: str) -> bool:
            return await given(store, run_id) == ["p0", "p1", "p2"]

        await until(lambda: told(shop))
        assert await given(store, slow) == []
        assert engine._searches.told < engine.state.position - 2
        store.gate.set()
        await until(lambda: told(slow))
        await until(lambda: asyncio.sleep(0, engine._searches.told == engine.state.position))


async def test_what_an_app_is_behind_with_is_read_again_and_told_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "MOST_HELD_BYTES", 1)  # one event is held
    monkeypatch.setattr(telling, "PAGE", 2)
    store = AppStore()
    async with running(store) as (engine, peers):
        slow, _ = await two_apps(store, engine, peers)
        for n in range(7):
            await send(engine, f"p{n}", "paid")
        await until(lambda: asyncio.sleep(0, ("paid", "shop") not in engine._searches._telling._backlogs))
        backlog = engine._searches._telling._backlogs["paid", "slow"]
        assert len(backlog.held) <= 1
        store.gate.set()

        async def told() -> bool:
            return await given(store, slow) == ["p0", "p1", "p2"]

        await until(told)
        await until(lambda: asyncio.sleep(0, engine._searches.told == engine.state.position))
        assert not engine._searches._telling._held_bytes


async def test_an_event_is_compared_with_waits_of_those_apps_only_that_it_reaches() -> None:
    store = AppStore()
    store.gate.set()
    async with running(store) as (engine, peers):
        slow, shop = await two_apps(store, engine, peers)
        store.asked.clear()
        await engine.ask(lambda reply: i.EventsSent([event_for("p0", "paid", "shop")], reply))

        async def told() -> bool:
            return await given(store, shop) == ["p0"]

        await until(told)
        assert store.asked == ["shop"]
        assert await given(store, slow) == []
