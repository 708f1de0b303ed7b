"""Page tokens come from outside: anybody can make one, and none but the executor's own is good for anything."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import grpc
import pytest

from stepwire.testing import ExecutorProcess
from stepwire_executor.services.pages import write_token
from stepwire_executor.services.runs import read_filter
from stepwire_proto.v1 import event_pb2, event_pb2_grpc, opcode_pb2, run_pb2, run_pb2_grpc, value_pb2, worker_pb2
from tests.executor.peer import Peer, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SCOPE = repr(read_filter(run_pb2.ListRunsRequest()))
PLACES = [
    "no number",
    "1.5",
    "-1",
    " 7",
    "1_000",
    "٣",
    "²",
    "9" * 10,
    "9" * 5_000,
    "9" * (1 << 20),
    "\0",
    f"{RUN}\0",
    f"{RUN}\n",
    RUN.lower(),
    "🦜" * 26,
    "'; DROP TABLE runs; --",
]
NO_TOKENS = [
    "?",
    "=",
    "A",
    "AAAA",
    "%%%%",
    "🦜",
    "\0",
    "/" * 20,
    base64.urlsafe_b64encode(b"\xff" * 20).decode(),
    base64.urlsafe_b64encode(b"0123456789ab\xed\xa0\x80").decode(),  # a surrogate
    base64.urlsafe_b64encode(b"0123456789ab7").decode(),  # a mark that nobody made
    "A" * (1 << 20),
]


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process:
        yield process


@pytest.fixture(scope="module")
def runs(executor: ExecutorProcess) -> Iterator[run_pb2_grpc.RunServiceStub]:
    with grpc.insecure_channel(executor.address) as channel:
        yield run_pb2_grpc.RunServiceStub(channel)


def shown(token: str) -> str:
    return f"{token[:20]!a} of {len(token)}"


@pytest.mark.parametrize("token", [*NO_TOKENS, *(write_token(place, SCOPE) for place in PLACES)], ids=shown)
def test_a_forged_token_of_a_list_is_an_invalid_argument(runs: run_pb2_grpc.RunServiceStub, token: str) -> None:
    code, message, fields = refused(lambda: runs.ListRuns(run_pb2.ListRunsRequest(page_token=token)))
    assert (code, fields) == (INVALID, ["page_token"])
    assert "take it from the answer before" in message


@pytest.mark.parametrize("token", [*NO_TOKENS, *(write_token(place, RUN) for place in PLACES)], ids=shown)
def test_a_forged_token_of_a_runs_steps_is_an_invalid_argument(runs: run_pb2_grpc.RunServiceStub, token: str) -> None:
    request = run_pb2.GetRunRequest(run_id=RUN, include_steps=True, page_token=token)
    code, _, fields = refused(lambda: runs.GetRun(request))
    assert (code, fields) == (INVALID, ["page_token"])


def test_a_place_that_no_run_has_is_only_an_end_of_the_list(runs: run_pb2_grpc.RunServiceStub) -> None:
    token = write_token("0" * 26, SCOPE)
    assert not runs.ListRuns(run_pb2.ListRunsRequest(page_token=token)).runs


def test_the_pages_of_a_runs_steps_follow_each_other(
    executor: ExecutorProcess, runs: run_pb2_grpc.RunServiceStub
) -> None:
    with Peer(executor.address) as peer, grpc.insecure_channel(executor.address) as channel:
        peer.welcome(functions=[worker_pb2.FunctionOptions(id="f", triggers=[worker_pb2.Trigger(event_name="go")])])
        request = event_pb2.SendEventsRequest(events=[event_pb2.Event(name="go")])
        (receipt,) = event_pb2_grpc.EventServiceStub(channel).SendEvents(request).receipts
        invoke = peer.next("invoke")
        steps = [
            opcode_pb2.StepPlanned(key=value_pb2.StepKey(id=name), closure=opcode_pb2.ClosureTarget())
            for name in "abcde"
        ]
        peer.send(
            steps_found=opcode_pb2.StepsFound(
                run_id=invoke.run_id, invocation=invoke.invocation, steps=steps, quiescent=True
            )
        )
        peer.next("run_steps")
        (run_id,) = receipt.run_ids
        seen: list[str] = []
        token = ""
        while True:
            page = runs.GetRun(run_pb2.GetRunRequest(run_id=run_id, include_steps=True, page_size=2, page_token=token))
            seen += [step.key.id for step in page.steps]
            token = page.next_page_token
            if not token:
                break
        assert seen == list("abcde")
