"""Bugs of the executor's own, met on purpose: whoever meets one is told so, and nobody else notices."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

import stepwire
from stepwire.testing import ExecutorProcess
from stepwire_proto.v1 import event_pb2, event_pb2_grpc, opcode_pb2, value_pb2, worker_pb2
from tests.end_to_end.processes import System
from tests.executor.peer import Peer, refused

TIMES = 10


class BuggyExecutor(ExecutorProcess):
    """See apps/buggy_executor.py."""

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        _, _, _, *flags = super().command
        return [sys.executable, "-m", "tests.faults.apps.buggy_executor", *flags]


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    system = System(tmp_path)
    system.executor = BuggyExecutor(folder=tmp_path / "executor", settings={"session_grace": 2})
    async with system:
        await system.start_workers(1)
        yield system


def serve(peer: Peer, event_name: str) -> None:
    """Connect a worker of an app of its own, with a function that an event starts."""
    function = worker_pb2.FunctionOptions(id="f", triggers=[worker_pb2.Trigger(event_name=event_name)])
    peer.hello(app=f"app-{event_name}", functions=[function])
    peer.next("welcome")


def find(peer: Peer, step: str) -> None:
    """Take the next body, and report that it has found a step."""
    invoke = peer.next("invoke")
    key = value_pb2.StepKey(id=step)
    planned = opcode_pb2.StepPlanned(key=key, closure=opcode_pb2.ClosureTarget())
    report = opcode_pb2.StepsFound(run_id=invoke.run_id, invocation=invoke.invocation, steps=[planned], quiescent=True)
    peer.send(steps_found=report)


def poison(peer: Peer, step: str) -> str:
    """Have a worker of ours meet a bug by a step; gives the code that its stream ends with."""
    if step == "poisoned heartbeat":
        peer.send(heartbeat=worker_pb2.Heartbeat(blocking_stack="poison"))
    else:
        find(peer, step)
    if step == "poisoned result":
        (start,) = peer.next("run_steps").attempts
        peer.send(step_run=opcode_pb2.StepRun(attempt=start.attempt))
    assert peer.ended.wait(20)
    return str(peer.error.code().name)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("step", ["poison", "poisoned result", "poisoned heartbeat"])
async def test_a_worker_that_meets_a_bug_again_and_again_hurts_no_other(system: System, step: str) -> None:
    (before,) = await system.client.workers()
    with grpc.insecure_channel(system.executor.address) as channel:
        events = event_pb2_grpc.EventServiceStub(channel)
        going = [await system.send("flows/gates", {"gates": ["open"]})]
        codes = []
        for number in range(TIMES):
            with Peer(system.executor.address) as peer:
                serve(peer, f"mine-{number}")
                event = event_pb2.Event(name=f"mine-{number}", data=value_pb2.Payload(data=b"1", encoding="json"))
                await asyncio.to_thread(events.SendEvents, event_pb2.SendEventsRequest(events=[event]))
                codes.append(await asyncio.to_thread(poison, peer, step))
            going.append(await system.send("flows/fan-out", {"count": 2}))
        assert codes == ["INTERNAL"] * TIMES
    system.open_gate("open")
    assert await asyncio.gather(*(system.result(run) for run in going[1:])) == [{"count": 2, "total": 4}] * TIMES
    assert len(await system.result(going[0])) == 1
    (after,) = [each for each in await system.client.workers() if each.app == "flows"]
    assert (after.session_id, after.connected_at) == (before.session_id, before.connected_at)
    status = await system.client.status()
    assert (status.state, status.begun_anew) == ("serving", 0)
    assert status.faults >= TIMES
    assert "a bug in " in system.executor.log
    assert "is back" not in system.executor.log, "the other worker's stream was never lost"


@pytest.mark.timeout(120)
async def test_events_that_meet_a_bug_are_refused_and_nothing_of_their_call_is_taken(system: System) -> None:
    with Peer(system.executor.address) as peer, grpc.insecure_channel(system.executor.address) as channel:
        serve(peer, "poison")
        events = event_pb2_grpc.EventServiceStub(channel)
        request = event_pb2.SendEventsRequest()
        for name in ("flows/fan-out", "poison"):
            request.events.add(
                name=name, id=f"id-{name}", data=value_pb2.Payload(data=b'{"count": 2}', encoding="json")
            )
        code, message, _ = await asyncio.to_thread(refused, lambda: events.SendEvents(request))
        assert code is grpc.StatusCode.INTERNAL
        assert message.startswith("a bug in Stepwire keeps EventsSent from being decided (ZeroDivisionError)")
        async with stepwire.Client(system.executor.address) as client:
            with pytest.raises(stepwire.ExecutorError, match="a bug in Stepwire keeps EventsSent") as caught:
                await client.send("poison")
            assert caught.value.code == "INTERNAL"
        assert [each async for each in system.client.list()] == []
        run = await system.send("flows/fan-out", {"count": 2}, id="id-flows/fan-out")
        assert await system.result(run) == {"count": 2, "total": 4}, "the id has not been used"


@pytest.mark.timeout(120)
async def test_a_run_that_cannot_be_placed_fails_by_itself(system: System) -> None:
    with Peer(system.executor.address) as peer, grpc.insecure_channel(system.executor.address) as channel:
        serve(peer, "mine")
        events: Any = event_pb2_grpc.EventServiceStub(channel)
        event = event_pb2.Event(name="mine", data=value_pb2.Payload(data=b"1", encoding="json"))
        receipts = await asyncio.to_thread(events.SendEvents, event_pb2.SendEventsRequest(events=[event]))
        (run_id,) = receipts.receipts[0].run_ids
        for _ in range(3):
            await asyncio.to_thread(find, peer, "poisoned start")
        found = await system.client.wait(run_id, timeout=30)
        assert (found.state, found.failure.type) == ("failed", "InternalError")
        assert await system.result(await system.send("flows/fan-out", {"count": 2})) == {"count": 2, "total": 4}


@pytest.mark.timeout(120)
async def test_a_run_that_no_worker_can_be_told_of_fails_at_the_third_time(system: System) -> None:
    name = "poisoned telling"
    with grpc.insecure_channel(system.executor.address) as channel:
        events = event_pb2_grpc.EventServiceStub(channel)
        event = event_pb2.Event(name=name, data=value_pb2.Payload(data=b"1", encoding="json"))
        with Peer(system.executor.address) as peer:
            serve(peer, name)
            receipts = await asyncio.to_thread(events.SendEvents, event_pb2.SendEventsRequest(events=[event]))
            assert await asyncio.to_thread(peer.ended.wait, 20)
            assert peer.error.code() is grpc.StatusCode.INTERNAL
        (run_id,) = receipts.receipts[0].run_ids
        for _ in range(2):
            with Peer(system.executor.address) as peer:
                serve(peer, name)
                assert await asyncio.to_thread(peer.ended.wait, 20)
        run = await system.client.wait(run_id, timeout=30)
        assert (run.state, run.failure.type) == ("failed", "InternalError")
        with Peer(system.executor.address) as peer:
            serve(peer, name)
            assert not await asyncio.to_thread(peer.ended.wait, 1)
    assert system.executor.log.count("is to be told (Invoke): ZeroDivisionError: a bug in writing") == 3
    assert await system.result(await system.send("flows/fan-out", {"count": 2})) == {"count": 2, "total": 4}
    assert (await system.client.status()).begun_anew == 0
