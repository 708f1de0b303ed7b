"""Answers are bounded by bytes: any client takes them, and nobody's large values fill the executor for others."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

import stepwire
from stepwire.testing import ExecutorProcess, WorkerThread
from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure, Step, StepKey, StepKind
from stepwire_executor.services.pages import PAGE_BYTES
from stepwire_executor.services.runs import RunService
from stepwire_executor.store.memory import MemoryStore
from stepwire_proto.v1 import run_pb2, run_pb2_grpc
from tests.executor.test_engine import ended, found, hello, running, send, take

OUTPUT, TEXT = 400_000, 60_000
FAILURES = 20
app = stepwire.App("large")


async def large() -> str:
    return "x" * OUTPUT


def fail() -> None:
    raise ValueError(f"attempt {stepwire.current_attempt().number}: " + "m" * TEXT)


@app.function("large", trigger="large/go", retries=0)
async def large_function(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.parallel(*[step.run("large", large) for _ in range(5)])
    policy = stepwire.Retry(FAILURES - 1, initial_interval=0.001, maximum_interval=0.002)
    await step.run("fails", fail, retries=policy)


@pytest.fixture(scope="module", params=["in memory", "from the store"])
def asked(request: pytest.FixtureRequest) -> Iterator[tuple[run_pb2_grpc.RunServiceStub, list[str]]]:
    """Give the calls of a client with gRPC's default limits, and the ids of runs that have ended, newest first."""
    with ExecutorProcess() as executor, grpc.insecure_channel(executor.address) as channel:
        with WorkerThread(app, executor.address), stepwire.SyncClient(executor.address) as client:
            run_ids = [client.send("large/go").run_ids[0] for _ in range(3)]
            for run_id in run_ids:
                with pytest.raises(stepwire.RunFailedError):
                    client.result(run_id)
        if request.param == "from the store":
            executor.kill()
            executor.start()
        yield run_pb2_grpc.RunServiceStub(channel), run_ids[::-1]


def test_pages_of_steps_end_by_their_bytes_and_leave_none_out(
    asked: tuple[run_pb2_grpc.RunServiceStub, list[str]],
) -> None:
    runs, (run_id, *_) = asked
    request = run_pb2.GetRunRequest(run_id=run_id, include_steps=True, include_outputs=True)
    steps, sizes = [], []
    while True:
        page = runs.GetRun(request, wait_for_ready=True)
        steps += page.steps
        sizes.append(sum(step.ByteSize() for step in page.steps))
        assert sum(step.ByteSize() for step in page.steps[:-1]) < PAGE_BYTES
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert len(sizes) >= 2
    assert all(len(step.output.data) == OUTPUT + 2 for step in steps[:5])
    failed = steps[5].failed_attempts
    assert [attempt.number for attempt in failed] == list(range(1, FAILURES + 1))
    assert all(attempt.failure.message.startswith(f"attempt {attempt.number}: m") for attempt in failed)
    assert len(failed[-1].failure.message) > TEXT
    assert failed[-1].failure.stack
    assert len(failed[0].failure.message) <= 256
    assert not failed[0].failure.stack
    assert steps[5].ByteSize() < 800_000


def test_a_page_may_have_one_step(asked: tuple[run_pb2_grpc.RunServiceStub, list[str]]) -> None:
    runs, (run_id, *_) = asked
    request = run_pb2.GetRunRequest(run_id=run_id, include_steps=True, include_outputs=True, page_size=1)
    numbers = []
    for _ in range(6):
        page = runs.GetRun(request)
        numbers += [step.number for step in page.steps]
        request.page_token = page.next_page_token
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert not request.page_token


def test_pages_of_runs_end_by_their_bytes_and_leave_none_out(
    asked: tuple[run_pb2_grpc.RunServiceStub, list[str]],
) -> None:
    runs, run_ids = asked
    found, request = [], run_pb2.ListRunsRequest(app="large", page_size=2)
    while True:
        page = runs.ListRuns(request)
        found += [run.id for run in page.runs]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert found == run_ids


def test_a_watch_tells_of_all_steps_in_messages_of_bounded_size(
    asked: tuple[run_pb2_grpc.RunServiceStub, list[str]],
) -> None:
    runs, (run_id, *_) = asked
    numbers: list[int] = []
    for message in runs.WatchRun(run_pb2.WatchRunRequest(run_id=run_id)):
        numbers += [step.number for step in message.steps]
        assert message.ByteSize() < 2 * PAGE_BYTES
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert message.run.state == run_pb2.RUN_STATE_FAILED


class Noting(MemoryStore):
    """Notes behind which step it was asked for more."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    async def get_steps(
        self, run_id: str, after_number: int, limit: int, most_bytes: int, *, outputs: bool = True
    ) -> list[Step]:
        self.asked.append(after_number)
        return await super().get_steps(run_id, after_number, limit, most_bytes, outputs=outputs)


async def test_steps_behind_the_last_one_with_failed_attempts_are_read_once() -> None:
    store = Noting()
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        run_id = invoke.run.id
        await found(engine, invoke, *(i.StepPlanned(StepKey(f"s{n}", 0), StepKind.CLOSURE) for n in range(80)))
        start = await take(peers, c.StartAttempt)
        failure = Failure("Error", "no", retryable=False)
        engine.submit(i.StepFailed(invoke.session_id, run_id, start.key, start.fence, failure, 0.0))
        engine.submit(i.RunFinished(invoke.session_id, run_id, invoke.invocation, b"", 0))
        await ended(engine, store, run_id)
    async with running(store) as (engine, _):
        store.asked.clear()
        request = run_pb2.GetRunRequest(run_id=run_id, include_steps=True, include_outputs=True)
        page = await RunService(engine, store).GetRun(request, None)
        assert [step.number for step in page.steps] == list(range(1, 81))
        assert [len(step.failed_attempts) for step in page.steps] == [1, *[0] * 79]
        assert store.asked == [0, 80]
