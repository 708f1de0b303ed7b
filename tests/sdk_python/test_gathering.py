"""Sends and waits of one client that go over the wire together: nobody suffers for the company."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

import stepwire
from stepwire import calls, gathering
from stepwire.errors import ExecutorError
from stepwire.testing import ExecutorProcess
from stepwire_proto.v1 import event_pb2, run_pb2
from tests.sdk_python.answering import Executor, receipts, refuse

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
async def executor() -> AsyncIterator[Executor]:
    executor = Executor()
    await executor.start()
    executor.script("SendEvents", receipts)
    yield executor
    await executor.stop()


@pytest.fixture
async def client(executor: Executor) -> AsyncIterator[stepwire.Client]:
    async with stepwire.Client(executor.address, timeout=10) as client:
        yield client


def ids(requests: list[Any]) -> list[list[str]]:
    return [[event.id for event in request.events] for request in requests]


# Sends.


async def test_sends_of_one_turn_go_in_one_call_and_each_has_its_receipts(
    executor: Executor, client: stepwire.Client
) -> None:
    sends: list[Any] = [client.send("paid", id=f"event-{number}") for number in range(20)]
    sends.append(client.send_many([stepwire.Event("paid", id="a"), stepwire.Event("paid", id="b")]))
    *ones, many = await asyncio.gather(*sends)
    assert ids(executor.requests) == [[*(f"event-{number}" for number in range(20)), "a", "b"]]
    assert [each.run_ids for each in ones] == [(f"run-of-event-{number}",) for number in range(20)]
    assert [each.event_id for each in many] == ["a", "b"]


async def test_a_bad_event_fails_its_own_send_only(executor: Executor, client: stepwire.Client) -> None:
    def answer(request: event_pb2.SendEventsRequest, context: Any) -> Any:
        bad = any(event.id == "bad" for event in request.events)
        return refuse(INVALID, "events[1].id: no such id")(request, context) if bad else receipts(request, context)

    executor.script("SendEvents", answer)
    good, bad, other = await asyncio.gather(
        client.send("paid", id="good"),
        client.send("paid", id="bad"),
        client.send("paid", id="other"),
        return_exceptions=True,
    )
    assert isinstance(bad, ExecutorError)
    assert bad.code == "INVALID_ARGUMENT"
    assert isinstance(good, stepwire.EventReceipt)
    assert isinstance(other, stepwire.EventReceipt)
    assert (good.event_id, other.event_id) == ("good", "other")
    assert sorted(ids(executor.requests), key=len) == [["good"], ["bad"], ["other"], ["good", "bad", "other"]]


async def test_an_id_that_two_callers_give_to_different_events_fails_one_of_them_only() -> None:
    with ExecutorProcess() as real:
        async with stepwire.Client(real.address) as client:
            one, two, same, other = await asyncio.gather(
                client.send("paid", 1, id="p"),
                client.send("paid", 2, id="p"),
                client.send_many([stepwire.Event("paid", 3, id="q"), stepwire.Event("paid", 3, id="q")]),
                client.send("paid", 4, id="r"),
                return_exceptions=True,
            )
            failed = [each for each in (one, two) if isinstance(each, ExecutorError)]
            assert [error.code for error in failed] == ["ALREADY_EXISTS"]
            assert "'p' was used within 24 h for another event" in str(failed[0])
            assert isinstance(same, list)
            assert [receipt.duplicate for receipt in same] == [False, True]
            assert isinstance(other, stepwire.EventReceipt)


async def test_an_executor_that_has_enough_to_do_is_asked_again_by_all_together_or_not(
    executor: Executor, client: stepwire.Client
) -> None:
    delay = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=50_000_000))
    executor.script("SendEvents", refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much", delay), receipts)
    sent = await asyncio.gather(*[client.send("paid", id=str(number)) for number in range(3)])
    assert [each.event_id for each in sent] == ["0", "1", "2"]
    assert ids(executor.requests)[0] == ["0", "1", "2"], "nobody is to blame, so none was sent alone at once"


async def test_sends_are_split_before_a_call_grows_too_large(executor: Executor, client: stepwire.Client) -> None:
    large = "x" * 400_000
    await asyncio.gather(*[client.send("paid", large, id=str(number)) for number in range(5)])
    assert sorted(ids(executor.requests)) == [["0", "1"], ["2", "3"], ["4"]]
    executor.requests.clear()
    await asyncio.gather(*[client.send("paid", id=str(number)) for number in range(1_001)])
    assert sorted(map(len, ids(executor.requests))) == [1, 1_000]


async def test_a_send_that_is_cancelled_takes_no_other_with_it(executor: Executor, client: stepwire.Client) -> None:
    go_on = asyncio.Event()

    async def later(request: Any, context: Any) -> Any:
        await go_on.wait()
        return receipts(request, context)

    executor.script("SendEvents", later)
    cancelled, kept = (asyncio.create_task(client.send("paid", id=each)) for each in ("cancelled", "kept"))
    await executor.asked(1)
    cancelled.cancel()
    go_on.set()
    assert (await kept).event_id == "kept"
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_closing_the_client_cancels_sends_and_waits(executor: Executor) -> None:
    executor.script("SendEvents", lambda request, context: asyncio.sleep(60))
    executor.script("WaitRun", lambda request, context: asyncio.sleep(60))
    client = stepwire.Client(executor.address)
    under_way = [asyncio.create_task(client.send("paid")), asyncio.create_task(client.wait("run"))]
    await executor.asked(2)
    await client.close()
    done, _ = await asyncio.wait(under_way, timeout=10)
    assert len(done) == 2
    assert all(each.cancelled() for each in done)


# Waits.


def ended(request: run_pb2.WaitRunRequest, _: Any) -> run_pb2.WaitRunResponse:
    return run_pb2.WaitRunResponse(run=run_pb2.Run(id=request.run_id, state=run_pb2.RUN_STATE_SUCCEEDED))


async def test_waits_share_one_stream_and_those_of_one_turn_a_message(
    executor: Executor, client: stepwire.Client
) -> None:
    executor.script("WaitRun", ended)
    names = [f"run-{number}" for number in range(50)]
    runs = await asyncio.gather(*map(client.wait, names))
    assert [run.id for run in runs] == names
    assert sorted(executor.waits[0].run_ids) == sorted(names)
    assert (await client.wait("one more")).id == "one more"
    assert (executor.streams, len(executor.waits)) == (1, 2)


async def test_waits_for_the_same_run_are_one_question(executor: Executor, client: stepwire.Client) -> None:
    go_on = asyncio.Event()

    async def later(request: Any, context: Any) -> Any:
        await go_on.wait()
        return ended(request, context)

    executor.script("WaitRun", later)
    first = asyncio.create_task(client.wait("run"))
    impatient = asyncio.create_task(client.wait("run", timeout=0.1))
    with pytest.raises(TimeoutError):
        await impatient
    second = asyncio.create_task(client.wait("run"))
    await asyncio.sleep(0.05)
    go_on.set()
    assert (await first).id == (await second).id == "run"
    assert [list(each.run_ids) for each in executor.waits] == [["run"]]
    assert not any(each.forgotten_run_ids for each in executor.waits), "it was always waited for"


async def test_what_is_no_longer_waited_for_is_forgotten(executor: Executor, client: stepwire.Client) -> None:
    executor.script("WaitRun", lambda request, context: asyncio.sleep(60))
    with pytest.raises(TimeoutError):
        await client.wait("run", timeout=0.1)
    executor.script("WaitRun", ended)
    await client.wait("other")
    assert ["run"] in [list(each.forgotten_run_ids) for each in executor.waits]


async def test_a_run_that_is_refused_does_not_disturb_the_others(executor: Executor, client: stepwire.Client) -> None:
    def answer(request: run_pb2.WaitRunRequest, context: Any) -> Any:
        if request.run_id == "nope":
            return refuse(grpc.StatusCode.NOT_FOUND, "run 'nope' does not exist")(request, context)
        return ended(request, context)

    executor.script("WaitRun", answer)
    good, bad = await asyncio.gather(client.wait("run"), client.wait("nope"), return_exceptions=True)
    assert isinstance(bad, ExecutorError)
    assert (bad.code, str(bad)) == ("NOT_FOUND", "run 'nope' does not exist")
    assert isinstance(good, stepwire.Run)


async def test_a_stream_that_is_lost_is_opened_again_for_whoever_waits(
    executor: Executor, client: stepwire.Client, caplog: pytest.LogCaptureFixture
) -> None:
    executor.script("WaitRun", lambda request, context: asyncio.sleep(60))
    names = [f"run-{number}" for number in range(20)]
    waits = [asyncio.create_task(client.wait(name)) for name in names]
    await executor.asked(20)
    await executor.stop()
    executor.script("WaitRun", ended)
    await executor.start()
    assert [run.id for run in await asyncio.gather(*waits)] == names
    assert [each.message.partition(":")[0] for each in caplog.records] == [
        "waiting for run run-0, but lost the executor"
    ], "one line for all of them"


async def test_a_stream_that_the_executor_ends_is_opened_again(
    executor: Executor, client: stepwire.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.script("WaitRun", ended)
    serve = Executor.WaitRuns

    async def once(self: Executor, requests: Any, context: Any) -> None:
        if self.streams:
            await serve(self, requests, context)
        self.streams += 1

    monkeypatch.setattr(Executor, "WaitRuns", once)
    await executor.stop()
    await executor.start()
    assert (await client.wait("run")).id == "run"
    assert executor.streams > 1


async def test_a_wait_is_asked_again_from_time_to_time(
    executor: Executor, client: stepwire.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "WAIT_SECONDS", 0.1)
    executor.script("WaitRun", *[lambda request, context: asyncio.sleep(60)] * 3, ended)
    assert (await client.wait("run")).id == "run"
    assert executor.streams == 1


async def test_a_stream_that_nobody_needs_is_ended_and_opened_again(
    executor: Executor, client: stepwire.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gathering, "IDLE_SECONDS", 0.05)
    ended_streams: list[int] = []
    serve = Executor.WaitRuns

    async def noted(self: Executor, requests: Any, context: Any) -> None:
        await serve(self, requests, context)
        ended_streams.append(self.streams)

    monkeypatch.setattr(Executor, "WaitRuns", noted)
    await executor.stop()
    await executor.start()
    executor.script("WaitRun", lambda request, context: asyncio.sleep(0.5, ended(request, context)), ended)
    assert (await client.wait("slow")).id == "slow", "it lasts while somebody waits, however long"
    async with asyncio.timeout(20):
        while not ended_streams:  # noqa: ASYNC110 - a stream's end is told to nobody
            await asyncio.sleep(0.01)
    assert (await client.wait("run")).id == "run"
    assert (ended_streams[0], executor.streams) == (1, 2)
    assert not caplog.records


async def test_very_many_waits_are_asked_for_in_several_messages(
    executor: Executor, client: stepwire.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "RUNS_TOGETHER", 20)
    executor.script("WaitRun", ended)
    names = [f"run-{number}" for number in range(50)]
    assert [run.id for run in await asyncio.gather(*map(client.wait, names))] == names
    assert [list(each.run_ids) for each in executor.waits] == [names[:20], names[20:40], names[40:]]
