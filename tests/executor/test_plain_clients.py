"""A client with gRPC's own limits is given every answer, also of a run whose event and outputs are the largest."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from stepwire.testing import ExecutorProcess
from stepwire_core.model import Limits
from stepwire_proto.v1 import event_pb2, event_pb2_grpc, opcode_pb2, run_pb2, run_pb2_grpc, value_pb2, worker_pb2
from tests.executor.peer import Peer

LIMITS = Limits()
DATA = b'"' + b"e" * (LIMITS.max_event_bytes - 2) + b'"'
OUTPUT = b'"' + b"o" * (LIMITS.max_output_bytes - 2) + b'"'
STEPS, MANY = 3, 50
F = worker_pb2.FunctionOptions(id="f" * 128, triggers=[worker_pb2.Trigger(event_name="go")])


def begin(channel: grpc.Channel, worker: Peer, event_id: str) -> worker_pb2.Invoke:
    """Start a run with the largest event."""
    event = event_pb2.Event(name="go", id=event_id, data=value_pb2.Payload(data=DATA, encoding="json"))
    event.tracestate = "t=" + "s" * 500
    event_pb2_grpc.EventServiceStub(channel).SendEvents(event_pb2.SendEventsRequest(events=[event]))
    invoke: worker_pb2.Invoke = worker.next("invoke")
    return invoke


def finish(channel: grpc.Channel, worker: Peer, invoke: worker_pb2.Invoke, ids: list[str], output: bytes) -> None:
    """Have a run's steps give this output, and the run the largest one."""
    steps = [opcode_pb2.StepPlanned(key=value_pb2.StepKey(id=id_), closure=opcode_pb2.ClosureTarget()) for id_ in ids]
    found = opcode_pb2.StepsFound(run_id=invoke.run_id, invocation=invoke.invocation, steps=steps, quiescent=True)
    worker.send(steps_found=found)
    left = len(ids)
    while left:
        for start in worker.next("run_steps").attempts:
            left -= 1
            payload = value_pb2.Payload(data=output, encoding="json")
            worker.send_in_fragments(step_run=opcode_pb2.StepRun(attempt=start.attempt, output=payload))
    payload = value_pb2.Payload(data=OUTPUT, encoding="json")
    finished = opcode_pb2.RunFinished(run_id=invoke.run_id, invocation=invoke.invocation, output=payload)
    worker.send_in_fragments(run_finished=finished)
    is_whole(run_pb2_grpc.RunServiceStub(channel).WaitRun(run_pb2.WaitRunRequest(run_id=invoke.run_id)).run)


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process:
        yield process


@pytest.fixture(scope="module")
def runs(executor: ExecutorProcess) -> Iterator[tuple[run_pb2_grpc.RunServiceStub, str]]:
    """Give the calls of such a client, and a run."""
    with grpc.insecure_channel(executor.address) as channel:
        with Peer(executor.address) as worker:
            worker.welcome(functions=[F], app="a" * 128)
            invoke = begin(channel, worker, "i" * 256)
            finish(channel, worker, invoke, [f"{n}" * 1_024 for n in range(STEPS)], OUTPUT)
        yield run_pb2_grpc.RunServiceStub(channel), invoke.run_id


def is_whole(run: run_pb2.Run) -> None:
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert (run.event.data.data, run.output.data, run.payloads_omitted) == (DATA, OUTPUT, False)


def test_a_run_of_the_largest_size_is_given_by_every_call(runs: tuple[run_pb2_grpc.RunServiceStub, str]) -> None:
    stub, run_id = runs
    is_whole(stub.GetRun(run_pb2.GetRunRequest(run_id=run_id)).run)
    is_whole(stub.CancelRun(run_pb2.CancelRunRequest(run_id=run_id)).run)
    (answer,) = stub.WaitRuns(iter([run_pb2.WaitRunsRequest(run_ids=[run_id])]))
    is_whole(answer.ends[0].run)
    *first, last = stub.WatchRun(run_pb2.WatchRunRequest(run_id=run_id))
    is_whole(last.run)
    assert all(message.run.state == run_pb2.RUN_STATE_RUNNING for message in first)
    assert sum(len(message.steps) for message in [*first, last]) == STEPS
    (listed,) = stub.ListRuns(run_pb2.ListRunsRequest(app="a" * 128)).runs
    assert listed.payloads_omitted


def test_pages_of_the_largest_outputs_leave_out_the_runs_own_until_the_last_one(
    runs: tuple[run_pb2_grpc.RunServiceStub, str],
) -> None:
    stub, run_id = runs
    request = run_pb2.GetRunRequest(run_id=run_id, include_steps=True, include_outputs=True)
    numbers = []
    while True:
        page = stub.GetRun(request)
        assert all(step.output.data == OUTPUT for step in page.steps)
        numbers += [step.number for step in page.steps]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
        assert page.run.payloads_omitted
        assert not page.run.HasField("output")
    assert numbers == list(range(1, STEPS + 1))
    is_whole(page.run)


def test_a_page_that_is_not_full_leaves_out_the_runs_own_if_it_is_too_large_with_them(
    channel: grpc.Channel, executor: ExecutorProcess
) -> None:
    """Its steps are of 10 kB, and there are no more behind them."""
    with Peer(executor.address) as worker:
        worker.welcome(functions=[F], app="b")
        invoke = begin(channel, worker, "j" * 256)
        finish(channel, worker, invoke, [f"{n}" for n in range(MANY)], b'"' + b"s" * 10_000 + b'"')
    stub = run_pb2_grpc.RunServiceStub(channel)
    for page_size in (0, MANY):
        request = run_pb2.GetRunRequest(run_id=invoke.run_id, include_steps=True, include_outputs=True)
        request.page_size = page_size
        page = stub.GetRun(request)
        assert ([step.number for step in page.steps], page.run.payloads_omitted) == (list(range(1, MANY + 1)), True)
        request.page_token = page.next_page_token
        page = stub.GetRun(request)
        assert (len(page.steps), page.next_page_token) == (0, "")
        is_whole(page.run)


def test_answers_to_waits_for_large_runs_come_one_by_one(runs: tuple[run_pb2_grpc.RunServiceStub, str]) -> None:
    stub, run_id = runs
    asked = run_pb2.WaitRunsRequest(run_ids=[run_id, "nope", "x" * 1_000_000, "y" * 1_000_000])
    ends = [end for answer in stub.WaitRuns(iter([asked])) for end in answer.ends]
    assert sorted(len(end.run_id) for end in ends) == [4, 26, 1_000_000, 1_000_000]
