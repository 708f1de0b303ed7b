"""ExplainRun: what a run waits for, wherever the run is and whatever the executor's state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import grpc
import pytest

from stepwire.testing import ExecutorProcess
from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.causes import CauseKind
from stepwire_core.model import Failure, Limits, Now, StepKey, StepKind
from stepwire_core.state import IDLE_SECONDS
from stepwire_executor.access import AccessError
from stepwire_executor.clock import SystemClock
from stepwire_executor.engine import Engine
from stepwire_executor.services import explanations
from stepwire_executor.services.explanations import explain_run
from stepwire_executor.store import Store, StoreError
from stepwire_executor.store.memory import MemoryStore
from stepwire_proto.v1 import event_pb2, event_pb2_grpc, run_pb2, run_pb2_grpc, worker_pb2
from tests.executor.peer import Peer, refused
from tests.executor.test_engine import Peers, found, hello, running, send, store, take

__all__ = ["store"]


def kinds(response: run_pb2.ExplainRunResponse) -> list[str]:
    return [run_pb2.CauseKind.Name(cause.kind).removeprefix("CAUSE_KIND_") for cause in response.causes]


async def test_a_sleeping_run_is_explained_from_the_store_and_stays_asleep(store: Store) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        invoke = await take(peers, c.Invoke)
        due = float(int(time.time()) + 3600)
        naps = [i.StepPlanned(StepKey("nap", n), StepKind.SLEEP, due_at=due + n) for n in range(3)]
        await found(engine, invoke, *naps)
        await take(peers, c.CancelRun)
        response = await explain_run(engine, store, receipt.run_ids[0])
        assert receipt.run_ids[0] not in engine.state.runs
        (cause,) = response.causes
        assert response.state == run_pb2.RUN_STATE_RUNNING
        assert cause.kind == run_pb2.CAUSE_KIND_SLEEP
        assert (cause.step.id, cause.step.index, cause.step_count) == ("nap", 0, 3)
        assert cause.due_at.seconds == int(due)
        assert cause.text.startswith("step nap and 2 more sleep; the next end is due in ")


async def test_a_chain_of_invoked_runs_is_followed_to_what_moves_it(store: Store) -> None:
    idle = 0.0

    def clock() -> Now:
        now = SystemClock()()
        return now._replace(mono=now.mono + idle)

    async with running(store, clock) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        parent = await take(peers, c.Invoke)
        await found(engine, parent, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="app/g"))
        child = await take(peers, c.Invoke)
        await found(engine, child, i.StepPlanned(StepKey("deep", 0), StepKind.INVOKE, target="app/g"))
        grandchild = await take(peers, c.Invoke)
        await found(engine, grandchild, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=3600.0))
        await engine.caught_up()
        idle = IDLE_SECONDS
        while engine.state.runs:  # until all three are asleep
            await take(peers, c.CancelRun)
        response = await explain_run(engine, store, receipt.run_ids[0])
        call = response.causes[0]
        deep = call.causes[0]
        assert (call.run_id, deep.run_id) == (child.run.id, grandchild.run.id)
        assert deep.causes[0].kind == run_pb2.CAUSE_KIND_SLEEP


async def test_a_fan_out_of_invoked_runs_is_answered_within_bounds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MOST_RUNS", 3)
    async with running(store) as (engine, peers):
        engine.submit(hello(max_invocations=1))
        (receipt,) = await send(engine)
        parent = await take(peers, c.Invoke)
        calls = [i.StepPlanned(StepKey("call", n), StepKind.INVOKE, target="app/g") for n in range(9)]
        await found(engine, parent, *calls)
        await take(peers, c.Invoke)
        response = await explain_run(engine, store, receipt.run_ids[0])
        assert [cause.step_count for cause in response.causes] == [1, 1, 1, 1, 1, 4]
        assert [len(cause.causes) for cause in response.causes] == [1, 1, 0, 0, 0, 0]


async def test_the_longest_chain_of_invoked_runs_can_be_read_by_parsers() -> None:
    store, limits = MemoryStore(), Limits(max_invoke_depth=200)
    peers = Peers()
    engine = Engine(store, limits, SystemClock(), peers)
    await engine.start()
    task = asyncio.create_task(engine.run())
    engine.submit(hello(max_invocations=1_000))
    (receipt,) = await send(engine)
    for _ in range(explanations.DEEPEST + 30):
        invoke = await take(peers, c.Invoke)
        await found(engine, invoke, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="app/g"))
    await take(peers, c.Invoke)
    message = (await explain_run(engine, store, receipt.run_ids[0])).SerializeToString()
    causes, depth = run_pb2.ExplainRunResponse.FromString(message).causes, 0
    while causes and causes[0].kind == run_pb2.CAUSE_KIND_CHILD_RUN:
        causes, depth = causes[0].causes, depth + 1
    assert depth == explanations.DEEPEST + 1
    await engine.stop()
    await task


async def test_an_ended_run_says_how_it_ended(store: Store) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        invoke = await take(peers, c.Invoke)
        failure = Failure("ValueError", "no text", "a stack", retryable=False)
        engine.submit(i.RunFailed("w1", invoke.run.id, invoke.invocation, failure))
        await engine.drain()
        response = await explain_run(engine, store, receipt.run_ids[0])
        (cause,) = response.causes
        assert (response.state, cause.target) == (run_pb2.RUN_STATE_FAILED, "failed")
        assert "ValueError: no text" in cause.text
        assert cause.failure.stack == ""


async def test_a_run_that_does_not_exist_is_not_found(store: Store) -> None:
    async with running(store) as (engine, _):
        with pytest.raises(AccessError, match=r"run 'no-such-run' does not exist") as caught:
            await explain_run(engine, store, "no-such-run")
        assert caught.value.code == "NOT_FOUND"


async def test_right_after_a_restart_a_run_waits_for_a_worker_of_this_life(store: Store) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        await take(peers, c.Invoke)
    before = time.time()
    loading = Engine(store, Limits(), SystemClock(), Peers())
    await loading.start()
    assert kinds(await explain_run(loading, store, receipt.run_ids[0])) == ["LOADING"], "nothing is decided yet"
    await loading.stop()
    async with running(store) as (engine, _):
        await engine.caught_up()
        response = await explain_run(engine, store, receipt.run_ids[0])
        assert kinds(response) == ["NO_WORKER"]
        assert response.causes[0].since.seconds >= int(before)
        assert "none has since the executor started" in response.causes[0].text


async def test_a_draining_executor_says_so(store: Store) -> None:
    async with running(store) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        invoke = await take(peers, c.Invoke)
        await engine.drain()
        await found(engine, invoke, i.StepPlanned(StepKey("a", 0), StepKind.CLOSURE))
        await engine.drain()
        assert kinds(await explain_run(engine, store, receipt.run_ids[0])) == ["EXECUTOR_DRAINING"]


async def test_an_overloaded_executor_says_so_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(store) as (engine, _):
        engine.submit(hello())
        (receipt,) = await send(engine)
        monkeypatch.setattr("stepwire_executor.engine.MOST_QUEUED", -1)
        assert kinds(await explain_run(engine, store, receipt.run_ids[0])) == ["EXECUTOR_BUSY", "BODY_RUNNING"]


async def test_a_store_that_fails_or_hangs_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "PATIENCE_SECONDS", 0.05)
    broken, begun, release = False, asyncio.Event(), asyncio.Event()

    class SickStore(MemoryStore):
        async def commit(self, writes: c.Writes) -> None:
            if broken:
                begun.set()
                await release.wait()
                raise StoreError("disk I/O error")
            await super().commit(writes)

    sick = SickStore()
    async with running(sick) as (engine, peers):
        engine.submit(hello())
        (receipt,) = await send(engine)
        await take(peers, c.Invoke)
        broken = True
        lost = asyncio.create_task(send(engine, "e2"))
        await begun.wait()
        slow = await explain_run(engine, sick, receipt.run_ids[0])
        assert (slow.state, kinds(slow)) == (run_pb2.RUN_STATE_UNSPECIFIED, ["STORE_SLOW"])
        release.set()
        with pytest.raises(StoreError):
            await lost
        failing = await explain_run(engine, sick, receipt.run_ids[0])
        assert (failing.state, kinds(failing)) == (run_pb2.RUN_STATE_UNSPECIFIED, ["STORE_FAILING"])


# Over gRPC.


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process:
        yield process


def test_the_call_answers_and_refuses_over_grpc(executor: ExecutorProcess) -> None:
    with grpc.insecure_channel(executor.address) as channel:
        runs = run_pb2_grpc.RunServiceStub(channel)
        peer = Peer(executor.address)
        options = worker_pb2.FunctionOptions(id="f", triggers=[worker_pb2.Trigger(event_name="go")])
        peer.welcome(functions=[options])
        events = event_pb2_grpc.EventServiceStub(channel)
        event = event_pb2.Event(name="go")
        event.data.data, event.data.encoding = b"null", "json"
        (receipt,) = events.SendEvents(event_pb2.SendEventsRequest(events=[event]), timeout=20).receipts
        invoke = peer.next("invoke")
        response = runs.ExplainRun(run_pb2.ExplainRunRequest(run_id=invoke.run_id), timeout=20)
        assert receipt.run_ids == [invoke.run_id]
        assert kinds(response) == ["BODY_RUNNING"]
        assert response.causes[0].worker.startswith("peer-")
        peer.close()
        code, message, _ = refused(lambda: runs.ExplainRun(run_pb2.ExplainRunRequest(run_id="nope"), timeout=20))
        assert (code, message) == (grpc.StatusCode.NOT_FOUND, "run 'nope' does not exist")


def test_the_cores_kinds_are_the_contracts() -> None:
    assert {kind.name: int(kind) for kind in CauseKind} == {
        name.removeprefix("CAUSE_KIND_"): number for name, number in run_pb2.CauseKind.items() if number
    }
