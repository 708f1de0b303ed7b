"""Bad inputs over real streams and calls: a clear error for whoever sent them, and nothing lost for anybody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from stepwire.testing import ExecutorProcess
from stepwire_proto.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    opcode_pb2,
    run_pb2,
    run_pb2_grpc,
    value_pb2,
    worker_pb2,
)
from tests.executor.peer import Peer, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    settings = {"max_event_bytes": 10_000, "max_events_per_call": 20, "heartbeat_interval": 0.5, "session_grace": 1}
    with ExecutorProcess(settings=settings) as process:
        yield process


def function(id: str, event: str, retries: int | None = None) -> worker_pb2.FunctionOptions:
    options = worker_pb2.FunctionOptions(id=id, triggers=[worker_pb2.Trigger(event_name=event)])
    if retries is not None:
        options.retry.retries = retries
    return options


def json_event(name: str, text: bytes = b"{}", **fields: Any) -> event_pb2.Event:
    return event_pb2.Event(name=name, data=value_pb2.Payload(data=text, encoding="json"), **fields)


def send(channel: grpc.Channel, *events: event_pb2.Event) -> event_pb2.SendEventsResponse:
    return event_pb2_grpc.EventServiceStub(channel).SendEvents(event_pb2.SendEventsRequest(events=events), timeout=20)


def run_of(peer: Peer, channel: grpc.Channel, name: str) -> worker_pb2.Invoke:
    """Connect a peer that serves a function of this name, start a run of it, and give its Invoke."""
    peer.welcome(functions=[function(name, name)])
    send(channel, json_event(name))
    invoke = peer.next("invoke")
    assert isinstance(invoke, worker_pb2.Invoke)
    return invoke


def found(peer: Peer, invoke: worker_pb2.Invoke, *steps: opcode_pb2.StepPlanned) -> None:
    peer.send(
        steps_found=opcode_pb2.StepsFound(
            run_id=invoke.run_id, invocation=invoke.invocation, steps=steps, quiescent=True
        )
    )


def closure(id: str, **fields: Any) -> opcode_pb2.StepPlanned:
    key = value_pb2.StepKey(id=id)
    return opcode_pb2.StepPlanned(key=key, closure=opcode_pb2.ClosureTarget(), **fields)


def ended(channel: grpc.Channel, run_id: str) -> run_pb2.Run:
    return run_pb2_grpc.RunServiceStub(channel).WaitRun(run_pb2.WaitRunRequest(run_id=run_id), timeout=20).run


# Events.


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": }', "offset 6"),
        (b"", "offset 0"),
        (b'{"NaN": NaN}', "NaN at offset 8"),
        (b"[1, -Infinity]", "-Infinity at offset 4"),
        (b"[" * 300 + b"]" * 300, "deeper than 200 levels at offset 200"),
        (b"[" * 5000 + b"]" * 5000, "deeper than 200 levels at offset 200"),
        (b'["1", -' + b"1" * 5000 + b"]", "5000 digits, over the limit of 4300, at offset 6"),
        (b'"\\ud800"', "surrogate (\\ud800) at offset 1"),
        (b'"\\ud83d\\ude00 \\udc00"', "surrogate (\\udc00) at offset 14"),
        (b'"\xff"', "UTF-8 at byte 1"),
        (b'"' + b"x" * 10_000 + b'"', "--max-event-bytes"),
    ],
)
def test_bad_data_of_an_event_is_refused_with_its_place(channel: grpc.Channel, text: bytes, reason: str) -> None:
    code, message, fields = refused(lambda: send(channel, json_event("x"), json_event("x", text)))
    assert (code, fields) == (INVALID, ["events[1].data"])
    assert reason in message


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (json_event(""), "events[0].name"),
        (json_event("x" * 257), "events[0].name"),
        (json_event("stepwire/mine"), "events[0].name"),
        (json_event("x", id="i" * 257), "events[0].id"),
        (json_event("x", time=Timestamp(seconds=1 << 60)), "events[0].time"),
        (json_event("x", time=Timestamp(seconds=253_402_300_799, nanos=999_999_999)), "events[0].time"),
    ],
)
def test_a_bad_field_of_an_event_is_named(channel: grpc.Channel, event: event_pb2.Event, field: str) -> None:
    code, _, fields = refused(lambda: send(channel, event))
    assert (code, fields) == (INVALID, [field])


def test_too_many_events_are_refused_naming_the_limit(channel: grpc.Channel) -> None:
    code, message, _ = refused(lambda: send(channel, *[json_event("x")] * 21))
    assert code is INVALID
    assert "--max-events-per-call" in message


def test_an_event_without_takers_is_kept_and_starts_nothing(channel: grpc.Channel) -> None:
    (receipt,) = send(channel, json_event("nobody/cares")).receipts
    assert receipt.event_id
    assert list(receipt.run_ids) == []


def test_an_event_id_used_for_another_event_is_refused_and_nothing_taken(channel: grpc.Channel) -> None:
    first = send(channel, json_event("x", b"1", id="same"))
    again = send(channel, json_event("x", b"1", id="same"))
    assert first.receipts[0].event_id == again.receipts[0].event_id
    assert again.receipts[0].duplicate
    code, _, fields = refused(lambda: send(channel, json_event("x", id="fresh"), json_event("x", b"2", id="same")))
    assert (code, fields) == (grpc.StatusCode.ALREADY_EXISTS, ["events[1].id"])
    assert not send(channel, json_event("x", id="fresh")).receipts[0].duplicate


def test_nul_and_emoji_in_text_come_back_as_they_were(peer: Peer, channel: grpc.Channel) -> None:
    text = '{"a": "\\u0000 🦜"}'.encode()
    peer.welcome(functions=[function("nul", "nul 🦜")])
    send(channel, json_event("nul 🦜", text))
    invoke = peer.next("invoke")
    assert invoke.events[0].data.data == text
    found(peer, invoke, closure("id \0 🦜"))
    assert peer.next("run_steps").attempts[0].attempt.key.id == "id \0 🦜"


# Calls.


def test_calls_for_a_run_that_does_not_exist_say_so(channel: grpc.Channel) -> None:
    runs = run_pb2_grpc.RunServiceStub(channel)
    calls = [
        lambda: runs.GetRun(run_pb2.GetRunRequest(run_id="nope")),
        lambda: runs.WaitRun(run_pb2.WaitRunRequest(run_id="nope"), timeout=10),
        lambda: list(runs.WatchRun(run_pb2.WatchRunRequest(run_id="nope"))),
        lambda: runs.CancelRun(run_pb2.CancelRunRequest(run_id="nope")),
    ]
    for call in calls:
        code, message, _ = refused(call)
        assert (code, message) == (grpc.StatusCode.NOT_FOUND, "run 'nope' does not exist")


def test_bad_pages_and_filters_are_named(channel: grpc.Channel) -> None:
    runs = run_pb2_grpc.RunServiceStub(channel)
    token = "bm90IGEgdG9rZW4="
    for request, field in [
        (run_pb2.ListRunsRequest(page_size=1001), "page_size"),
        (run_pb2.ListRunsRequest(page_token=token), "page_token"),
        (run_pb2.ListRunsRequest(states=[77]), "states"),  # type: ignore[list-item]
    ]:
        code, _, fields = refused(lambda request=request: runs.ListRuns(request))
        assert (code, fields) == (INVALID, [field])
    code, message, _ = refused(lambda: runs.CancelRun(run_pb2.CancelRunRequest(run_id="x", reason="y" * 1025)))
    assert code is INVALID
    assert "1024" in message


def test_a_page_token_is_good_for_its_own_filter_only(peer: Peer, channel: grpc.Channel) -> None:
    peer.welcome(functions=[function("paged", "paged")])
    send(channel, *[json_event("paged")] * 3)
    runs = run_pb2_grpc.RunServiceStub(channel)
    first = runs.ListRuns(run_pb2.ListRunsRequest(function_id="paged", page_size=2))
    assert len(first.runs) == 2
    rest = runs.ListRuns(run_pb2.ListRunsRequest(function_id="paged", page_size=2, page_token=first.next_page_token))
    assert len(rest.runs) == 1
    assert rest.next_page_token == ""
    assert {run.id for run in first.runs}.isdisjoint({run.id for run in rest.runs})
    code, _, fields = refused(lambda: runs.ListRuns(run_pb2.ListRunsRequest(page_token=first.next_page_token)))
    assert (code, fields) == (INVALID, ["page_token"])


# Streams.


def test_garbage_ends_its_own_stream_only(executor: ExecutorProcess, peer: Peer) -> None:
    other = Peer(executor.address)
    other.welcome()
    peer.welcome()
    peer.frame(b"\xff\xff\xff")
    code, message = peer.status()
    assert code is INVALID
    assert "WorkerFrame" in message
    other.send(heartbeat=worker_pb2.Heartbeat())
    assert not other.ended.wait(0.2)
    other.close()


@pytest.mark.parametrize("frame", [b"", b"\x0a\x00"], ids=["no messages", "a message without a kind"])
def test_an_empty_frame_or_message_is_refused(peer: Peer, frame: bytes) -> None:
    peer.welcome()
    peer.frame(frame)
    assert peer.status()[0] is INVALID


def test_a_message_before_hello_is_refused_naming_it(peer: Peer) -> None:
    peer.send(heartbeat=worker_pb2.Heartbeat())
    code, message = peer.status()
    assert code is PRECONDITION
    assert "heartbeat came before Hello" in message


def test_a_second_hello_is_refused(peer: Peer) -> None:
    peer.welcome()
    peer.hello()
    code, message = peer.status()
    assert code is PRECONDITION
    assert "second Hello" in message


def test_a_newer_protocol_is_refused_with_both_ranges(peer: Peer) -> None:
    peer.hello(min_protocol=7, max_protocol=9)
    code, message = peer.status()
    assert code is PRECONDITION
    assert "7 to 9" in message
    assert "1 to 1" in message


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"slots": 0}, "slots"),
        ({"slots": 10_001}, "slots"),
        ({"app": ""}, "app"),
        ({"app": "a/b"}, "app: 'a/b', but '/' separates the app from a function's id"),
        ({"app": "/"}, "separates"),
        ({"instance_id": "x" * 129}, "instance_id"),
        ({"functions": [function("f", "e"), function("f", "e")]}, "functions"),
        ({"functions": [function("", "e")]}, "functions[0].id"),
        ({"functions": [function("a/b", "e")]}, "functions[0].id"),
        ({"functions": [function("f", "e", retries=101)]}, "--max-retries"),
        ({"tasks": [""]}, "tasks[0]"),
        ({"tasks": ["scale", "cut", "scale"]}, "tasks[2]"),
        ({"max_invocations": 0}, "max_invocations"),
        ({"labels": {"zone": "x" * 100_000}}, "labels"),
        ({"labels": {"x" * 129: "a"}}, "labels"),
        ({"labels": {"": "a"}}, "labels"),
        ({"labels": {str(n): "a" for n in range(65)}}, "labels"),
        ({"app_version": "x" * 129}, "app_version"),
        ({"sdk_name": "x" * 129}, "sdk_name"),
        ({"sdk_version": "x" * 129}, "sdk_version"),
        ({"resume_session": "x" * 129}, "resume_session"),
    ],
)
def test_a_bad_hello_names_the_field(peer: Peer, fields: dict[str, Any], named: str) -> None:
    peer.hello(**fields)
    code, message = peer.status()
    assert code is INVALID
    assert named in message


def test_two_workers_that_disagree_on_a_function_are_told_apart(executor: ExecutorProcess, peer: Peer) -> None:
    first = Peer(executor.address)
    first.welcome(instance_id="the-first", app="disagree", functions=[function("f", "e", retries=1)])
    peer.hello(app="disagree", functions=[function("f", "e", retries=2)])
    code, message = peer.status()
    assert code is PRECONDITION
    assert "disagree/f" in message
    assert "the-first" in message
    first.close()


def test_a_frame_over_the_limit_is_refused(peer: Peer) -> None:
    limit = peer.welcome().limits.max_frame_bytes
    peer.frame(b"x" * (limit + 1))
    code, message = peer.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"--max-frame-bytes={limit}" in message


def test_a_silent_worker_is_let_go(peer: Peer) -> None:
    peer.welcome()
    begun = time.monotonic()
    code, _ = peer.status()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun >= 0.9


def test_a_heartbeat_is_answered_so_that_the_worker_hears_of_the_executor(peer: Peer) -> None:
    peer.welcome()
    peer.send(heartbeat=worker_pb2.Heartbeat())
    answer = peer.next("recorded")
    assert not answer.attempts
    assert not answer.refusals


def test_fragments_out_of_order_are_refused(peer: Peer) -> None:
    peer.welcome()
    peer.send(fragment=worker_pb2.Fragment(id=1, data=b"x"))
    peer.send(fragment=worker_pb2.Fragment(id=2, data=b"x"))
    assert peer.status()[0] is INVALID


# Steps.


def test_a_result_of_an_unknown_attempt_is_answered_and_the_stream_lives(peer: Peer, channel: grpc.Channel) -> None:
    peer.welcome()
    attempt = value_pb2.Attempt(run_id="nope", key=value_pb2.StepKey(id="s"), fence=7)
    peer.send(step_run=opcode_pb2.StepRun(attempt=attempt))
    (refusal,) = peer.next("recorded").refusals
    assert (refusal.attempt, refusal.current_fence) == (attempt, 0)
    assert "unknown" in refusal.reason
    workers = admin_pb2_grpc.AdminServiceStub(channel).ListWorkers(admin_pb2.ListWorkersRequest()).workers
    assert f"peer-{id(peer):x}" in {worker.instance_id for worker in workers}


def test_a_result_is_taken_once_and_then_refused(peer: Peer, channel: grpc.Channel) -> None:
    invoke = run_of(peer, channel, "once")
    found(peer, invoke, closure("a"))
    attempt = peer.next("run_steps").attempts[0].attempt
    for data in (b"1", b"2"):
        output = value_pb2.Payload(data=data, encoding="json")
        peer.send(step_run=opcode_pb2.StepRun(attempt=attempt, output=output))
    assert list(peer.next("recorded").attempts) == [attempt]
    assert peer.next("resume").entries[0].output.data == b"1"


@pytest.mark.parametrize("step_id", ["", "x" * 10_000], ids=["empty", "10 kB"])
def test_a_bad_step_id_fails_the_run(peer: Peer, channel: grpc.Channel, step_id: str) -> None:
    invoke = run_of(peer, channel, f"bad-id-{len(step_id)}")
    found(peer, invoke, closure(step_id))
    run = ended(channel, invoke.run_id)
    assert (run.state, run.failure.type) == (run_pb2.RUN_STATE_FAILED, "InvalidStepError")
    assert "--max-step-id-bytes" in run.failure.message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sleep": opcode_pb2.SleepTarget(delay=Duration(seconds=-1))}, "negative"),
        ({"sleep": opcode_pb2.SleepTarget(delay=Duration(seconds=400 * 86400))}, "--max-sleep"),
        ({"sleep": opcode_pb2.SleepTarget()}, "sleep.end"),
        ({"invoke": opcode_pb2.InvokeTarget(function_id="nowhere")}, "no worker has registered"),
        ({"task": opcode_pb2.TaskTarget()}, "task.name"),
        ({"send_events": opcode_pb2.SendEventsTarget()}, "--max-events-per-call"),
        ({"send_events": opcode_pb2.SendEventsTarget(events=[json_event("x", b"{")])}, "offset"),
        ({}, "target"),
        ({"closure": opcode_pb2.ClosureTarget(), "attempt_timeout": Duration(seconds=-5)}, "attempt_timeout"),
        ({"closure": opcode_pb2.ClosureTarget(), "retry": value_pb2.RetryPolicy(retries=101)}, "--max-retries"),
        (
            {
                "wait_for_event": opcode_pb2.WaitForEventTarget(
                    event_name="x", fields=[opcode_pb2.FieldMatch(path="a", json_value="[1]")]
                )
            },
            "wait_for_event.fields",
        ),
        (
            {
                "wait_for_event": opcode_pb2.WaitForEventTarget(
                    event_name="x", fields=[opcode_pb2.FieldMatch(path="a", json_value="[" * 100_000)]
                )
            },
            "100000 bytes, but at most",
        ),
        (
            {
                "wait_for_event": opcode_pb2.WaitForEventTarget(
                    event_name="x", fields=[opcode_pb2.FieldMatch(path="." * 100_000, json_value="1")]
                )
            },
            "at most 256",
        ),
    ],
)
def test_a_bad_step_fails_alone_and_is_not_retried(
    peer: Peer, channel: grpc.Channel, fields: dict[str, Any], reason: str
) -> None:
    invoke = run_of(peer, channel, f"bad-step-{reason}-{'-'.join(fields)}")
    found(peer, invoke, opcode_pb2.StepPlanned(key=value_pb2.StepKey(id="bad"), **fields))
    (entry,) = peer.next("resume").entries
    assert not entry.failure.retryable
    assert reason in entry.failure.message


def test_an_output_over_the_limit_in_fragments_fails_the_step(peer: Peer, channel: grpc.Channel) -> None:
    invoke = run_of(peer, channel, "large")
    found(peer, invoke, closure("a"))
    attempt = peer.next("run_steps").attempts[0].attempt
    output = value_pb2.Payload(data=b"x" * (5 << 20), encoding="binary")
    peer.send_in_fragments(step_run=opcode_pb2.StepRun(attempt=attempt, output=output))
    (entry,) = peer.next("resume").entries
    assert entry.failure.type == "OutputTooLargeError"
    assert "--max-output-bytes=3000000" in entry.failure.message


def test_a_lone_result_of_3_mb_travels_both_ways(peer: Peer, channel: grpc.Channel) -> None:
    invoke = run_of(peer, channel, "big")
    found(peer, invoke, closure("a"))
    attempt = peer.next("run_steps").attempts[0].attempt
    output = value_pb2.Payload(data=b"y" * 3_000_000, encoding="binary")
    peer.send_in_fragments(step_run=opcode_pb2.StepRun(attempt=attempt, output=output))
    assert peer.next("resume").entries[0].output == output
    assert peer.largest_frame_bytes <= 1 << 20


# Calls.

UNREADABLE = [b"\xff\xff", b"\x0a\x05ab", b"\x0a\x03\xed\xa0\x80"]
"""No Protobuf, a text that is cut, and one that is a lone surrogate."""


@pytest.mark.parametrize("data", UNREADABLE, ids=["garbage", "cut", "surrogate"])
@pytest.mark.parametrize(
    "method",
    ["v1.EventService/SendEvents", "v1.RunService/GetRun", "v1.RunService/WatchRun", "v1.RunService/WaitRuns"],
)
def test_a_request_that_can_not_be_parsed_is_refused_and_leaves_no_traceback(
    executor: ExecutorProcess, channel: grpc.Channel, method: str, data: bytes
) -> None:
    call: Any = channel.stream_stream(f"/stepwire.{method}")
    code, message, _ = refused(lambda: list(call(iter([data]), timeout=20)))
    assert code is INVALID
    assert method.rpartition("/")[2] in message
    assert "can't be parsed" in message
    assert "Traceback" not in executor.log


def test_what_was_asked_before_an_unreadable_request_is_not_lost_silently(channel: grpc.Channel) -> None:
    wait_runs: Any = channel.stream_stream("/stepwire.v1.RunService/WaitRuns")
    good = run_pb2.WaitRunsRequest(run_ids=["nobody"]).SerializeToString()
    assert refused(lambda: list(wait_runs(iter([good, UNREADABLE[0]]), timeout=20)))[0] is INVALID


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_refuses_what_can_not_be_parsed(
    executor: ExecutorProcess, channel: grpc.Channel, version: str
) -> None:
    call: Any = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
    assert refused(lambda: list(call(iter([b"\xff"]), timeout=20)))[0] is INVALID
    assert "Traceback" not in executor.log
