"""The engine loop over real stores: what is acknowledged is durable, whatever stops and fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Event, FunctionOptions, Limits, Now, Run, RunState, StepKey, StepKind, WaitSpec
from stepwire_core.state import IDLE_SECONDS
from stepwire_executor.clock import SystemClock
from stepwire_executor.engine import Engine
from stepwire_executor.incoming import STEPS_A_PIECE, many_steps_found
from stepwire_executor.ports import Clock
from stepwire_executor.services import waits as services_waits
from stepwire_executor.services.waits import Waits
from stepwire_executor.store import Store, StoreError
from stepwire_executor.store.memory import MemoryStore
from stepwire_executor.store.sqlite import SQLiteStore
from stepwire_proto.v1 import opcode_pb2, run_pb2, value_pb2
from tests.contract.store_rows import MUCH


class Peers:
    """The other side of the engine: keeps the commands, for a test to take."""

    def __init__(self) -> None:
        self.commands: asyncio.Queue[c.Command] = asyncio.Queue()
        self.closed: list[str] = []

    def send(self, commands: Sequence[c.Command]) -> None:
        for command in commands:
            self.commands.put_nowait(command)

    def close_all(self, code: str, message: str) -> None:
        self.closed.append(code)


Wanted = TypeVar("Wanted")


async def take(peers: Peers, kind: type[Wanted]) -> Wanted:
    """Give the next command of a kind; others are dropped."""
    while not isinstance(command := await asyncio.wait_for(peers.commands.get(), 20), kind):
        pass
    return command


@asynccontextmanager
async def running(
    store: Store, clock: Clock | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[Engine, Peers]]:
    peers = Peers()
    engine = Engine(store, limits or Limits(), clock or SystemClock(), peers)
    await engine.start()
    task = asyncio.create_task(engine.run())
    try:
        yield engine, peers
    finally:
        await engine.stop()
        await task


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(str(tmp_path / "stepwire.db"))


def hello(name: str = "w1", **more: object) -> i.Hello:
    options = [FunctionOptions("f", ("go",)), FunctionOptions("g")]
    fields: dict[str, object] = {"slots": 10, "max_invocations": 10, "stream": f"stream-{name}", **more}
    return i.Hello(name, f"i-{name}", "app", "", options, (), **fields)  # type: ignore[arg-type]


def payload(json: str) -> bytes:
    return value_pb2.Payload(data=json.encode(), encoding="json").SerializeToString()


async def send(engine: Engine, event_id: str = "e1", name: str = "go", data: str = "{}") -> list[c.Receipt]:
    event = Event(event_id, name, payload(data), time.time(), digest=name + data)
    answer = await engine.ask(lambda reply: i.EventsSent([event], reply))
    assert isinstance(answer, list)
    return answer


async def found(engine: Engine, invoke: c.Invoke, *steps: i.StepPlanned) -> None:
    told = len(invoke.journal)
    engine.submit(i.StepsFound(invoke.session_id, invoke.run.id, invoke.invocation, told, steps, quiescent=True))


async def ended(engine: Engine, store: Store, run_id: str) -> RunState:
    changes = engine.changes(run_id)
    try:
        async for _ in changes:
            await engine.wait_durable()
            run = await store.get_run(run_id)
            if run is not None and run.state.ended:
                return run.state
    finally:
        await changes.aclose()  # type: ignore[attr-defined]
    raise AssertionError("the engine ended first")


async def test_who_waits_for_a_run_is_given_it_once_its_end_is_durable(store: Store) -> None:
    async with running(store) as (engine, _):
        engine.submit(hello())
        (receipt,) = await send(engine)
        (run_id,) = receipt.run_ids
        changes = engine.changes(run_id)
        assert await anext(changes) is None
        cancelling = asyncio.ensure_future(engine.ask(lambda reply: i.RunCancelled(run_id, "enough", reply)))
        given = None
        while given is None:
            given = await anext(changes)
        stored = await store.get_run(run_id)
        assert stored is not None
        assert (given.id, given.state, given.cancel_reason) == (run_id, stored.state, stored.cancel_reason)
        assert given.state is RunState.CANCELLED
        await cancelling
        await changes.aclose()  # type: ignore[attr-defined]


async def test_an_answered_event_is_in_the_store(store: Store) -> None:
    async with running(store) as (engine, _):
        engine.submit(hello())
        (receipt,) = await send(engine)
        run = await store.get_run(receipt.run_ids[0])
        assert run is not None
        assert run.state in (RunState.PENDING, RunState.RUNNING)


async def test_an_event_id_makes_no_second_run_after_a_restart(store: Store) -> None:
    async with running(store) as (engine, _):
        engine.submit(hello())
        first = await send(engine)
    async with running(store) as (engine, _):
        (again,) = await send(engine)
        assert (again.run_ids, again.duplicate) == (first[0].run_ids, True)
        answer = await engine.ask(lambda reply: i.EventsSent([Event("e1", "go", b"", 0.0, digest="other")], reply))
        assert answer == c.EventConflict(0, "e1", among=False)


async def test_a_run_goes_on_after_a_restart_with_what_was_recorded(store: Store) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        invoke = await take(peers, c.Invoke)
        await found(engine, invoke, *[i.StepPlanned(StepKey(name, 0), StepKind.CLOSURE) for name in "ab"])
        start = await take(peers, c.StartAttempt)
        engine.submit(i.StepRun("w1", start.run.id, start.key, start.fence, payload("1"), 1, 0.0))
        await take(peers, c.Recorded)
    async with running(store) as (engine, peers):
        engine.submit(hello("w2"))
        invoke = await take(peers, c.Invoke)
        assert [(step.key.id, step.output) for step in invoke.journal] == [("a", payload("1"))]
        assert [step.key.id for step in invoke.planned] == ["b"]
        start = await take(peers, c.StartAttempt)
        assert (start.key.id, start.number) == ("b", 1)
        engine.submit(i.RunFinished("w2", receipt.run_ids[0], invoke.invocation, payload("2"), 1))
        assert await ended(engine, store, receipt.run_ids[0]) is RunState.SUCCEEDED


async def test_a_sleeping_run_is_loaded_before_it_is_due_and_woken_when_it_is(store: Store) -> None:
    ahead = idle = 0.0

    def clock() -> Now:
        return Now(time.time() + ahead, time.monotonic() + idle)

    async with running(store, clock) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        invoke = await take(peers, c.Invoke)
        due = time.time() + 3600.0
        await found(engine, invoke, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, due_at=due))
        await engine.caught_up()
        idle = IDLE_SECONDS
        await take(peers, c.CancelRun)
        assert receipt.run_ids[0] not in engine.state.runs
        ahead = 3597.0
        await asyncio.sleep(1.2)  # the engine looks at the clock once a second
        assert receipt.run_ids[0] in engine.state.runs
        assert time.time() + ahead < due
        assert peers.commands.empty()
        ahead = 3599.0
        woken = await take(peers, c.Invoke)
        assert [step.key.id for step in woken.journal] == ["nap"]
        assert time.time() + ahead >= due


async def test_a_clock_that_is_set_back_makes_no_timeout_of_a_sleeping_run_later(store: Store) -> None:
    passed, moved = 0.0, 7_200.0

    def clock() -> Now:
        return Now(time.time() + passed + moved, time.monotonic() + passed, moved)

    async with running(store, clock) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        invoke = await take(peers, c.Invoke)
        wait = i.StepPlanned(StepKey("w", 0), StepKind.WAIT_FOR_EVENT, target="paid", wait=WaitSpec(), delay=60.0)
        await found(engine, invoke, wait)
        await engine.caught_up()
        passed = IDLE_SECONDS
        await take(peers, c.CancelRun)
        assert receipt.run_ids[0] not in engine.state.runs
        moved = 0.0
        await asyncio.sleep(1.5)  # the engine looks at the clock once a second
        assert receipt.run_ids[0] not in engine.state.runs
        passed = 61.0 + IDLE_SECONDS
        woken = await take(peers, c.Invoke)
        assert woken.journal[0].timed_out


@pytest.mark.parametrize("before", [True, False], ids=["event first", "wait first"])
async def test_a_wait_meets_its_event_whichever_comes_first(store: Store, before: bool) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        if before:
            await send(engine, "e2", "paid", '{"order": {"id": 7}, "x": 1}')
        spec = WaitSpec('["order.id"]', "[7]")
        wait = i.StepPlanned(StepKey("w", 0), StepKind.WAIT_FOR_EVENT, target="paid", wait=spec, delay=60.0)
        await found(engine, invoke, wait)
        await engine.wait_durable()
        await send(engine, "e3", "paid", '{"order": {"id": 8}}')
        if not before:
            await send(engine, "e4", "paid", '{"order": {"id": 7.0}, "x": 2}')
        woken = await take(peers, c.Resume)
        output = value_pb2.Payload.FromString(woken.entries[0].output or b"").data.decode()
        assert ('"e2"' if before else '"e4"') in output


async def test_a_wait_that_a_crash_cut_off_from_its_event_meets_it_at_the_next_start(store: Store) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        wait = i.StepPlanned(StepKey("w", 0), StepKind.WAIT_FOR_EVENT, target="paid", wait=WaitSpec(), delay=60.0)
        await found(engine, invoke, wait)
        await engine.wait_durable()
        engine._searches.begin = lambda *_: None  # type: ignore[method-assign]
        await send(engine, "e2", "paid")
    async with running(store) as (engine, peers):
        engine.submit(hello("w2"))
        invoke = await take(peers, c.Invoke)
        if not invoke.journal:
            resume = await take(peers, c.Resume)
            assert resume.entries[0].key.id == "w"


async def test_a_child_that_ended_as_the_executor_died_ends_its_parents_step_at_the_next_start(store: Store) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        parent = await take(peers, c.Invoke)
        await found(engine, parent, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="app/g"))
        child = await take(peers, c.Invoke)
        submit = engine.submit
        engine.submit = lambda input_: None if isinstance(input_, i.ChildEnded) else submit(input_)  # type: ignore[method-assign]
        submit(i.RunFinished(child.session_id, child.run.id, child.invocation, payload("5"), 1))
        assert await ended(engine, store, child.run.id) is RunState.SUCCEEDED
    async with running(store) as (engine, peers):
        engine.submit(hello("w2"))
        invoke = await take(peers, c.Invoke)
        entries = list(invoke.journal)
        if not entries:
            resume = await take(peers, c.Resume)
            entries = list(resume.entries)
        assert entries[0].output == payload("5")


class FailingStore(MemoryStore):
    """A store whose next commits fail, with an outcome that is unknown: the rows may be there or not."""

    failures = 0
    written = False

    async def commit(self, writes: c.Writes) -> None:
        if self.failures:
            self.failures -= 1
            if self.written:
                await super().commit(writes)
            raise StoreError("disk I/O error")
        await super().commit(writes)


@pytest.mark.parametrize("written", [True, False], ids=["rows were written", "rows were not written"])
async def test_when_the_store_fails_nothing_is_acknowledged_and_work_goes_on_when_it_is_back(written: bool) -> None:
    store = FailingStore()
    store.written = written
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await take(peers, c.Welcomed)
        store.failures = 1
        with pytest.raises(StoreError):
            await send(engine)
        assert engine.failing
        assert peers.closed == ["UNAVAILABLE"]
        with pytest.raises(StoreError):
            await engine.wait_durable()
        async with asyncio.timeout(10):
            while engine.failing:  # noqa: ASYNC110 - the end of a failure is not announced to anyone
                await asyncio.sleep(0.01)
        engine.submit(hello("w2"))
        (receipt,) = await send(engine)
        assert receipt.duplicate is written
        invoke = await take(peers, c.Invoke)
        assert invoke.run.id == receipt.run_ids[0]


@pytest.mark.parametrize("written", [True, False])
async def test_a_stream_of_waits_ends_when_the_store_fails(written: bool) -> None:
    store = FailingStore()
    store.written = written

    async def requests() -> AsyncIterator[run_pb2.WaitRunsRequest]:
        yield run_pb2.WaitRunsRequest(run_ids=[run_id])
        asked.set()
        await asyncio.Event().wait()

    async def never(_: object) -> Any:
        raise AssertionError("the run is in memory, and its end is not known")

    async with running(store) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        (run_id,) = receipt.run_ids
        invoke = await take(peers, c.Invoke)
        asked = asyncio.Event()
        waits = asyncio.create_task(Waits(engine, never, lambda run: None, never).serve(requests(), never))
        await asked.wait()
        store.failures = 1
        engine.submit(i.RunFinished(invoke.session_id, run_id, invoke.invocation, payload("1"), 1))
        with pytest.raises(StoreError):  # the run may have ended all the same: whoever asks again finds out
            await asyncio.wait_for(waits, 20)


async def test_a_run_too_many_on_a_stream_of_waits_is_refused_and_the_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services_waits, "MOST_RUNS", 1)
    monkeypatch.setattr(services_waits, "MOST_ERRORS", 0)  # nothing more is read until they are written
    written: list[run_pb2.RunEnd] = []

    async def requests() -> AsyncIterator[run_pb2.WaitRunsRequest]:
        yield run_pb2.WaitRunsRequest(run_ids=[run_id, "one", "two"])
        assert [end.run_id for end in written] == ["one", "two"]
        engine.submit(i.RunFinished(invoke.session_id, run_id, invoke.invocation, payload("1"), 1))

    async def show(run: Run) -> run_pb2.Run:
        return run_pb2.Run(id=run.id)

    async def write(response: run_pb2.WaitRunsResponse) -> None:
        written.extend(response.ends)

    async def find(_: str) -> Run:
        raise AssertionError("what is refused is not looked up")

    async with running(MemoryStore()) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        (run_id,) = receipt.run_ids
        invoke = await take(peers, c.Invoke)
        await asyncio.wait_for(Waits(engine, find, lambda run: None, show).serve(requests(), write), 20)
    assert [end.error.code for end in written[:2]] == [8, 8], "RESOURCE_EXHAUSTED"
    assert [end.run.id for end in written[2:]] == [run_id]


@pytest.mark.parametrize("ended_before", [True, False])
async def test_few_outputs_are_held_for_who_waits_for_many_runs_and_does_not_read(
    monkeypatch: pytest.MonkeyPatch, *, ended_before: bool
) -> None:
    monkeypatch.setattr(services_waits, "MOST_HELD_BYTES", 3_000)
    store = MemoryStore()
    asked, reads = asyncio.Event(), asyncio.Event()
    written: list[run_pb2.RunEnd] = []

    async def requests() -> AsyncIterator[run_pb2.WaitRunsRequest]:
        yield run_pb2.WaitRunsRequest(run_ids=run_ids)
        asked.set()

    async def show(run: Run) -> run_pb2.Run:
        return run_pb2.Run(id=run.id, output=value_pb2.Payload(data=run.output))

    async def write(response: run_pb2.WaitRunsResponse) -> None:
        await reads.wait()
        written.extend(response.ends)

    async def find(run_id: str) -> Run:
        await engine.wait_durable()
        run = await store.get_run(run_id)
        assert run is not None
        return run

    async with running(store) as (engine, peers):
        engine.submit(hello(max_invocations=50))
        run_ids = [(await send(engine, f"e{n}"))[0].run_ids[0] for n in range(20)]
        invokes = [await take(peers, c.Invoke) for _ in run_ids]

        async def end_all() -> None:
            for each in invokes:
                engine.submit(i.RunFinished(each.session_id, each.run.id, each.invocation, bytes(1_000), 1_000))
            await engine.caught_up()

        if ended_before:
            await end_all()
        waits = Waits(engine, find, lambda run: None, show)
        serving = asyncio.create_task(waits.serve(requests(), write))
        await asked.wait()
        if not ended_before:
            await end_all()
        while not waits._ended:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)
        for _ in range(100):
            await asyncio.sleep(0)
        assert waits._held_bytes < 3_000 + 2_000
        assert len(waits._ended) < 6
        reads.set()
        await asyncio.wait_for(serving, 20)
    assert sorted(end.run_id for end in written) == sorted(run_ids)
    assert all(len(end.run.output.data) == 1_000 for end in written)


def sending(key: str, id_: str, data: bytes) -> i.StepPlanned:
    event = Event(id_, "child", data, 1.0, digest=data.decode())
    return i.StepPlanned(StepKey(key, 0), StepKind.SEND_EVENTS, events=[event], output=b"ids")


async def test_a_send_that_waited_for_room_finds_ids_that_were_used_meanwhile(store: Store) -> None:
    async with running(store, limits=Limits(max_queued_runs=1)) as (engine, peers):
        child = FunctionOptions("c", ("child",))
        engine.submit(i.Hello("w2", "i-w2", "app", "", [child], (), 1, 1, stream="stream-w2"))
        engine.submit(i.StreamLost("w2", "stream-w2"))
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        await send(engine, "fill", "child")
        same, other = b"same", b"other"
        await found(engine, invoke, sending("a", "x", same), sending("b", "y", same), sending("d", "z", same))
        await engine.caught_up()
        assert engine.state.queued.of("app")[0] == 1
        events = [Event(id_, "child", data, 1.0, digest=data.decode()) for id_, data in (("x", same), ("y", other))]
        await engine.ask(lambda reply: i.EventsSent(events, reply))
        engine.submit(i.Hello("w3", "i-w3", "app", "", [child], (), 9, 9, stream="stream-w3"))
        steps = engine.state.runs[invoke.run.id].run.steps
        async with asyncio.timeout(10):
            while not all(step.state.ended for step in steps.values()):  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
        failures = {key.id: step.failure.type if step.failure else None for key, step in steps.items()}
        assert failures == {"a": None, "b": "EventConflictError", "d": None}
        events = await store.find_events("child", "shop", 0, 100, 1 << 20)
        assert sorted(event.id for event in events) == ["fill", "x", "y", "z"]


class ForgetfulStore(MemoryStore):
    """A store that fails once, with an error, when it is asked which steps wait for an event."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.fails = False
        self.error = error

    async def wait_apps(self, event_name: str) -> list[str]:
        if self.fails and event_name == "paid":  # the one before may still be looked up
            self.fails = False
            raise self.error
        return await super().wait_apps(event_name)


@pytest.mark.parametrize("error", [StoreError("the disk has a bad day"), RuntimeError("of our own making")], ids=type)
async def test_a_look_up_that_fails_is_made_again_without_a_restart(error: Exception) -> None:
    store = ForgetfulStore(error)
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        wait = i.StepPlanned(StepKey("w", 0), StepKind.WAIT_FOR_EVENT, target="paid", wait=WaitSpec(), delay=60.0)
        await found(engine, invoke, wait)
        await engine.wait_durable()
        store.fails = True
        await send(engine, "e2", "paid")
        while not peers.closed:  # noqa: ASYNC110 - nobody is told that streams are closed
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while engine.failing:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        engine.submit(hello("w2"))
        invoke = await take(peers, c.Invoke)
        entries = invoke.journal or (await take(peers, c.Resume)).entries
        assert entries[0].key.id == "w"


async def test_the_state_is_not_shown_before_it_is_durable() -> None:
    release = asyncio.Event()

    class SlowStore(MemoryStore):
        async def commit(self, writes: c.Writes) -> None:
            await release.wait()
            await super().commit(writes)

    store = SlowStore()
    async with running(store) as (engine, _):
        engine.submit(hello())
        answer = asyncio.create_task(send(engine))
        await asyncio.sleep(0.05)
        settled = asyncio.create_task(engine.wait_durable())
        await asyncio.sleep(0.05)
        assert not answer.done()
        assert not settled.done()
        release.set()
        await settled
        await answer


async def test_a_drain_returns_when_everything_reported_is_durable(store: Store) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        await found(engine, invoke, i.StepPlanned(StepKey("a", 0), StepKind.CLOSURE))
        await engine.drain()
        assert [step.key.id for step in await store.get_steps(invoke.run.id, 0, 10, MUCH)] == ["a"]


async def test_others_have_their_turns_while_very_many_events_are_decided() -> None:
    turns, over = 0, False

    async def others() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    async with running(MemoryStore()) as (engine, peers):
        engine.submit(hello())
        await take(peers, c.Welcomed)
        watching = asyncio.create_task(others())
        events = [Event(f"e{number}", "go", payload("1"), time.time(), digest=str(number)) for number in range(5000)]
        asked = asyncio.create_task(engine.ask(lambda reply: i.EventsSent(events, reply)))
        before = turns
        receipts = await asked
        over = True
        await watching
    assert [receipt.event_id for receipt in receipts] == [event.id for event in events]
    assert turns - before >= 15, "a decision of this size takes some fifty milliseconds"


def test_very_many_steps_are_read_in_pieces_and_the_body_runs_dry_with_the_last() -> None:
    report = opcode_pb2.StepsFound(run_id="run", invocation=7, sequence=3, quiescent=True)
    for number in range(2 * STEPS_A_PIECE + 50):
        report.steps.add(key=value_pb2.StepKey(id=str(number)), closure=opcode_pb2.ClosureTarget())
    parts = [part for part in many_steps_found("session", report, Limits(), 0.0) if part is not None]
    assert [len(part.steps) for part in parts] == [STEPS_A_PIECE, STEPS_A_PIECE, 50]
    assert [part.quiescent for part in parts] == [False, False, True]
    assert [step.key.id for part in parts for step in part.steps] == [step.key.id for step in report.steps]
    assert {(part.run_id, part.invocation, part.sequence) for part in parts} == {("run", 7, 3)}
    limits = Limits(max_steps=STEPS_A_PIECE + 1)
    few = [part for part in many_steps_found("session", report, limits, 0.0) if part is not None]
    assert [len(part.steps) for part in few] == [STEPS_A_PIECE, 2], "one too many, with which the run fails"
