"""Whatever a field may hold is bounded by bytes or by count: what is more is refused by its name, or cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwire.testing import ExecutorProcess
from stepwire_executor import wire
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2
from tests.executor.peer import Peer, refused
from tests.executor.test_bad_input import INVALID, closure, ended, found, function, json_event, send

CUT = "[…]"


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess(settings={"max_queued_runs": 2_000}) as process:
        yield process


def of_triggers(count: int) -> worker_pb2.FunctionOptions:
    triggers = [worker_pb2.Trigger(event_name=f"e{number}") for number in range(count)]
    return worker_pb2.FunctionOptions(id="f", triggers=triggers)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {"functions": [function(f"f{n}", "e") for n in range(1_001)]},
            "functions: 1001, but a worker has at most 1000",
        ),
        ({"functions": [of_triggers(101)]}, "functions[0].triggers: 101, but a function has at most 100"),
        ({"tasks": [f"t{n}" for n in range(1_001)]}, "tasks: 1001, but a worker has at most 1000"),
    ],
)
def test_a_hello_with_too_many_things_says_how_many_are_allowed(peer: Peer, fields: dict[str, Any], named: str) -> None:
    peer.hello(**fields)
    code, message = peer.status()
    assert code is INVALID
    assert named in message


@pytest.mark.parametrize("target", [{"app": "a" * 257, "function_id": "f"}, {"function_id": "f" * 257}, {}])
def test_a_step_that_invokes_what_has_no_possible_name_fails_with_it(
    peer: Peer, channel: grpc.Channel, target: dict[str, str]
) -> None:
    name = f"invoker of {len(str(target))}"
    peer.welcome(functions=[function(name, name)])
    send(channel, json_event(name))
    found(
        peer,
        peer.next("invoke"),
        opcode_pb2.StepPlanned(key=value_pb2.StepKey(id="a"), invoke=opcode_pb2.InvokeTarget(**target)),
    )
    failure = peer.next("resume").entries[0].failure
    assert failure.type == "InvalidStepError"
    assert "invoke." in failure.message
    assert len(failure.message) < 200


def test_a_trace_context_that_nobody_can_use_is_taken_for_none(peer: Peer, channel: grpc.Channel) -> None:
    peer.welcome(functions=[function("traced", "traced")])
    trace = "a" * 32
    good = f"00-{trace}-{'b' * 16}-01"
    for traceparent, tracestate, is_kept, kept_state in (
        (good, "k=v", True, "k=v"),
        (good, "k=" + "v" * 511, True, ""),
        (good + "0", "k=v", False, ""),
        ("x" * 100_000, "y" * 100_000, False, ""),
    ):
        send(channel, json_event("traced", traceparent=traceparent, tracestate=tracestate))
        event = peer.next("invoke").events[0]
        assert (trace in event.traceparent, event.tracestate) == (is_kept, kept_state)


def failing(depth: int, size: int) -> value_pb2.Failure:
    """Make a failure with causes, each with texts of a size."""
    failure = value_pb2.Failure(type="T" * size, message="it went wrong " + "é" * size, stack="s" * size + "end")
    if depth:
        failure.cause.CopyFrom(failing(depth - 1, size))
    return failure


@pytest.mark.parametrize("how", ["step", "run"])
def test_failures_are_cut_whatever_a_worker_sends(peer: Peer, channel: grpc.Channel, how: str) -> None:
    name = f"fails-{how}"
    peer.welcome(functions=[function(name, name, retries=0)])
    (receipt,) = send(channel, json_event(name)).receipts
    invoke = peer.next("invoke")
    failure = failing(3, 35_000)
    failure.details.data = b"d" * 300_000
    if how == "run":
        fields = {"run_id": invoke.run_id, "invocation": invoke.invocation}
        peer.send(run_failed=opcode_pb2.RunFailed(failure=failure, **fields))
        shown = ended(channel, receipt.run_ids[0]).failure
    else:
        found(peer, invoke, closure("a"))
        attempt = peer.next("run_steps").attempts[0].attempt
        peer.send(step_failed=opcode_pb2.StepFailed(attempt=attempt, failure=failure))
        shown = peer.next("resume").entries[0].failure
    assert shown.message.startswith("it went wrong é")
    assert shown.message.endswith(CUT)
    assert shown.stack.endswith("end")
    assert shown.type.endswith(CUT)
    assert len(shown.type.encode()) <= wire.LONGEST_TYPE
    assert not shown.HasField("details")
    assert shown.ByteSize() < wire.MOST_FAILURE_BYTES + 150_000
    assert shown.HasField("cause")
    assert shown.cause.message.startswith("it went wrong é")


@given(st.text(), st.integers(0, 40), st.booleans())
def test_a_text_is_cut_to_whole_characters_within_its_bytes(text: str, most: int, keep_end: bool) -> None:
    short = wire.cut(text, most, keep_end=keep_end)
    assert (short == text) or len(text.encode()) > most
    assert len(short.encode()) <= max(most, len(CUT.encode()))
    kept = short.removeprefix(CUT) if keep_end else short.removesuffix(CUT)
    assert (text.endswith if keep_end else text.startswith)(kept)


def test_calls_that_would_start_very_many_runs_are_refused_whole(
    executor: ExecutorProcess, channel: grpc.Channel
) -> None:
    with Peer(executor.address) as crowd:
        crowd.welcome(app="crowd", max_invocations=1, functions=[function(f"f{n}", "crowd") for n in range(1_000)])
        code, message, fields = refused(lambda: send(channel, *[json_event("crowd")] * 21))
        assert (code, fields) == (INVALID, ["events"])
        assert "21,000 runs, but a call starts at most 20,000: send them in several" in message
        send(channel, json_event("crowd"))
        code, message, _ = refused(lambda: send(channel, *[json_event("crowd")] * 2))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "--max-queued-runs=2000" in message
