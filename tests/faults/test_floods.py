"""Floods: of connections, of steps, of messages. The executor stays, and serves the others meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import stepwire
from benchmarks.taken import resident_bytes
from stepwire.testing import ExecutorProcess, WorkerThread
from stepwire_executor.jsontext import check_json
from stepwire_proto.v1 import admin_pb2, admin_pb2_grpc, opcode_pb2, run_pb2, run_pb2_grpc, value_pb2, worker_pb2
from tests.executor.altered import AlteredExecutor
from tests.executor.peer import Peer
from tests.executor.test_bad_input import ended, run_of
from tests.faults.crowd import Crowd

quick = stepwire.App("quick")


async def double(n: int) -> int:
    return n * 2


@quick.function("quick", trigger="quick/go")
async def quick_function(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    return await step.map("double", double, range(5))


@quick.function("echo", trigger="quick/echo")
async def echo(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return ctx.event.data


class Neighbour(threading.Thread):
    """Makes runs all the time while a flood is on: the first has ended before it, the last may end after it."""

    def __init__(self, client: stepwire.SyncClient) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.ended = 0
        self.wrong: list[object] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            output = self.client.result(self.client.send("quick/go").run_ids[0], 60)
            self.ended += 1
            if output != [0, 2, 4, 6, 8]:
                self.wrong.append(output)

    def __enter__(self) -> Neighbour:
        self.start()
        while not self.ended:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(60)
        assert not self.is_alive()
        assert not self.wrong
        assert self.ended > 2, "no run began and ended while the flood was on"


@pytest.fixture
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess(settings={"session_grace": 0.5}) as process:
        yield process


@contextlib.contextmanager
def neighbour(executor: ExecutorProcess) -> Iterator[Neighbour]:
    with (
        WorkerThread(quick, executor.address, slots=4) as worker,
        stepwire.SyncClient(executor.address) as client,
        Neighbour(client) as neighbour,
    ):
        yield neighbour
        (info,) = [each for each in client.workers() if each.instance_id == worker.instance_id]
        assert info.state == "connected"
        assert "is back" not in executor.log, "a worker was lost meanwhile"


@pytest.fixture
def channel(executor: ExecutorProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(executor.address) as channel:
        yield channel


async def test_a_thousand_workers_are_welcomed_heard_and_given_work(executor: ExecutorProcess) -> None:
    before = resident_bytes(executor.pid)
    async with Crowd(executor.address, 1000) as crowd, stepwire.Client(executor.address) as client:
        await asyncio.wait_for(crowd.welcomed(), 30)
        assert len(await client.workers()) == 1000
        for _ in range(3):
            answers = await asyncio.wait_for(crowd.beat(), 30)
            assert answers[-1] < 3, f"a heartbeat was answered after {answers[-1]:.1f} s"
        receipts = await client.send_many([("crowd/go", n) for n in range(2000)])
        for receipt in receipts[::100]:
            await client.wait(receipt.run_ids[0], 30)
        assert min(member.runs for member in crowd.members) > 0, "the work went to a few"
        assert (resident_bytes(executor.pid) - before) / 1000 < 400_000, "bytes a worker"
    async with stepwire.Client(executor.address) as client:
        async with asyncio.timeout(30):
            while await client.workers():  # noqa: ASYNC110 - their grace is over as well
                await asyncio.sleep(0.1)
    assert "Traceback" not in executor.log


async def test_whoever_waits_for_thousands_of_runs_at_once_is_told_of_each(executor: ExecutorProcess) -> None:
    with WorkerThread(quick, executor.address):
        pass  # the executor knows the function, and no run begins before all are waited for
    async with stepwire.Client(executor.address) as client, grpc.aio.insecure_channel(executor.address) as channel:
        receipts = await client.send_many([("quick/echo", n) for n in range(2500)])
        runs = [receipt.run_ids[0] for receipt in receipts]
        together = asyncio.gather(*[client.result(run) for run in runs])
        wait_run = run_pb2_grpc.RunServiceStub(channel).WaitRun  # other languages' clients make a call for each run
        alone = asyncio.gather(*[wait_run(run_pb2.WaitRunRequest(run_id=run)) for run in runs])
        worker = await asyncio.to_thread(WorkerThread(quick, executor.address, slots=32).start)
        try:
            assert await together == list(range(2500))
            assert {answer.run.state for answer in await alone} == {run_pb2.RUN_STATE_SUCCEEDED}
        finally:
            worker.stop()


class BusyExecutor(AlteredExecutor):
    """An executor whose loop does nothing for 32 s after SIGUSR1."""

    before = "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: time.sleep(32))"


def test_calls_that_a_busy_executor_looks_at_late_are_answered() -> None:
    with BusyExecutor() as executor, grpc.insecure_channel(executor.address) as channel:
        get_run = run_pb2_grpc.RunServiceStub(channel).GetRun
        executor.signal(signal.SIGUSR1)
        calls = [get_run.future(run_pb2.GetRunRequest(run_id="nobody"), timeout=60) for _ in range(100)]
        assert {call.code() for call in calls} == {grpc.StatusCode.NOT_FOUND}


def test_a_flood_of_steps_ends_in_a_clear_error_and_others_are_served_meanwhile(
    executor: ExecutorProcess, channel: grpc.Channel
) -> None:
    with neighbour(executor), Peer(executor.address) as peer:
        invoke = run_of(peer, channel, "flood")
        for page in range(101):
            count = 1000 if page < 100 else 1
            steps = [
                opcode_pb2.StepPlanned(
                    key=value_pb2.StepKey(id="s", index=page * 1000 + n), task=opcode_pb2.TaskTarget(name="nobody")
                )
                for n in range(count)
            ]
            peer.send(
                steps_found=opcode_pb2.StepsFound(run_id=invoke.run_id, invocation=invoke.invocation, steps=steps)
            )
            peer.send(heartbeat=worker_pb2.Heartbeat())
        run = ended(channel, invoke.run_id)
        assert (run.state, run.failure.type) == (run_pb2.RUN_STATE_FAILED, "TooManyStepsError")
        assert "found step 100001, over --max-steps=100000" in run.failure.message
        assert "split the work" in run.failure.message


def test_300_000_steps_in_one_message_fail_the_run_and_hold_up_nobody() -> None:
    steps = [opcode_pb2.StepPlanned(key=value_pb2.StepKey(id="s", index=n)) for n in range(300_000)]
    body = opcode_pb2.StepsFound(steps=steps).SerializeToString()
    del steps
    with (
        ExecutorProcess(settings={"max_steps": 10_000}) as executor,
        grpc.insecure_channel(executor.address) as channel,
        neighbour(executor),
        Peer(executor.address) as peer,
    ):
        invoke = run_of(peer, channel, "at-once")
        head = opcode_pb2.StepsFound(run_id=invoke.run_id, invocation=invoke.invocation).SerializeToString()
        report = opcode_pb2.StepsFound.FromString(head + body)
        peer.send_in_fragments(steps_found=report)
        run = ended(channel, invoke.run_id)
        assert (run.state, run.failure.type) == (run_pb2.RUN_STATE_FAILED, "TooManyStepsError")


def test_steps_with_very_many_events_are_read_in_pieces_and_hold_up_nobody(executor: ExecutorProcess) -> None:
    data = b"[" + b"[]," * 2_000 + b"0]"
    step = opcode_pb2.StepPlanned(key=value_pb2.StepKey(id="send"))
    for _ in range(1_000):
        step.send_events.events.add(name="nobody/listens", data=value_pb2.Payload(data=data, encoding="json"))
    began = time.perf_counter()
    for _ in range(1_000):
        check_json(data)
    in_one_piece = time.perf_counter() - began
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(executor.address))
        stack.enter_context(neighbour(executor))
        invokes = []
        for number in range(3):
            peer = stack.enter_context(Peer(executor.address))
            invokes.append((peer, run_of(peer, channel, f"sender-{number}")))
        for peer, invoke in invokes:
            report = opcode_pb2.StepsFound(run_id=invoke.run_id, invocation=invoke.invocation, steps=[step])
            peer.send_in_fragments(steps_found=report)
        for peer, _ in invokes:
            entry = peer.next("resume", 60).entries[0]
            assert len(json.loads(entry.output.data)) == 1_000
        status = admin_pb2_grpc.AdminServiceStub(channel).GetStatus(admin_pb2.GetStatusRequest(), timeout=20)
    assert status.pieces.longest.ToTimedelta().total_seconds() < in_one_piece * 0.7


def test_a_flood_of_tiny_messages_holds_up_nobody(executor: ExecutorProcess, channel: grpc.Channel) -> None:
    """Frames as large as may be, of messages as small as may be: heartbeats, pieces of one byte, stale results."""
    key = value_pb2.StepKey(id="k")
    stale = opcode_pb2.StepRun(attempt=value_pb2.Attempt(run_id="nobody", key=key, fence=1))
    piece = worker_pb2.Fragment(id=1, data=b"x")
    kinds = [
        worker_pb2.WorkerMessage(heartbeat=worker_pb2.Heartbeat()),
        worker_pb2.WorkerMessage(fragment=piece),
        worker_pb2.WorkerMessage(step_run=stale),
    ]
    with neighbour(executor), Peer(executor.address) as peer:
        peer.welcome()
        for message in kinds:
            one = worker_pb2.WorkerFrame(messages=[message]).SerializeToString()
            for _ in range(2):
                peer.frame(one * (1_000_000 // len(one)))
        reasons = 0
        while reasons < 2 * (1_000_000 // len(one)):
            reasons += len(peer.next("recorded", 30).refusals)


def test_a_worker_that_floods_and_does_not_read_takes_a_bounded_memory() -> None:
    """Each stale result has an answer longer than itself: those who do not take answers are not heard any more."""
    stale = opcode_pb2.StepRun(attempt=value_pb2.Attempt(run_id="nobody", key=value_pb2.StepKey(id="k" * 500), fence=1))
    one = worker_pb2.WorkerFrame(messages=[worker_pb2.WorkerMessage(step_run=stale)]).SerializeToString()
    frame = one * (1_000_000 // len(one))
    with (
        ExecutorProcess(settings={"heartbeat_interval": 1}) as executor,
        neighbour(executor),
        Peer(executor.address, reads=False) as deaf,
    ):
        before = resident_bytes(executor.pid)
        deaf.hello(instance_id="deaf-flood")
        while "deaf-flood has connected" not in executor.log:
            time.sleep(0.02)
        most = 0
        begun = time.monotonic()
        for _ in range(200):
            deaf.frame(frame)
        while "has not read" not in executor.log:
            most = max(most, resident_bytes(executor.pid) - before)
            assert time.monotonic() - begun < 20, "it is never cut"
            time.sleep(0.05)
        assert most < 120 << 20, f"{most >> 20} MiB for a worker that floods"


def test_the_executor_opens_as_many_files_as_it_may_and_says_when_they_are_few(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "stepwire_executor", "--store", "memory:", "--port", "0", "--ready-file"]
    soft, hard = 256, 1024
    with subprocess.Popen(
        [*command, str(ready)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert "only 1024 files may be open" in line
            assert "ulimit -Hn" in line
            while not ready.exists():
                time.sleep(0.02)
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            (row,) = [row for row in limits.splitlines() if row.startswith("Max open files")]
            assert row.split()[3] == str(hard)
        finally:
            process.terminate()
            process.wait(20)
