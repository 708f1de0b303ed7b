"""Bodies that live in a worker: as leads and replicas, replaced, evicted, and in trouble."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import stepwire
from stepwire_proto.v1 import opcode_pb2, worker_pb2
from tests.sdk_python.worker.scripted import ScriptedExecutor, Stream, attempt, entry, serving

app = stepwire.App("app")
go_on = threading.Event()
body_moves = threading.Event()


async def one() -> int:
    return 1


async def long() -> None:
    await asyncio.sleep(0.3)


@app.function("two")
async def two(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return await step.run("a", one) + await step.run("b", one)


@app.function("race")
async def race(ctx: stepwire.Context, step: stepwire.Step) -> int:
    loser = asyncio.create_task(step.run("loser", one))
    winner = await step.run("winner", one)
    loser.cancel()
    return winner + await step.run("last", one)


@app.function("wide")
async def wide(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return sum(await asyncio.gather(*[step.run("s", one) for _ in range(1000)]))


@app.function("long")
async def long_one(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("long", long)


@app.function("inputs")
async def inputs(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await asyncio.gather(*[step.call("task", "x" * 100_000, id=f"t{number}") for number in range(12)])


@app.function("slow body")
def slow_body(ctx: stepwire.Context, step: stepwire.SyncStep) -> None:
    body_moves.set()
    go_on.wait(20)
    step.run("s", one)


@pytest.fixture
def executor() -> Iterator[ScriptedExecutor]:
    go_on.clear()
    body_moves.clear()
    with ScriptedExecutor() as executor:
        yield executor
    go_on.set()


def resume(stream: Stream, *entries: opcode_pb2.JournalEntry, fence: int = 1, **more: int) -> None:
    """Resume the run "r1" as its lead."""
    stream.send(resume=worker_pb2.Resume(run_id="r1", invocation=fence, lead=True, entries=entries, **more))


async def test_a_thousand_steps_are_found_in_pages_and_run_on_a_hundred_slots(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, slots=100):
        stream = await executor.stream()
        await stream.hello(limits=worker_pb2.Limits(max_frame_bytes=1 << 20))
        stream.invoke("wide")
        found: list[int] = []
        while len(found) < 1000:
            page = await stream.next("steps_found")
            found += [step.key.index for step in page.steps]
            assert page.quiescent == (len(found) == 1000)
        assert found == list(range(1000))
        frames = stream.frames
        for first in range(0, 1000, 100):
            stream.start(*[f"s:{number}" for number in range(first, first + 100)], first_fence=first + 1)
            runs = [await stream.next("step_run") for _ in range(100)]
            assert {run.attempt.key.index for run in runs} == set(range(first, first + 100))
            stream.record(*[run.attempt for run in runs])
        assert stream.frames - frames < 100, "results travel together"
        resume(stream, *[entry(f"s:{number}", number + 1) for number in range(1000)])
        assert (await stream.next("run_finished")).output.data == b"1000"


async def test_a_long_report_goes_in_messages_well_under_a_frame(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello(limits=worker_pb2.Limits(max_frame_bytes=1 << 20))
        stream.invoke("inputs")
        pages = [await stream.next("steps_found")]
        while not pages[-1].quiescent:
            pages.append(await stream.next("steps_found"))
        assert sum(len(page.steps) for page in pages) == 12
        assert max(page.ByteSize() for page in pages) < 512 * 1024


async def test_a_replica_that_has_ended_tells_so_when_it_becomes_the_lead(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("two", lead=False, journal=[entry("a", 1), entry("b", 2)], journal_length=2)
        resume(stream)
        assert (await stream.next("run_finished")).output.data == b"2"
        assert stream.kept == []


async def test_a_replica_that_becomes_the_lead_tells_what_it_gave_up(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("race", lead=False)
        stream.send(resume=worker_pb2.Resume(run_id="r1", invocation=1, entries=[entry("winner", 1)]))
        resume(stream)
        assert [key.id for key in (await stream.next("step_cancelled")).keys] == ["loser"]
        assert [step.key.id for step in (await stream.next("steps_found")).steps] == ["last"]


async def test_a_step_that_the_body_gave_up_is_not_run(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("race", lead=False, journal=[entry("winner", 1)], journal_length=1)
        stream.start("loser", "last")
        assert [key.id for key in (await stream.next("step_cancelled")).keys] == ["loser"]
        assert (await stream.next("step_run")).attempt.key.id == "last"


async def test_the_permission_of_an_invoke_holds_when_its_journal_comes_in_pieces(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("two", eager_fence=50, journal_length=1)
        stream.send(journal_chunk=worker_pb2.JournalChunk(run_id="r1", invocation=1, entries=[entry("a", 1)]))
        assert (await stream.next("steps_found")).steps[0].eager_fence == 50
        assert (await stream.next("step_run")).attempt == attempt("b", 50)


async def test_a_permission_that_nothing_is_found_for_is_answered(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("wide")
        while not (await stream.next("steps_found")).quiescent:
            continue
        resume(stream, entry("s", 1), eager_fence=50)
        found = await stream.next("steps_found")
        assert (list(found.steps), found.sequence, found.quiescent) == ([], 1, True)


async def test_the_plan_of_a_lone_step_dies_with_its_stream(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("long", eager_fence=50)
        await stream.next("steps_found")
        stream.reset()
        again = await executor.stream()
        hello = await again.hello()
        assert list(hello.attempts_in_hand) == [attempt("long", 50)]
        await again.next("step_run")
        assert again.kept == []


async def test_a_new_invoke_replaces_the_body_that_the_worker_holds(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("two")
        await stream.next("steps_found")
        stream.invoke("two", fence=2)
        assert (await stream.next("steps_found")).invocation == 2
        resume(stream, entry("a", 1), fence=1)
        assert (await stream.next("need_journal")).invocation == 1


async def test_bodies_do_not_outlive_their_stream(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("two")
        await stream.next("steps_found")
        stream.reset()
        again = await executor.stream()
        await again.hello()
        resume(again, entry("a", 1))
        assert (await again.next("need_journal")).run_id == "r1"


async def test_a_body_with_an_attempt_in_hand_is_not_evicted(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, max_invocations=1):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("long", run_id="r1", fence=1)
        stream.start("long")
        stream.invoke("two", run_id="r2", fence=2)
        stream.invoke("two", run_id="r3", fence=3)
        assert (await stream.next("evicted")).run_id == "r2"
        await stream.next("step_run")
        stream.invoke("two", run_id="r4", fence=4)
        assert {(await stream.next("evicted")).run_id, (await stream.next("evicted")).run_id} == {"r1", "r3"}


async def test_a_cancelled_attempt_that_waits_for_its_body_never_begins(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("slow body", lead=False)
        stream.start("s", "s", first_fence=100)
        await asyncio.to_thread(body_moves.wait, 10)
        stream.send(cancel=worker_pb2.Cancel(attempt=attempt("s", 100), reason="enough"))
        stream.send(resume=worker_pb2.Resume(run_id="r9", invocation=9))
        await stream.next("need_journal")
        go_on.set()
        assert (await stream.next("step_run")).attempt.fence == 101


async def test_a_drain_gives_back_the_attempts_that_wait_for_their_body(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, drain_seconds=10) as (worker, task):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("slow body", lead=False)
        stream.start("s")
        await asyncio.to_thread(body_moves.wait, 10)
        stream.send(resume=worker_pb2.Resume(run_id="r9", invocation=9))
        await stream.next("need_journal")
        worker.drain()
        assert list((await stream.next("draining")).returned_attempts) == [attempt("s", 100)]
        await asyncio.wait_for(asyncio.shield(task), 5)


@pytest.mark.parametrize("lead", [True, False])
async def test_a_journal_that_this_version_can_not_read_fails_the_run_and_nothing_else(
    executor: ScriptedExecutor, lead: bool
) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        odd = entry("a", 1)
        odd.kind = 99  # type: ignore[assignment]
        stream.invoke("two", lead=lead, journal=[odd], journal_length=1)
        stream.start("b")
        failed = await stream.next("run_failed")
        assert "step kind 99" in failed.failure.message
        stream.invoke("two", run_id="r2", fence=2)
        assert (await stream.next("steps_found")).run_id == "r2"


async def test_a_gap_in_the_journal_fails_the_run_and_nothing_else(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("two")
        resume(stream, entry("a", 2))
        assert "gap" in (await stream.next("run_failed")).failure.message
        stream.invoke("two", run_id="r2", fence=2)
        assert [step.key.id for step in (await stream.next("steps_found")).steps] == ["a"]


async def test_a_function_that_the_worker_does_not_have_is_named(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("three")
        failure = (await stream.next("run_failed")).failure
        assert failure.type == "FunctionNotFoundError"
        assert "no function 'three': it has inputs, long, race" in failure.message
