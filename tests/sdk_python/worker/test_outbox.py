"""What the outbox keeps over streams: attempts, results, and the plans of lone steps."""

from __future__ import annotations

from stepwire.worker.outbox import Outbox
from stepwire_proto.v1 import opcode_pb2, worker_pb2
from tests.sdk_python.worker.scripted import attempt


def outbox_with(*fences: int) -> Outbox:
    outbox = Outbox()
    outbox.open()
    for fence in fences:
        assert outbox.take(1, attempt("s", fence))
    return outbox


def plan(fence: int) -> opcode_pb2.StepsFound:
    return opcode_pb2.StepsFound(run_id="r1", steps=[opcode_pb2.StepPlanned(eager_fence=fence)], quiescent=True)


def result(fence: int) -> worker_pb2.WorkerMessage:
    return worker_pb2.WorkerMessage(step_run=opcode_pb2.StepRun(attempt=attempt("s", fence)))


def test_a_hello_names_running_attempts_and_then_the_newest_results() -> None:
    outbox = outbox_with(1, 2, 3, 4)
    for fence in (3, 1, 2):
        outbox.report(fence, result(fence))
    named, _ = outbox.holdings(3)
    assert [each.fence for each in named] == [4, 2, 1]


def test_the_plan_of_a_lone_step_goes_with_each_hello_while_the_step_is_in_hand() -> None:
    outbox = outbox_with(1)
    assert outbox.take(1, attempt("lone", 2), plan(2))
    assert outbox.holdings(9)[1] == [plan(2)]
    outbox.report(2, result(2))
    assert outbox.holdings(9)[1] == [plan(2)]
    assert outbox.holdings(1)[1] == [], "its attempt is not named"
    outbox.forget([2])
    assert outbox.holdings(9)[1] == []


def test_no_lone_step_begins_once_the_last_plans_were_told() -> None:
    outbox = outbox_with(1)
    assert outbox.take(1, attempt("lone", 2), plan(2))
    assert [message.steps_found for message in outbox.last_plans()] == [plan(2)]
    assert not outbox.take(1, attempt("other", 3), plan(3))
    assert [each.fence for each in outbox.surrender()] == [1, 2]
    assert outbox.holdings(9) == ([], [])
