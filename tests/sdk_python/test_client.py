"""Both clients against a real gRPC server, which answers as each test tells it to."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, use_span

import stepwire
from stepwire import calls, records
from stepwire.channel import executor_address
from stepwire.errors import EncodingError, ExecutorError, Failure, RunFailedError, StepwireError
from stepwire.payload import Payload
from stepwire.records import CauseKind, RunState, StepKind, StepState, WorkerState
from stepwire.replay.model import Retry, StepKey
from stepwire_proto.v1 import (
    admin_pb2,
    event_pb2,
    opcode_pb2,
    run_pb2,
    value_pb2,
    worker_pb2,
)
from tests.sdk_python.answering import Answer, Executor, receipts, refuse

RUN = "01J8ZK3E5V2QW4T6Y8A0B1C2D3"
AT = Timestamp(seconds=1_900_000_000, nanos=125_000_000)


def payload(text: str) -> value_pb2.Payload:
    return value_pb2.Payload(data=text.encode(), encoding="json")


def ended(state: Any = run_pb2.RUN_STATE_SUCCEEDED, **fields: Any) -> run_pb2.Run:
    return run_pb2.Run(id=RUN, app="shop", function_id="ship", state=state, **fields)


def waited(run: run_pb2.Run) -> run_pb2.WaitRunResponse:
    return run_pb2.WaitRunResponse(run=run)


class InThread:
    """A SyncClient whose methods are awaited: each runs in a thread, so that the server's loop goes on."""

    def __init__(self, client: stepwire.SyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if name in ("list", "steps", "watch"):
            return lambda *args, **options: self._iterate(method, args, options)
        return lambda *args, **options: asyncio.to_thread(method, *args, **options)

    async def _iterate(self, method: Any, args: Any, options: Any) -> AsyncIterator[Any]:
        found = iter(method(*args, **options))
        end = object()
        while (each := await asyncio.to_thread(next, found, end)) is not end:
            yield each


@pytest.fixture
async def executor() -> AsyncIterator[Executor]:
    executor = Executor()
    await executor.start()
    yield executor
    await executor.stop()


Connect = Callable[..., Any]


@pytest.fixture(params=["async", "sync"])
async def connect(request: pytest.FixtureRequest, executor: Executor) -> AsyncIterator[Connect]:
    """Give what makes a client of either kind for the executor."""
    made: list[Any] = []

    def connect(**options: Any) -> Any:
        kind = stepwire.Client if request.param == "async" else stepwire.SyncClient
        client = kind(executor.address, **options)
        made.append(client)
        return client if isinstance(client, stepwire.Client) else InThread(client)

    yield connect
    for client in made:
        if isinstance(client, stepwire.Client):
            await client.close()
        else:
            client.close()


@pytest.fixture
def client(connect: Connect) -> Any:
    return connect()


# Sending events.


async def test_send_gives_the_receipt(executor: Executor, client: Any) -> None:
    executor.script("SendEvents", receipts)
    receipt = await client.send("order/paid", {"id": 7}, id="mine", time=datetime(2030, 1, 1, tzinfo=UTC))
    assert receipt == stepwire.EventReceipt("mine", ("run-of-mine",), False)
    (event,) = executor.requests[0].events
    assert (event.id, event.name, event.data.data, event.data.encoding) == ("mine", "order/paid", b'{"id":7}', "json")
    assert event.time.ToDatetime(UTC) == datetime(2030, 1, 1, tzinfo=UTC)


async def test_an_event_without_an_id_gets_one(executor: Executor, client: Any) -> None:
    executor.script("SendEvents", receipts)
    one, two = await client.send("a"), await client.send("a", id="")
    assert len(one.event_id) == 32
    assert one.event_id != two.event_id
    assert executor.requests[0].events[0].data.data == b"null"


async def test_a_duplicate_is_told_for_ids_that_users_give(executor: Executor, client: Any) -> None:
    def seen_before(request: Any, _: Any) -> Any:
        response = receipts(request, _)
        for receipt in response.receipts:
            receipt.duplicate = True
        return response

    executor.script("SendEvents", seen_before)
    mine, made = await client.send_many([stepwire.Event("a", 1, id="mine"), ("a", 2)])
    assert mine.duplicate
    assert not made.duplicate, "an id that was just made can only be our own repeated call"


async def test_many_events_go_in_calls_of_5000(executor: Executor, client: Any) -> None:
    executor.script("SendEvents", receipts)
    sent = await client.send_many([stepwire.Event("a", n, id=f"e{n}") for n in range(10_001)])
    assert [len(request.events) for request in executor.requests] == [5000, 5000, 1]
    assert [receipt.event_id for receipt in sent] == [f"e{n}" for n in range(10_001)]


async def test_large_events_go_in_calls_of_3_mib(executor: Executor, client: Any) -> None:
    executor.script("SendEvents", receipts)
    await client.send_many([("a", "x" * 1_000_000)] * 7 + [("a", "x" * 4_000_000), ("a", 1)])
    assert [len(request.events) for request in executor.requests] == [3, 3, 1, 1, 1]


async def test_no_events_are_no_call(executor: Executor, client: Any) -> None:
    assert await client.send_many([]) == []
    assert not executor.requests


async def test_a_failure_among_several_calls_says_how_far_it_came(executor: Executor, client: Any) -> None:
    executor.script("SendEvents", receipts, refuse(grpc.StatusCode.ALREADY_EXISTS, "event id 'x' was used"))
    with pytest.raises(ExecutorError) as caught:
        await client.send_many([("a", n) for n in range(5001)])
    assert caught.value.code == "ALREADY_EXISTS"
    assert caught.value.__notes__ == ["5000 of 5001 events were sent by calls before this one"]


@pytest.mark.parametrize("method", ["get", "wait", "result", "cancel", "why"])
async def test_asking_for_no_run_says_that_the_event_started_none(executor: Executor, client: Any, method: str) -> None:
    for none in ("", None):
        with pytest.raises(StepwireError, match=r"is no run's id: .* the event started no run"):
            await getattr(client, method)(none)
    assert executor.requests == []


async def test_what_can_t_be_encoded_is_not_sent(executor: Executor, client: Any) -> None:
    with pytest.raises(EncodingError, match="data of event 'b' can't be encoded"):
        await client.send_many([("a", 1), ("b", object())])
    with pytest.raises(TypeError, match="is no event"):
        await client.send_many(["a"])
    assert not executor.requests


async def test_the_current_span_goes_with_the_event(executor: Executor, client: Any) -> None:
    executor.script("SendEvents", receipts)
    context = SpanContext(0xABC, 0xDEF, True, TraceFlags(1), TraceState([("vendor", "x")]))
    with use_span(NonRecordingSpan(context)):
        await client.send("a")
        await client.send("a", traceparent="00-1-2-03", tracestate="k=v")
    await client.send("a")
    sent = [(each.events[0].traceparent, each.events[0].tracestate) for each in executor.requests]
    assert sent == [(f"00-{0xABC:032x}-{0xDEF:016x}-01", "vendor=x"), ("00-1-2-03", "k=v"), ("", "")]


# Errors.


async def test_the_fields_of_a_bad_request_are_told(executor: Executor, client: Any) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="events[0].name", description="it is empty")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    executor.script("SendEvents", refuse(grpc.StatusCode.INVALID_ARGUMENT, "events[0].name: it is empty", bad))
    with pytest.raises(ExecutorError, match="it is empty") as caught:
        await client.send("")
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.fields == (("events[0].name", "it is empty"),)
    assert len(executor.requests) == 1, "what is wrong stays wrong"


async def test_an_error_without_details_is_told(executor: Executor, client: Any) -> None:
    executor.script("GetRun", refuse(grpc.StatusCode.NOT_FOUND, "there is no run 'x'"))
    with pytest.raises(ExecutorError, match=r"^there is no run 'x'$") as caught:
        await client.get("x")
    assert (caught.value.code, caught.value.fields) == ("NOT_FOUND", ())


async def test_details_that_are_nonsense_do_not_hide_the_error(executor: Executor, client: Any) -> None:
    async def answer(_: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no run", (("grpc-status-details-bin", b"\xff\xff"),))

    executor.script("GetRun", answer)
    with pytest.raises(ExecutorError, match="no run"):
        await client.get("x")


async def test_a_full_executor_is_asked_again_after_the_delay_it_wants(executor: Executor, client: Any) -> None:
    wait = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=200_000_000))
    executor.script("SendEvents", refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", wait), receipts)
    receipt = await client.send("a")
    first, second = executor.requests
    assert first == second
    assert receipt.event_id == first.events[0].id
    assert executor.times[1] - executor.times[0] >= 0.2


async def test_a_call_over_a_limit_is_not_made_again(executor: Executor, client: Any) -> None:
    executor.script("SendEvents", refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "message too large"))
    with pytest.raises(ExecutorError, match="too large"):
        await client.send("a")
    assert len(executor.requests) == 1


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "INTERNAL"])
async def test_an_unavailable_executor_is_asked_again_with_the_same_ids(
    executor: Executor, client: Any, code: str
) -> None:
    executor.script("SendEvents", *[refuse(grpc.StatusCode[code], "draining")] * 3, receipts)
    await client.send_many([("a", 1), ("a", 2)])
    assert len(executor.requests) == 4
    assert all(request == executor.requests[0] for request in executor.requests)


async def test_nobody_at_the_address_is_told_with_the_address(executor: Executor, connect: Connect) -> None:
    await executor.stop()
    client = connect(retry_for=0.3)
    begun = time.monotonic()
    with pytest.raises(ExecutorError, match=rf"\(executor {executor.address}\)") as caught:
        await client.get(RUN)
    assert caught.value.code == "UNAVAILABLE"
    assert time.monotonic() - begun >= 0.3


async def test_of_several_executors_the_one_is_asked_that_does_not_stand_by(executor: Executor) -> None:
    standby, dead = Executor(), Executor()
    await standby.start()
    await dead.start()
    await dead.stop()
    standby.script("GetRun", refuse(grpc.StatusCode.UNAVAILABLE, "this executor is a standby"))
    executor.script("GetRun", run_pb2.GetRunResponse(run=ended()))
    address = f"{dead.address},{standby.address},{executor.address}"
    async with stepwire.Client(address, retry_for=20) as client:
        for _ in range(3):
            assert (await client.get(RUN)).id == RUN
    assert (len(standby.requests), len(executor.requests)) == (1, 3)

    def ask() -> str:
        with stepwire.SyncClient(address, retry_for=20) as sync_client:
            return [sync_client.get(RUN).id for _ in range(3)][-1]

    assert await asyncio.to_thread(ask) == RUN
    assert (len(standby.requests), len(executor.requests)) == (2, 6)
    await standby.stop()


@pytest.mark.parametrize("code", ["CANCELLED", "INTERNAL"])
async def test_calls_that_are_cut_off_are_told_as_what_they_are(
    executor: Executor, connect: Connect, code: str
) -> None:
    executor.script("GetRun", refuse(grpc.StatusCode[code], ""), refuse(grpc.StatusCode[code], "by a proxy"))
    for text in (code, f"{code} by a proxy"):
        with pytest.raises(ExecutorError, match=rf"^the call was cut off: {text} \(executor") as caught:
            await connect(retry_for=0).get(RUN)
        assert caught.value.code == "UNAVAILABLE"


async def test_a_bug_of_the_executors_is_told_at_once_and_as_its_own(executor: Executor, client: Any) -> None:
    bug = error_details_pb2.ErrorInfo(reason="DECISION_FAILED", domain="stepwire")
    executor.script("SendEvents", refuse(grpc.StatusCode.INTERNAL, "a bug keeps it from being decided", bug))
    with pytest.raises(ExecutorError, match=r"^a bug keeps it from being decided$") as caught:
        await client.send("a")
    assert caught.value.code == "INTERNAL"
    assert len(executor.requests) == 1


async def test_without_patience_the_first_loss_is_told(executor: Executor, connect: Connect) -> None:
    executor.script("GetRun", refuse(grpc.StatusCode.UNAVAILABLE, "draining"))
    with pytest.raises(ExecutorError, match="draining"):
        await connect(retry_for=0).get(RUN)
    assert len(executor.requests) == 1


async def test_an_executor_that_does_not_answer_is_given_up(executor: Executor, connect: Connect) -> None:
    executor.script("GetRun", lambda request, context: asyncio.sleep(60))
    with pytest.raises(ExecutorError) as caught:
        await connect(timeout=0.2).get(RUN)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert executor.address in str(caught.value)


# Waiting.


async def test_wait_gives_the_run_that_ended(executor: Executor, client: Any) -> None:
    executor.script("WaitRun", waited(ended(output=payload("5"))))
    run = await client.wait(RUN)
    assert (run.id, run.function, run.state, run.output) == (RUN, "ship", RunState.SUCCEEDED, Payload(b"5", "json"))
    assert executor.requests == [run_pb2.WaitRunRequest(run_id=RUN)]


async def test_a_wait_goes_on_after_the_deadline_of_its_call(
    executor: Executor, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "WAIT_SECONDS", 0.15)
    executor.script("WaitRun", *[lambda request, context: asyncio.sleep(60)] * 2, waited(ended()))
    assert (await client.wait(RUN)).state is RunState.SUCCEEDED
    assert len(executor.requests) == 3


async def test_a_wait_ends_when_its_time_is_over(
    executor: Executor, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "WAIT_SECONDS", 0.05)
    executor.script("WaitRun", lambda request, context: asyncio.sleep(60))
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=f"run {RUN} has not ended within 2 s") as caught:
        await client.wait(RUN, timeout=2.0)
    assert isinstance(caught.value, stepwire.WaitTimeoutError)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - begun >= 1.95
    assert len(executor.requests) >= 2, "the time is that of all calls together"


async def test_a_wait_survives_a_restart_of_the_executor(
    executor: Executor, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    asked = asyncio.Event()

    async def never(_: Any, __: Any) -> Any:
        asked.set()
        await asyncio.sleep(60)

    executor.script("WaitRun", never, waited(ended(output=payload('"done"'))))
    waiting = asyncio.ensure_future(connect(retry_for=0).result(RUN))
    await asked.wait()
    await executor.stop()
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await executor.start()
    assert await waiting == "done"
    assert [record.levelname for record in caplog.records if record.name == "stepwire.client"] == ["WARNING"]


async def test_a_wait_for_an_executor_that_stays_away_ends_with_that(executor: Executor, client: Any) -> None:
    await executor.stop()
    with pytest.raises(ExecutorError) as caught:
        await client.wait(RUN, timeout=3.0)  # a busy machine may need most of a second to notice
    assert caught.value.code == "UNAVAILABLE"


async def test_a_wait_for_a_run_that_is_not_there_ends_at_once(executor: Executor, client: Any) -> None:
    executor.script("WaitRun", refuse(grpc.StatusCode.NOT_FOUND, "there is no run"))
    with pytest.raises(ExecutorError, match="there is no run"):
        await client.wait(RUN)


async def test_a_cancelled_wait_ends(executor: Executor) -> None:
    gone = asyncio.Event()

    async def until_cancelled(_: Any, __: Any) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()

    executor.script("WaitRun", until_cancelled)
    async with stepwire.Client(executor.address) as client:
        waiting = asyncio.create_task(client.wait(RUN))
        await executor.asked(1)
        waiting.cancel()
        await asyncio.wait_for(gone.wait(), 10)


async def test_result_gives_the_output_as_its_type(executor: Executor, client: Any) -> None:
    executor.script("WaitRun", waited(ended(output=payload('"2030-01-01T00:00:00Z"'))))
    assert await client.result(RUN) == "2030-01-01T00:00:00Z"
    assert await client.result(RUN, output_type=datetime) == datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(EncodingError, match=f"the output of run {RUN} can't be read as int"):
        await client.result(RUN, output_type=int)


async def test_a_run_without_an_output_gives_none(executor: Executor, client: Any) -> None:
    executor.script("WaitRun", waited(ended()))
    assert await client.result(RUN) is None


@pytest.mark.parametrize(
    ("run", "failure"),
    [
        (
            ended(run_pb2.RUN_STATE_FAILED, failure=value_pb2.Failure(type="ValueError", message="no", retryable=True)),
            Failure("ValueError", "no"),
        ),
        (
            ended(run_pb2.RUN_STATE_CANCELLED, cancel_reason="not needed"),
            Failure("RunCancelledError", "not needed", retryable=False),
        ),
    ],
)
async def test_the_result_of_a_run_that_did_not_succeed_is_its_failure(
    executor: Executor, client: Any, run: run_pb2.Run, failure: Failure
) -> None:
    executor.script("WaitRun", waited(run))
    with pytest.raises(RunFailedError, match=f"run {RUN} failed: {failure}") as caught:
        await client.result(RUN)
    assert (caught.value.run_id, caught.value.failure) == (RUN, failure)


class Zipped:
    def encode(self, payload: Payload) -> Payload:
        return Payload(zlib.compress(payload.data), "zipped", {"inner": payload.encoding})

    def decode(self, payload: Payload) -> Payload:
        return Payload(zlib.decompress(payload.data), payload.metadata["inner"])


async def test_a_codec_is_applied_to_what_is_sent_and_read(executor: Executor, connect: Connect) -> None:
    client = connect(codec=Zipped())
    executor.script("SendEvents", receipts)
    await client.send("a", {"secret": 1})
    data = executor.requests[0].events[0].data
    assert (data.encoding, dict(data.metadata)) == ("zipped", {"inner": "json"})
    executor.script("WaitRun", waited(ended(output=data)))
    assert await client.result(RUN) == {"secret": 1}


# Looking.


def step_message(number: int, **fields: Any) -> run_pb2.Step:
    key = value_pb2.StepKey(id="s", index=number - 1)
    return run_pb2.Step(key=key, number=number, state=run_pb2.STEP_STATE_SUCCEEDED, kind=1, **fields)


async def test_get_reads_all_of_a_run(executor: Executor, client: Any) -> None:
    message = run_pb2.Run(
        id=RUN,
        app="shop",
        function_id="ship",
        state=run_pb2.RUN_STATE_RUNNING,
        event=event_pb2.Event(id="e", name="order/paid", data=payload("1"), time=AT),
        created_at=AT,
        failure=value_pb2.Failure(type="ValueError", message="last"),
        attempt=2,
        lost_invocations=1,
        parent_run_id="p",
        parent_step=value_pb2.StepKey(id="call", index=1),
        step_counts=[run_pb2.StepCount(state=run_pb2.STEP_STATE_READY, count=3)],
        traceparent="00-1",
        cancel_reason="no",
        lead_worker="w",
        payloads_omitted=True,
    )
    executor.script("GetRun", run_pb2.GetRunResponse(run=message))
    run = await client.get(RUN)
    when = datetime.fromtimestamp(1_900_000_000.125, UTC)
    assert (run.state, run.state.value, run.state.ended) == (RunState.RUNNING, "running", False)
    assert (run.event.id, run.event.name, run.event.data, run.event.time) == ("e", "order/paid", Payload(b"1"), when)
    assert (run.created_at, run.started_at, run.ended_at, run.output) == (when, None, None, None)
    assert (run.failure.type, run.attempt, run.lost_invocations) == ("ValueError", 2, 1)
    assert (run.parent_run_id, run.parent_step) == ("p", StepKey("call", 1))
    assert run.step_counts == {StepState.READY: 3}
    assert (run.traceparent, run.cancel_reason, run.lead_worker, run.steps) == ("00-1", "no", "w", None)
    assert run.payloads_omitted
    assert executor.requests == [run_pb2.GetRunRequest(run_id=RUN)]


def pages_of_steps(count: int, bytes_each: int = 0) -> Answer:
    """Answer GetRun as an executor does that has a run with so many steps."""

    def answer(request: run_pb2.GetRunRequest, _: Any) -> run_pb2.GetRunResponse:
        begin = int(request.page_token or "0")
        numbers = range(begin + 1, min(begin + request.page_size, count) + 1)
        response = run_pb2.GetRunResponse(run=ended())
        for number in numbers:
            step = response.steps.add()
            step.CopyFrom(step_message(number))
            if request.include_outputs:
                step.output.data = b"x" * bytes_each
        if numbers and numbers[-1] < count:
            response.next_page_token = str(numbers[-1])
        return response

    return answer


async def test_steps_come_over_all_pages(executor: Executor, client: Any) -> None:
    executor.script("GetRun", pages_of_steps(2500))
    assert [step.number async for step in client.steps(RUN)] == list(range(1, 2501))
    assert [request.page_size for request in executor.requests] == [1000] * 3
    run = await client.get(RUN, steps=True)
    assert [step.number for step in run.steps] == list(range(1, 2501))
    assert run.id == RUN


async def test_steps_whose_outputs_are_too_large_for_a_page_come_in_smaller_ones(
    executor: Executor, client: Any
) -> None:
    executor.script("GetRun", pages_of_steps(60, bytes_each=1 << 20))
    found = [step async for step in client.steps(RUN, outputs=True)]
    assert [step.number for step in found] == list(range(1, 61))
    assert all(len(step.output.data) == 1 << 20 for step in found)


async def test_a_step_is_read_whole(executor: Executor, client: Any) -> None:
    failed = run_pb2.FailedAttempt(
        number=1, worker="w1", started_at=AT, failure=value_pb2.Failure(type="A", message="b", retryable=True)
    )
    message = run_pb2.Step(
        key=value_pb2.StepKey(id="s", index=2),
        kind=opcode_pb2.STEP_KIND_WAIT_FOR_EVENT,
        state=run_pb2.STEP_STATE_RETRYING,
        number=3,
        sequence=4,
        attempt=2,
        worker="w",
        planned_at=AT,
        due_at=AT,
        output=payload("1"),
        failed_attempts=[failed],
        target="order/paid",
        child_run_id="c",
    )
    unknown = run_pb2.Step(key=value_pb2.StepKey(id="t"), state=99, kind=99)  # type: ignore[arg-type]
    executor.script("GetRun", run_pb2.GetRunResponse(run=ended(), steps=[message, unknown]))
    step, strange = [each async for each in client.steps(RUN)]
    when = datetime.fromtimestamp(1_900_000_000.125, UTC)
    assert (step.key, step.kind, step.state) == (StepKey("s", 2), StepKind.WAIT_FOR_EVENT, StepState.RETRYING)
    assert (step.number, step.sequence, step.attempt, step.worker) == (3, 4, 2, "w")
    assert (step.planned_at, step.started_at, step.ended_at, step.due_at) == (when, None, None, when)
    assert (step.output, step.failure, step.target, step.child_run_id) == (Payload(b"1"), None, "order/paid", "c")
    (attempt,) = step.failed_attempts
    assert (attempt.number, attempt.worker, attempt.started_at, attempt.ended_at) == (1, "w1", when, None)
    assert attempt.failure == Failure("A", "b")
    assert (strange.state, strange.kind) == (StepState.UNKNOWN, StepKind.UNKNOWN)


async def test_list_goes_over_all_pages_with_its_filter(executor: Executor, client: Any) -> None:
    executor.script(
        "ListRuns",
        run_pb2.ListRunsResponse(runs=[ended(), ended()], next_page_token="next"),
        run_pb2.ListRunsResponse(runs=[ended(run_pb2.RUN_STATE_FAILED)]),
    )
    options = {
        "app": "shop",
        "function": "ship",
        "states": [RunState.SUCCEEDED, "failed"],
        "event_id": "e",
        "parent_run_id": "p",
        "created_after": datetime.fromtimestamp(1_900_000_000.125, UTC),
        "created_before": datetime(2031, 1, 1, tzinfo=UTC),
    }
    found = [run.state.value async for run in client.list(**options)]
    assert found == ["succeeded", "succeeded", "failed"]
    first, second = executor.requests
    assert (first.app, first.function_id, first.event_id, first.parent_run_id) == ("shop", "ship", "e", "p")
    assert list(first.states) == [run_pb2.RUN_STATE_SUCCEEDED, run_pb2.RUN_STATE_FAILED]
    assert first.created_after == AT
    assert (first.page_token, second.page_token, second.app) == ("", "next", "shop")


async def test_a_state_that_does_not_exist_is_refused(client: Any) -> None:
    with pytest.raises(ValueError, match="'done' is not a valid RunState"):
        [run async for run in client.list(states=["done"])]


async def test_watch_gives_what_changes_until_the_end(executor: Executor, client: Any) -> None:
    executor.script(
        "WatchRun",
        [
            run_pb2.WatchRunResponse(run=ended(run_pb2.RUN_STATE_RUNNING), steps=[step_message(1)]),
            run_pb2.WatchRunResponse(run=ended()),
        ],
    )
    updates = [update async for update in client.watch(RUN)]
    assert [(update.run.state.value, len(update.steps)) for update in updates] == [("running", 1), ("succeeded", 0)]


async def test_a_watch_that_breaks_off_says_so(executor: Executor, client: Any) -> None:
    async def watch(_: Any, context: Any) -> Any:
        async def broken() -> Any:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

        return [run_pb2.WatchRunResponse(run=ended(run_pb2.RUN_STATE_RUNNING)), broken()]

    executor.script("WatchRun", watch)
    updates = client.watch(RUN)
    assert (await anext(updates)).run.state is RunState.RUNNING
    with pytest.raises(ExecutorError, match="draining") as caught:
        await anext(updates)
    assert caught.value.code == "UNAVAILABLE"


async def test_leaving_a_watch_ends_its_stream(executor: Executor) -> None:
    gone = asyncio.Event()

    def answer(_: Any, context: Any) -> Any:
        context.add_done_callback(lambda _: gone.set())
        first = run_pb2.WatchRunResponse(run=ended(run_pb2.RUN_STATE_RUNNING))
        return [first, asyncio.get_running_loop().create_future()]  # the second never comes

    executor.script("WatchRun", answer)
    async with stepwire.Client(executor.address) as client:
        updates = client.watch(RUN)
        assert (await anext(updates)).run.id == RUN
        assert not gone.is_set()
        await updates.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(gone.wait(), 10)


async def test_cancel_gives_the_run_as_it_is_then(executor: Executor, client: Any) -> None:
    executor.script("CancelRun", run_pb2.CancelRunResponse(run=ended(run_pb2.RUN_STATE_CANCELLED)))
    assert (await client.cancel(RUN, "not needed")).state is RunState.CANCELLED
    assert executor.requests == [run_pb2.CancelRunRequest(run_id=RUN, reason="not needed")]


async def test_why_gives_causes_with_their_own(executor: Executor, client: Any) -> None:
    inner = run_pb2.Cause(kind=run_pb2.CAUSE_KIND_SLEEP, text="step nap sleeps", due_at=AT)
    outer = run_pb2.Cause(
        kind=run_pb2.CAUSE_KIND_CHILD_RUN,
        text="step call waits",
        step=value_pb2.StepKey(id="call", index=1),
        step_count=1,
        run_id="child",
        failure=value_pb2.Failure(type="ValueError", message="bad"),
        causes=[inner],
    )
    newer = run_pb2.Cause(kind=99, text="something new")  # type: ignore[arg-type]
    executor.script("ExplainRun", run_pb2.ExplainRunResponse(causes=[outer, newer]))
    call, unknown = await client.why(RUN)
    assert executor.requests == [run_pb2.ExplainRunRequest(run_id=RUN)]
    assert (call.kind, call.text, call.run_id) == (CauseKind.CHILD_RUN, "step call waits", "child")
    assert (str(call.step), call.since, call.failure.type) == ("call:1", None, "ValueError")
    (sleep,) = call.causes
    assert (sleep.kind, sleep.due_at.timestamp()) == (CauseKind.SLEEP, AT.seconds + AT.nanos / 1e9)
    assert (unknown.kind, unknown.text) == (CauseKind.UNKNOWN, "something new")


def test_the_kinds_of_causes_are_those_of_the_contract() -> None:
    numbers = run_pb2.CauseKind.DESCRIPTOR.values_by_number
    assert {number: kind.value for number, kind in records.CAUSE_KINDS.items() if number} == {
        number: value.name.removeprefix("CAUSE_KIND_").lower() for number, value in numbers.items() if number
    }


async def test_workers_and_functions_are_listed(executor: Executor, client: Any) -> None:
    worker = admin_pb2.Worker(
        instance_id="w",
        state=admin_pb2.WORKER_STATE_DRAINING,
        slots=8,
        slots_taken=3,
        function_ids=["f"],
        tasks=["t"],
        labels={"zone": "a"},
        connected_at=AT,
        idle=Duration(seconds=1),
        loop_lag=Duration(nanos=500_000_000),
    )
    options = worker_pb2.FunctionOptions(
        id="f",
        triggers=[worker_pb2.Trigger(event_name="a")],
        retry=value_pb2.RetryPolicy(retries=2),
        run_timeout=Duration(seconds=9),
    )
    functions = [admin_pb2.Function(app="shop", options=options, workers=2), admin_pb2.Function(app="shop")]
    executor.script("ListWorkers", admin_pb2.ListWorkersResponse(workers=[worker]))
    executor.script("ListFunctions", admin_pb2.ListFunctionsResponse(functions=functions))
    (shown,) = await client.workers(app="shop")
    assert (shown.instance_id, shown.state, shown.slots, shown.slots_taken) == ("w", WorkerState.DRAINING, 8, 3)
    assert (shown.function_ids, shown.tasks, shown.labels) == (("f",), ("t",), {"zone": "a"})
    assert (shown.idle, shown.loop_lag) == (1.0, 0.5)
    first, second = await client.functions()
    assert (first.id, first.triggers, first.retry, first.run_timeout) == ("f", ("a",), Retry(2), 9.0)
    assert (first.app, first.workers, second.retry, second.run_timeout) == ("shop", 2, None, None)
    assert [request.app for request in executor.requests] == ["shop", ""]


async def test_lists_of_workers_and_functions_are_read_to_their_last_page(executor: Executor, client: Any) -> None:
    def workers(request: admin_pb2.ListWorkersRequest, _: Any) -> admin_pb2.ListWorkersResponse:
        page = int(request.page_token or 0)
        worker = admin_pb2.Worker(instance_id=f"{request.app}-{page}", state=1)
        return admin_pb2.ListWorkersResponse(workers=[worker], next_page_token=str(page + 1) if page < 2 else "")

    def functions(request: admin_pb2.ListFunctionsRequest, _: Any) -> admin_pb2.ListFunctionsResponse:
        function = admin_pb2.Function(app="shop", options=worker_pb2.FunctionOptions(id=request.page_token or "first"))
        return admin_pb2.ListFunctionsResponse(functions=[function], next_page_token="" if request.page_token else "b")

    executor.script("ListWorkers", workers)
    executor.script("ListFunctions", functions)
    assert [worker.instance_id for worker in await client.workers(app="shop")] == ["shop-0", "shop-1", "shop-2"]
    assert [function.id for function in await client.functions()] == ["first", "b"]


# The clients themselves.


async def test_a_closed_client_says_so(executor: Executor, connect: Connect) -> None:
    client = connect()
    await client.close()
    await client.close()
    with pytest.raises(StepwireError, match="this client is closed"):
        await client.get(RUN)


def test_a_client_belongs_to_one_loop() -> None:
    client = stepwire.Client("127.0.0.1:1", retry_for=0)

    async def ask() -> None:
        with pytest.raises(ExecutorError):
            await client.get(RUN)

    async def ask_elsewhere() -> None:
        with pytest.raises(StepwireError, match="belongs to another event loop"):
            await client.get(RUN)

    loops = [asyncio.new_event_loop() for _ in range(2)]
    loops[0].run_until_complete(ask())
    loops[1].run_until_complete(ask_elsewhere())
    loops[0].run_until_complete(client.close())
    for loop in loops:
        loop.close()


async def test_several_threads_may_use_a_sync_client(executor: Executor) -> None:
    executor.script("SendEvents", receipts)
    with stepwire.SyncClient(executor.address) as client:
        sent = await asyncio.gather(*[asyncio.to_thread(client.send, "a", n, id=f"e{n}") for n in range(20)])
    assert [receipt.event_id for receipt in sent] == [f"e{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("address", "variable", "found"),
    [
        (None, None, "127.0.0.1:8377"),
        (None, "", "127.0.0.1:8377"),
        (None, "box:1", "box:1"),
        ("other:2", "box:1", "other:2"),
        ("[::1]:8377", None, "[::1]:8377"),
        ("unix:/run/stepwire.sock", None, "unix:/run/stepwire.sock"),
        ("one:1,two:2, three:3", None, "one:1,two:2,three:3"),
        (None, "one:1,two:2", "one:1,two:2"),
    ],
)
def test_the_address_is_given_or_in_the_environment(address: str | None, variable: str | None, found: str) -> None:
    environment = {} if variable is None else {"STEPWIRE_EXECUTOR": variable}
    assert executor_address(address, environment) == found


@pytest.mark.parametrize(
    "address",
    ["box", "box:", "box:1,", "box:1,rack", ":8377", "box:x", "box:0", "box:70000", "http://box:8377"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(StepwireError, match="is no address of an executor: give HOST:PORT"):
        stepwire.Client(address)
    with pytest.raises(StepwireError, match=r"\(from STEPWIRE_EXECUTOR\)"):
        executor_address(None, {"STEPWIRE_EXECUTOR": address})


# When a call is made again; time is an argument.


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


LOST = ExecutorError("UNAVAILABLE", "gone")
GET = calls.Call("m", run_pb2.GetRunRequest(), run_pb2.GetRunResponse)
WAIT = calls.Call("m", run_pb2.WaitRunRequest(), run_pb2.WaitRunResponse, waits_for="run x")


@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.999])
def test_the_backoff_grows_to_two_seconds_and_is_drawn_below_that(drawn: float) -> None:
    patience = calls.Patience(WAIT, None, 0.0, Clock(), lambda: drawn)
    delays = [patience.delay_after(LOST) for _ in range(8)]
    assert delays == pytest.approx([0.02 + drawn * min(2.0, 0.1 * 2**n) for n in range(8)])


def test_a_call_is_given_up_when_the_executor_was_away_for_too_long() -> None:
    clock = Clock()
    patience = calls.Patience(GET, 30.0, 5.0, clock, lambda: 0.5)
    for _ in range(6):
        patience.delay_after(LOST)
        clock.now += 0.9
    with pytest.raises(ExecutorError, match="gone"):
        patience.delay_after(LOST)


def test_no_call_is_made_again_after_the_timeout() -> None:
    clock = Clock()
    patience = calls.Patience(GET, 1.0, 60.0, clock, lambda: 0.0)
    assert patience.deadline() == 1.0
    clock.now += 0.9
    assert patience.deadline() == pytest.approx(0.1)
    patience.delay_after(LOST)
    clock.now += 0.09
    with pytest.raises(ExecutorError, match="gone"):
        patience.delay_after(LOST)


def test_a_wait_without_a_timeout_never_gives_up() -> None:
    clock = Clock()
    patience = calls.Patience(WAIT, None, 0.0, clock, lambda: 1.0)
    for _ in itertools.repeat(None, 1000):
        assert patience.delay_after(LOST) <= 2.02
        clock.now += 3600
    assert patience.deadline() == 30.0


def test_a_free_port_is_refused_at_once() -> None:
    """What the tests above rely on: nobody answers where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        stepwire.SyncClient(f"127.0.0.1:{port}", retry_for=0) as client,
        pytest.raises(ExecutorError, match=r"(?i)connect"),
    ):
        client.workers()
