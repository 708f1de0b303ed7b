"""How bodies move: none holds up the others, on the loop or in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from stepwire import App, Context, Step, SyncStep
from stepwire_proto.v1 import worker_pb2
from tests.sdk_python.worker.scripted import ScriptedExecutor, entry, serving

app = App("app")
blocked = threading.Event()


def one() -> int:
    return 1


@app.function("blocks")
def blocks(ctx: Context, step: SyncStep) -> str:
    blocked.wait(60)
    return "late"


@app.function("quick")
def quick(ctx: Context, step: SyncStep) -> str:
    return "quick"


@app.function("polls")
async def polls(ctx: Context, step: Step) -> None:
    task = asyncio.create_task(step.run("a", one))
    while not task.done():  # noqa: ASYNC110 - this is the point
        await asyncio.sleep(0)


@app.function("long")
async def long(ctx: Context, step: Step) -> int:
    return sum([await step.run("a", one) for _ in range(20_000)])


@app.function("catches")
async def catches(ctx: Context, step: Step) -> None:
    while True:
        try:
            await step.sleep("s", 1)
        except BaseException:
            continue


@pytest.fixture
def executor() -> Iterator[ScriptedExecutor]:
    blocked.clear()
    with ScriptedExecutor() as executor:
        yield executor
    blocked.set()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one thread for bodies, which may take half a second."""
    monkeypatch.setattr("stepwire.worker.moves.WATCH_SECONDS", 0.05)
    monkeypatch.setattr("stepwire.worker.moves.LONGEST_MOVE_SECONDS", 0.5)
    monkeypatch.setattr("stepwire.worker.moves.LONGEST_END_SECONDS", 0.5)
    monkeypatch.setattr("stepwire.worker.invocations.MOST_MOVING", 1)


@pytest.mark.usefixtures("impatient")
async def test_a_thread_that_does_not_come_back_fails_its_run_and_takes_no_other_place(
    executor: ScriptedExecutor,
) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("blocks", run_id="r1")
        stream.invoke("quick", run_id="r2", fence=2)
        failed = await stream.next("run_failed")
        assert (failed.run_id, failed.failure.type, failed.failure.retryable) == ("r1", "SpinningBodyError", False)
        assert f"blocks ({__file__}:" in failed.failure.message
        assert (await stream.next("run_finished")).run_id == "r2"
        blocked.set()  # it comes back after all, and nobody minds
        stream.invoke("quick", run_id="r3", fence=3)
        assert (await stream.next("run_finished")).run_id == "r3"


@pytest.mark.usefixtures("impatient")
async def test_a_thread_that_does_not_come_back_after_its_run_was_cancelled_is_abandoned(
    executor: ScriptedExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("blocks", run_id="r1")
        stream.send(cancel=worker_pb2.Cancel(run_id="r1", reason="enough"))
        stream.invoke("quick", run_id="r2", fence=2)
        assert (await stream.next("run_finished")).run_id == "r2"
        assert f"blocks ({__file__}:" in "".join(record.getMessage() for record in caplog.records)


async def test_a_body_that_polls_and_a_long_journal_let_others_have_their_turn(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream(30)
        await stream.hello()
        journal = [entry(f"a:{n}", n + 1) for n in range(20_000)]
        stream.invoke("polls", run_id="r1")
        stream.invoke("long", run_id="r2", fence=2, journal=journal, journal_length=len(journal))
        stream.invoke("quick", run_id="r3", fence=3)
        assert (await stream.next("run_finished", 30)).run_id == "r3"
        failed = await stream.next("run_failed", 60)
        assert (failed.run_id, failed.failure.type) == ("r1", "SpinningBodyError")
        assert (await stream.next("run_finished", 60)).output.data == b"20000"


async def test_a_body_that_polls_is_dropped_while_it_does(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        for n in range(10):
            stream.invoke("polls", run_id=f"r{n}", fence=n + 1)
            stream.send(cancel=worker_pb2.Cancel(run_id=f"r{n}", reason="enough"))
        stream.invoke("quick", run_id="q", fence=20)
        assert (await stream.next("run_finished", 30)).run_id == "q"
        assert not [kind for _, kind in stream.kept if kind.HasField("run_failed")]


async def test_a_function_whose_bodies_do_not_end_is_not_taken_for_ever(
    executor: ScriptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwire.worker.invocations.MOST_ABANDONED", 2)
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        for n in range(2):
            stream.invoke("catches", run_id=f"r{n}", fence=n + 1)
            await stream.next("steps_found")
            stream.send(cancel=worker_pb2.Cancel(run_id=f"r{n}", reason="enough"))
        stream.invoke("catches", run_id="r3", fence=4)
        failed = await stream.next("run_failed")
        assert (failed.run_id, failed.failure.type, failed.failure.retryable) == ("r3", "TooManyAbandonedError", True)
        stream.invoke("quick", run_id="r4", fence=5)
        assert (await stream.next("run_finished")).run_id == "r4"
