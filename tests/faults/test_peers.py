"""Peers that are late, old, strange or greedy: each is told what is wrong, and nobody else notices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import stepwire
from stepwire.testing import ExecutorProcess
from stepwire_proto.v1 import admin_pb2, admin_pb2_grpc, event_pb2_grpc, opcode_pb2, run_pb2, value_pb2, worker_pb2
from tests.executor.peer import Peer, refused
from tests.executor.test_bad_input import closure, ended, found, function, json_event, run_of, send

DENIED, INVALID = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION, EXHAUSTED = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.RESOURCE_EXHAUSTED
OUTPUT = value_pb2.Payload(data=b"1", encoding="json")


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    settings = {"heartbeat_interval": 1, "session_grace": 0.3}
    with ExecutorProcess(settings=settings) as process:
        yield process


@pytest.fixture(scope="module")
def channel(executor: ExecutorProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(executor.address) as channel:
        yield channel


@pytest.fixture
def peers(executor: ExecutorProcess) -> Iterator[list[Peer]]:
    peers = [Peer(executor.address) for _ in range(3)]
    yield peers
    for peer in peers:
        peer.close()


def lives(peer: Peer) -> bool:
    """Whether a peer's stream still answers."""
    peer.send(heartbeat=worker_pb2.Heartbeat())
    peer.next("recorded")
    return not peer.ended.is_set()


def attempt_of(peer: Peer, channel: grpc.Channel, name: str) -> tuple[worker_pb2.Invoke, value_pb2.Attempt]:
    """Give a peer a run with one running step."""
    invoke = run_of(peer, channel, name)
    found(peer, invoke, closure("a"))
    return invoke, peer.next("run_steps").attempts[0].attempt


# Stale sessions and fences.


def test_the_report_of_a_worker_that_was_lost_is_stale_and_its_stream_lives(
    executor: ExecutorProcess, peers: list[Peer], channel: grpc.Channel
) -> None:
    late, other, back = peers
    options = [function("late", "late")]
    session = late.welcome(instance_id="late-1", functions=options).session_id
    send(channel, json_event("late"))
    invoke = late.next("invoke")
    retry = value_pb2.RetryPolicy(retries=4)
    retry.initial_interval.FromMilliseconds(1)
    found(late, invoke, closure("a", retry=retry))
    attempt = late.next("run_steps").attempts[0].attempt
    late.close()
    other.welcome(functions=options)
    newer = other.next("run_steps").attempts[0]
    assert (newer.attempt.key, newer.number) == (attempt.key, 2)
    assert newer.attempt.fence > attempt.fence
    welcome = back.welcome(instance_id="late-1", functions=options, resume_session=session, attempts_in_hand=[attempt])
    assert (welcome.resumed, list(welcome.unwanted_attempts)) == (False, [attempt])
    back.send(step_run=opcode_pb2.StepRun(attempt=attempt, output=OUTPUT))
    (refusal,) = back.next("recorded").refusals
    assert refusal.reason == f"stale attempt {attempt.fence}, current {newer.attempt.fence}"
    assert refusal.current_fence == newer.attempt.fence
    assert lives(back)
    other.send(step_run=opcode_pb2.StepRun(attempt=newer.attempt, output=OUTPUT))
    assert list(other.next("recorded").attempts) == [newer.attempt]


def test_a_worker_that_is_gone_before_its_welcome_is_no_worker(
    executor: ExecutorProcess, channel: grpc.Channel
) -> None:
    for number in range(40):
        with Peer(executor.address) as hasty:
            name = f"hasty-{number}"  # a new function is written before the Welcome, which takes a while
            hasty.hello(instance_id=name, functions=[function(name, name)])
            time.sleep(number * 0.0005)
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    left = {"hasty"}
    end = time.monotonic() + 5
    while left and time.monotonic() < end:
        workers = stub.ListWorkers(admin_pb2.ListWorkersRequest(), timeout=10).workers
        left = {worker.instance_id for worker in workers if worker.instance_id.startswith("hasty")}
    assert not left


# What was given to others.


def report(kind: str, invoke: worker_pb2.Invoke, attempt: value_pb2.Attempt) -> dict[str, Any]:
    """Make a report about a run as its worker would."""
    names = {"run_id": invoke.run_id, "invocation": invoke.invocation}
    failure = value_pb2.Failure(type="E", retryable=True)
    return {
        kind: {
            "step_run": lambda: opcode_pb2.StepRun(attempt=attempt, output=OUTPUT),
            "step_failed": lambda: opcode_pb2.StepFailed(attempt=attempt, failure=failure),
            "steps_found": lambda: opcode_pb2.StepsFound(**names, steps=[closure("b")], quiescent=True),
            "step_cancelled": lambda: opcode_pb2.StepCancelled(**names, keys=[attempt.key]),
            "run_finished": lambda: opcode_pb2.RunFinished(**names, output=OUTPUT),
            "run_failed": lambda: opcode_pb2.RunFailed(**names, failure=failure),
            "evicted": lambda: worker_pb2.Evicted(**names),
            "need_journal": lambda: worker_pb2.NeedJournal(**names),
            "draining": lambda: worker_pb2.Draining(returned_attempts=[attempt]),
        }[kind]()
    }


KINDS = [
    "step_run",
    "step_failed",
    "steps_found",
    "step_cancelled",
    "run_finished",
    "run_failed",
    "evicted",
    "need_journal",
    "draining",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("app", ["app", "another"])
def test_a_report_about_what_another_worker_was_given_ends_the_stream_of_the_reporter_only(
    peers: list[Peer], channel: grpc.Channel, kind: str, app: str
) -> None:
    owner, intruder, _ = peers
    invoke, attempt = attempt_of(owner, channel, f"owned-{kind}-{app}")
    intruder.welcome(app=app, instance_id=f"intruder-{kind}-{app}")
    intruder.send(**report(kind, invoke, attempt))
    code, message = intruder.status()
    assert code is DENIED
    fence = attempt.fence if kind in ("step_run", "step_failed", "draining") else invoke.invocation
    for part in (invoke.run_id, str(fence), f"was given to worker peer-{id(owner):x}", f"intruder-{kind}-{app}"):
        assert part in message
    owner.send(step_run=opcode_pb2.StepRun(attempt=attempt, output=OUTPUT))
    assert list(owner.next("recorded").attempts) == [attempt]
    assert [entry.key.id for entry in owner.next("resume").entries] == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_about_what_nobody_was_given_yet_ends_the_stream(
    peers: list[Peer], channel: grpc.Channel, kind: str
) -> None:
    owner, dreamer, _ = peers
    invoke, attempt = attempt_of(owner, channel, f"future-{kind}")
    dreamer.welcome()
    invoke.invocation = attempt.fence = attempt.fence + (1 << 39)
    dreamer.send(**report(kind, invoke, attempt))
    code, message = dreamer.status()
    assert code is PRECONDITION
    assert f"{attempt.fence} of" in message
    assert "was never given to anybody: the newest fence is" in message
    assert lives(owner)


def test_a_report_about_a_run_of_another_app_is_denied_naming_both(peers: list[Peer], channel: grpc.Channel) -> None:
    owner, stranger, _ = peers
    _, attempt = attempt_of(owner, channel, "of-app")
    stranger.welcome(app="strange")
    attempt.fence = 1
    stranger.send(step_run=opcode_pb2.StepRun(attempt=attempt, output=OUTPUT))
    code, message = stranger.status()
    assert code is DENIED
    assert "is of app app, and this worker serves strange" in message
    assert lives(owner)


@pytest.mark.parametrize("fields", [{"instance_id": "thief"}, {"app": "another"}], ids=["worker", "app"])
def test_a_session_of_another_worker_can_not_be_resumed(peers: list[Peer], fields: dict[str, Any]) -> None:
    owner, thief, _ = peers
    session = owner.welcome().session_id
    thief.hello(resume_session=session, **{"instance_id": f"peer-{id(owner):x}", **fields})
    code, message = thief.status()
    assert code is DENIED
    assert f"of worker peer-{id(owner):x} of app app" in message
    assert lives(owner)


def test_the_name_of_another_apps_worker_takes_nothing_from_it(peers: list[Peer], channel: grpc.Channel) -> None:
    owner, namesake, _ = peers
    _, attempt = attempt_of(owner, channel, "named")
    namesake.welcome(app="another", instance_id=f"peer-{id(owner):x}", attempts_in_hand=[attempt])
    owner.send(step_run=opcode_pb2.StepRun(attempt=attempt, output=OUTPUT))
    assert list(owner.next("recorded").attempts) == [attempt]


# Values that are as the contract says in form only.


def test_entries_that_were_never_given_can_not_have_been_read(peers: list[Peer], channel: grpc.Channel) -> None:
    peer, other, _ = peers
    invoke = run_of(peer, channel, "ahead")
    huge = (1 << 64) - 1
    peer.send(
        steps_found=opcode_pb2.StepsFound(
            run_id=invoke.run_id, invocation=invoke.invocation, sequence=huge, steps=[closure("a")], quiescent=True
        )
    )
    code, message = peer.status()
    assert code is PRECONDITION
    assert f"dry after entry {huge}, but was given only 0" in message
    other.welcome()
    assert lives(other)


def test_a_backoff_without_measure_is_held_to_its_maximum(peers: list[Peer], channel: grpc.Channel) -> None:
    peer = peers[0]
    invoke = run_of(peer, channel, "backoff")
    retry = value_pb2.RetryPolicy(retries=3, multiplier=1e308)
    retry.initial_interval.FromMilliseconds(1)
    retry.maximum_interval.FromMilliseconds(5)
    found(peer, invoke, closure("a", retry=retry))
    for number in range(1, 5):
        start = peer.next("run_steps").attempts[0]
        assert start.number == number
        peer.send(step_failed=opcode_pb2.StepFailed(attempt=start.attempt, failure=value_pb2.Failure(retryable=True)))
    assert peer.next("resume").entries[0].attempts == 4


def test_a_failure_that_asks_for_an_eternal_delay_gets_the_longest_that_is_allowed(
    executor: ExecutorProcess, peers: list[Peer], channel: grpc.Channel
) -> None:
    peer = peers[0]
    invoke, attempt = attempt_of(peer, channel, "eternal")
    failure = value_pb2.Failure(type="E", retryable=True)
    failure.retry_after.seconds = (1 << 63) - 1
    peer.send(step_failed=opcode_pb2.StepFailed(attempt=attempt, failure=failure))
    assert list(peer.next("recorded").attempts) == [attempt]
    with stepwire.SyncClient(executor.address) as client:
        (step,) = client.steps(invoke.run_id)
    assert step.due_at is not None
    assert abs(step.due_at.timestamp() - time.time() - 366 * 86400) < 60


def test_what_is_said_of_an_output_counts_as_the_output(peers: list[Peer], channel: grpc.Channel) -> None:
    peer = peers[0]
    _, attempt = attempt_of(peer, channel, "metadata")
    output = value_pb2.Payload(data=b"1", encoding="json", metadata={"k": "v" * (5 << 20)})
    peer.send_in_fragments(step_run=opcode_pb2.StepRun(attempt=attempt, output=output))
    (entry,) = peer.next("resume").entries
    assert entry.failure.type == "OutputTooLargeError"
    assert entry.attempts == 1
    assert lives(peer)


def test_the_same_key_planned_with_two_kinds_fails_the_run_showing_both(
    peers: list[Peer], channel: grpc.Channel
) -> None:
    peer = peers[0]
    invoke = run_of(peer, channel, "two-kinds")
    found(peer, invoke, closure("a", source="here.py:1"))
    key = value_pb2.StepKey(id="a")
    task = opcode_pb2.TaskTarget(name="t")
    found(peer, invoke, opcode_pb2.StepPlanned(key=key, task=task, source="there.py:2"))
    run = ended(channel, invoke.run_id)
    assert (run.state, run.failure.type) == (run_pb2.RUN_STATE_FAILED, "NonDeterminismError")
    for part in ("the closure step 'a' at here.py:1", "the task step", "'t' at there.py:2"):
        assert part in run.failure.message
    assert lives(peer)


# Older and newer peers.

RECORDED_HELLO = bytes.fromhex(
    "0a480a46080110011a0101220f73746570776972652d707974686f6e2a05302e312e303208726563"
    "6f726465643a036170704a0f0a0166120a0a087265636f7264656452017460086864"
)


def test_a_hello_as_the_first_sdk_sent_it_is_welcome(peers: list[Peer]) -> None:
    peers[0].frame(RECORDED_HELLO)
    welcome = peers[0].next("welcome")
    assert welcome.protocol == 1
    assert lives(peers[0])


def test_a_newer_sdk_that_still_speaks_version_1_is_welcome(peers: list[Peer]) -> None:
    """It has capabilities and fields that this executor has never heard of."""
    hello = worker_pb2.Hello(min_protocol=1, max_protocol=9, instance_id="newer", app="app", slots=1, max_invocations=1)
    hello.capabilities.extend([1, 77])  # type: ignore[list-item]
    unknown = bytes.fromhex("fa3e03616263")  # field 1007, "abc"
    data = hello.SerializeToString() + unknown
    message = b"\x0a" + bytes([len(data)]) + data
    peers[0].frame(b"\x0a" + bytes([len(message)]) + message)
    assert peers[0].next("welcome").protocol == 1
    assert lives(peers[0])


@pytest.mark.parametrize(("least", "most", "advice"), [(0, 0, "an older executor"), (2, 3, "a newer executor")])
def test_an_sdk_without_a_common_version_is_refused_with_both_ranges(
    peers: list[Peer], least: int, most: int, advice: str
) -> None:
    peers[0].hello(min_protocol=least, max_protocol=most)
    code, message = peers[0].status()
    assert code is PRECONDITION
    for part in (f"speaks {least} to {most}", "this executor 1 to 1", advice, "version of the SDK"):
        assert part in message


def test_a_kind_of_message_that_version_1_does_not_know_is_refused_saying_so(peers: list[Peer]) -> None:
    peers[0].welcome()
    peers[0].frame(bytes.fromhex("0a05fa3e020a00"))
    code, message = peers[0].status()
    assert code is INVALID
    assert "version 1 does not know" in message


def test_20_kb_of_metadata_are_refused_by_grpc_itself(channel: grpc.Channel) -> None:
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    metadata = [("x-large", "x" * 20_000)]
    code, message, _ = refused(lambda: stub.ListWorkers(admin_pb2.ListWorkersRequest(), metadata=metadata, timeout=10))
    assert code is EXHAUSTED
    assert "metadata" in message
    assert stub.ListWorkers(admin_pb2.ListWorkersRequest(), timeout=10) is not None


def test_a_garbage_trace_context_harms_nobody(peers: list[Peer], channel: grpc.Channel) -> None:
    peer = peers[0]
    peer.welcome(functions=[function("traced", "traced")])
    send(channel, json_event("traced", traceparent="garbage\0" * 100, tracestate="=,;" * 100))
    found(peer, peer.next("invoke"), closure("a"))
    assert peer.next("run_steps").attempts


# Too much.


def delay_asked(error: grpc.RpcError) -> float:
    """Give the delay of a status's RetryInfo; 0 without one."""
    status: Any = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return 0.0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_queued_runs": 5}, "5 runs wait for a worker"),
        ({"max_queued_bytes": 5_000}, "4955 bytes of events and results wait"),
    ],
)
def test_a_full_executor_asks_for_patience_and_the_client_has_it(settings: dict[str, object], named: str) -> None:
    with ExecutorProcess(settings=settings) as executor, grpc.insecure_channel(executor.address) as channel:
        with Peer(executor.address) as gone:
            gone.welcome(functions=[function("full", "full")])
        wait_until_gone(channel)
        text = b'"' + b"x" * 980 + b'"'
        for _ in range(5):
            send(channel, json_event("full", text))
        with pytest.raises(grpc.RpcError) as caught:
            send(channel, json_event("full", text))
        error: Any = caught.value
        assert error.code() is EXHAUSTED
        assert delay_asked(error) == 1
        assert named in error.details()
        for part in (*(f"--{name.replace('_', '-')}={value}" for name, value in settings.items()), "send again in 1 s"):
            assert part in error.details()
        assert send(channel, json_event("starts/nothing")).receipts, "runs may wait for it"
        with stepwire.SyncClient(executor.address) as client, Peer(executor.address) as worker:
            worker.welcome(functions=[function("full", "full")])
            assert client.send("full", "patient").run_ids


def test_runs_that_workers_begin_and_leave_fill_the_queue_as_new_ones_do() -> None:
    settings = {"max_queued_runs": 5, "session_grace": 0.2}
    with ExecutorProcess(settings=settings) as executor, grpc.insecure_channel(executor.address) as channel:
        with Peer(executor.address) as leaves:
            leaves.welcome(functions=[function("left", "left")], max_invocations=10)
            for _ in range(5):
                send(channel, json_event("left"))
                leaves.next("invoke")
            assert send(channel, json_event("left")).receipts, "a worker has them"
            leaves.next("invoke")
        wait_until_gone(channel)
        with pytest.raises(grpc.RpcError) as caught:
            send(channel, json_event("left"))
        error: Any = caught.value
        assert error.code() is EXHAUSTED
        assert "6 runs wait for a worker, --max-queued-runs=5" in error.details()
        with Peer(executor.address) as comes:
            comes.welcome(functions=[function("left", "left")], max_invocations=10)
            for _ in range(6):
                comes.next("invoke")
            assert send(channel, json_event("left")).receipts


def wait_until_gone(channel: grpc.Channel) -> None:
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    while any(worker.state == 1 for worker in stub.ListWorkers(admin_pb2.ListWorkersRequest(), timeout=10).workers):
        time.sleep(0.02)


def test_events_in_calls_count_too_and_a_lone_large_call_is_taken() -> None:
    with (
        ExecutorProcess(settings={"max_queued_bytes": 1_000}) as executor,
        grpc.insecure_channel(executor.address) as channel,
    ):
        stub = event_pb2_grpc.EventServiceStub(channel)
        assert stub is not None
        assert send(channel, json_event("x", b'"' + b"x" * 100_000 + b'"')).receipts


def test_a_worker_that_does_not_read_is_cut_and_the_others_go_on(executor: ExecutorProcess) -> None:
    """It is sent more than gRPC buffers; what it has in hand is tried elsewhere."""
    settings = {"heartbeat_interval": 2, "session_grace": 0.2, "max_unread_bytes": 1 << 20}
    with ExecutorProcess(settings=settings) as own, grpc.insecure_channel(own.address) as channel:
        with Peer(own.address, reads=False) as deaf:
            deaf.hello(instance_id="deaf", functions=[function("much", "much")], max_invocations=100)
            wait_for_worker(channel, "deaf")
            begun = time.monotonic()
            text = b'"' + b"x" * 1_000_000 + b'"'
            for _ in range(20):
                send(channel, json_event("much", text))
            with Peer(own.address) as other:
                other.welcome(functions=[function("much", "much")], max_invocations=100)
                while "has not read" not in own.log:
                    for peer in (deaf, other):
                        peer.send(heartbeat=worker_pb2.Heartbeat())
                    assert time.monotonic() - begun < 3.5, "the bytes that wait are the reason, not the time"
                    time.sleep(0.1)
                assert len({other.next("invoke").run_id for _ in range(20)}) == 20
                assert lives(other)
        (line,) = [line for line in own.log.splitlines() if "has not read" in line]
        for part in ("deaf", "RESOURCE_EXHAUSTED", "over --max-unread-bytes=1048576"):
            assert part in line


def wait_for_worker(channel: grpc.Channel, instance_id: str) -> None:
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    request = admin_pb2.ListWorkersRequest()
    while instance_id not in {worker.instance_id for worker in stub.ListWorkers(request, timeout=10).workers}:
        time.sleep(0.02)
