"""The worker's side of the contract, against a scripted executor over a real stream."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

import stepwire
from stepwire.errors import ExecutorError
from stepwire.worker.threads import Threads
from stepwire_proto.v1 import value_pb2, worker_pb2
from tests.sdk_python.worker.scripted import ScriptedExecutor, Stream, attempt, entry, serving

app = stepwire.App("app", version="v1")
seen: dict[str, object] = {}


async def quick() -> int:
    return 1


async def slow() -> int:
    await asyncio.sleep(0.2)
    return 2


async def forever() -> None:
    seen["forever begun"] = True
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        seen["cancelled"] = True
        raise


def sync_until_cancelled() -> str:
    current = stepwire.current_attempt()
    seen["begun"] = True
    seen["sync cancelled"] = current.wait_cancelled(20)
    return current.reason


async def block() -> int:
    time.sleep(2.5)  # noqa: ASYNC251 - this is the point
    return 3


@app.function("fan", trigger="go")
async def fan(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return sum(await asyncio.gather(*[step.run("s", quick) for _ in range(3)]))


@app.function("raises")
async def raises(ctx: stepwire.Context, step: stepwire.Step) -> None:
    raise LookupError("not on this machine")


@app.function("lone")
async def lone(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return await step.run("only", slow if ctx.attempt == 2 else quick)


@app.function("kinds")
async def kinds(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await asyncio.gather(
        step.run("forever", forever),
        step.run("sync", sync_until_cancelled),
        step.run("block", block),
        step.run("large", lambda: "x" * (5 << 20)),
        step.run("big", lambda: "x" * (3 << 20)),
        step.run("odd", object),
        step.run("exit", lambda: exit(3)),
        step.run("quick", quick),
    )


@app.function("sync")
def sync_function(ctx: stepwire.Context, step: stepwire.SyncStep) -> int:
    return sum(step.parallel(lambda: step.run("a", quick), lambda: step.run("b", quick)))


@app.task("shout")
def shout(text: str) -> str:
    return text.upper()


@pytest.fixture
def executor() -> Iterator[ScriptedExecutor]:
    seen.clear()
    with ScriptedExecutor() as executor:
        yield executor


async def test_hello_says_what_the_worker_is(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, slots=7, labels={"zone": "a"}):
        hello = await (await executor.stream()).hello()
    assert (hello.min_protocol, hello.max_protocol, hello.app, hello.app_version) == (1, 1, "app", "v1")
    assert (hello.slots, dict(hello.labels), list(hello.tasks)) == (7, {"zone": "a"}, ["shout"])
    assert [function.id for function in hello.functions] == ["fan", "raises", "lone", "kinds", "sync"]
    assert hello.functions[0].triggers[0].event_name == "go"
    assert worker_pb2.CAPABILITY_EAGER in hello.capabilities


async def test_a_lead_reports_what_it_finds_runs_what_it_is_given_and_returns(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("fan")
        found = await stream.next("steps_found")
        assert [(step.key.id, step.key.index) for step in found.steps] == [("s", 0), ("s", 1), ("s", 2)]
        assert found.quiescent
        assert found.steps[0].source.startswith("test_worker.py:")
        stream.start("s", "s:1", "s:2")
        runs = [await stream.next("step_run") for _ in range(3)]
        assert [run.output.data for run in runs] == [b"1"] * 3
        stream.send(resume=worker_pb2.Resume(run_id="r1", invocation=1, lead=True, entries=[entry("s:1", 1)]))
        answer = await stream.next("steps_found")
        assert (answer.sequence, len(answer.steps), answer.quiescent) == (1, 0, True)
        rest = [entry("s", 2), entry("s:2", 3)]
        stream.send(resume=worker_pb2.Resume(run_id="r1", invocation=1, lead=True, entries=rest))
        assert (await stream.next("run_finished")).output.data == b"3"


async def test_a_lone_step_that_is_quick_travels_with_its_plan(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("lone", eager_fence=50)
        plan_frame, found = await stream.next_framed("steps_found")
        run_frame, run = await stream.next_framed("step_run")
        assert found.steps[0].eager_fence == run.attempt.fence == 50
        assert plan_frame == run_frame


async def test_a_lone_step_that_takes_long_is_announced_while_it_runs(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("lone", eager_fence=50, attempt=2)
        plan_frame, found = await stream.next_framed("steps_found")
        run_frame, run = await stream.next_framed("step_run")
        assert found.steps[0].eager_fence == run.attempt.fence == 50
        assert plan_frame < run_frame


async def test_an_eager_fence_is_not_used_for_several_steps(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("fan", eager_fence=50)
        found = await stream.next("steps_found")
        assert [step.eager_fence for step in found.steps] == [0, 0, 0]


async def test_a_replica_reports_nothing_until_it_becomes_the_lead(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("fan", lead=False)
        stream.start("s:1")
        first = await stream.next("step_run")
        assert first.attempt.key.index == 1
        stream.send(resume=worker_pb2.Resume(run_id="r1", invocation=1, lead=True, entries=[entry("s:1", 1)]))
        found = await stream.next("steps_found")
        assert [step.key.index for step in found.steps] == [0, 2]


async def test_a_message_for_an_unknown_invocation_asks_for_the_journal(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.send(resume=worker_pb2.Resume(run_id="r9", invocation=3, lead=True))
        need = await stream.next("need_journal")
        assert (need.run_id, need.invocation) == ("r9", 3)
        stream.start("s", run_id="r9", invocation=3)
        assert (await stream.next("need_journal")).run_id == "r9"


async def test_a_journal_in_chunks_is_replayed_when_it_is_complete(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("fan", journal=[entry("s:2", 1)], journal_length=3)
        stream.send(journal_chunk=worker_pb2.JournalChunk(run_id="r1", invocation=1, entries=[entry("s", 2)]))
        stream.send(journal_chunk=worker_pb2.JournalChunk(run_id="r1", invocation=1, entries=[entry("s:1", 3)]))
        assert (await stream.next("run_finished")).output.data == b"3"


async def test_an_attempt_that_comes_before_its_body_has_moved_waits_for_it(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("sync", lead=False)
        stream.start("b")
        assert (await stream.next("step_run")).output.data == b"1"


async def test_a_step_that_the_body_has_not_found_is_a_divergence(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("fan", lead=False)
        stream.start("unheard-of")
        failed = await stream.next("run_failed")
        assert failed.failure.type == "NonDeterminismError"
        assert not failed.failure.retryable
        assert "awaits the closure step 's' at test_worker.py:" in failed.failure.message
        assert failed.not_found.id == "unheard-of"


async def test_attempts_for_a_replica_whose_body_has_raised_are_given_back(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("raises", lead=False)
        stream.start("a", "b")
        failed = await stream.next("run_failed")
        assert (failed.failure.type, failed.failure.retryable) == ("LookupError", True)
        assert not failed.HasField("not_found")
        returned = [each for _ in range(2) for each in (await stream.next("need_journal")).returned_attempts]
        assert {each.key.id for each in returned} == {"a", "b"}


async def test_a_result_is_sent_again_after_a_reset_until_it_is_recorded(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("fan")
        stream.start("s", "s:1")
        first = await stream.next("step_run")
        second = await stream.next("step_run")
        stream.record(first.attempt)
        await asyncio.sleep(0.1)
        stream.reset()
        again = await executor.stream()
        hello = await again.hello(resumed=True)
        assert hello.resume_session == "s-1"
        assert list(hello.attempts_in_hand) == [second.attempt]
        assert (await again.next("step_run")).attempt == second.attempt
        again.record(second.attempt)
        await asyncio.sleep(0.1)
        again.reset()
        third = await executor.stream()
        assert list((await third.hello()).attempts_in_hand) == []


async def test_attempts_that_the_executor_no_longer_wants_are_stopped(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("kinds")
        stream.start("forever")
        await until(lambda: "forever begun" in seen)
        stream.reset()
        again = await executor.stream()
        await again.hello(unwanted_attempts=[attempt("forever", 100)])
        await until(lambda: "cancelled" in seen)


async def test_cancel_reaches_async_and_sync_code_and_nothing_is_reported(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("kinds")
        stream.start("forever", "sync", "quick")
        await stream.next("step_run")
        await until(lambda: {"begun", "forever begun"} <= seen.keys())
        for key, fence in (("forever", 100), ("sync", 101)):
            stream.send(cancel=worker_pb2.Cancel(attempt=attempt(key, fence), reason="enough"))
        await until(lambda: len(seen) == 4)
        assert seen == {"begun": True, "forever begun": True, "cancelled": True, "sync cancelled": True}
        stream.start("quick", first_fence=200)
        assert (await stream.next("step_run")).attempt.fence == 200, "what was cancelled is not reported"


async def test_cancelling_a_run_drops_its_body_and_attempts(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("kinds")
        stream.start("forever")
        await until(lambda: "forever begun" in seen)
        stream.send(cancel=worker_pb2.Cancel(run_id="r1", reason="enough"))
        await until(lambda: "cancelled" in seen)
        stream.start("quick")
        assert (await stream.next("need_journal")).run_id == "r1"


@pytest.mark.parametrize(("key", "kind"), [("large", "OutputTooLargeError"), ("odd", "EncodingError")])
async def test_an_output_that_can_not_be_sent_fails_the_step_for_good(
    executor: ScriptedExecutor, key: str, kind: str
) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello(limits=worker_pb2.Limits(max_output_bytes=4 << 20, max_frame_bytes=1 << 20))
        stream.invoke("kinds")
        stream.start(key)
        failed = await stream.next("step_failed")
        assert (failed.failure.type, failed.failure.retryable) == (kind, False)


async def test_a_large_output_travels_in_fragments(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello(limits=worker_pb2.Limits(max_frame_bytes=1 << 20))
        stream.invoke("kinds")
        stream.start("big")
        run = await stream.next("step_run")
        assert len(run.output.data) == (3 << 20) + 2
        assert stream.frames > 3


async def test_code_that_asks_for_the_end_of_the_process_only_fails_its_step(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("kinds")
        stream.start("exit")
        failed = await stream.next("step_failed")
        assert (failed.failure.type, failed.failure.message, failed.failure.retryable) == ("SystemExit", "3", True)
        stream.start("quick", first_fence=200)
        await stream.next("step_run")


async def test_a_task_runs_without_an_invocation_and_an_unknown_one_is_named(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        steps = worker_pb2.RunSteps()
        for fence, name in ((1, "shout"), (2, "whisper")):
            start = steps.attempts.add(number=1, attempt=attempt(name, fence))
            start.task.name = name
            start.task.input.CopyFrom(value_pb2.Payload(data=b'"hey"', encoding="json"))
        stream.send(run_steps=steps)
        assert "whisper" in (await stream.next("step_failed")).failure.message
        assert (await stream.next("step_run")).output.data == b'"HEY"'


async def test_heartbeats_go_on_and_show_the_stack_while_step_code_blocks_the_loop(executor: ScriptedExecutor) -> None:
    worker = threading.Thread(target=run_in_thread, args=(executor.address,), daemon=True)
    worker.start()
    stream = await executor.stream()
    await stream.hello(heartbeat_interval=Duration(nanos=300_000_000))
    stream.invoke("kinds")
    stream.start("block")
    begun = time.monotonic()
    while not (beat := await stream.next("heartbeat")).blocking_stack:
        assert time.monotonic() - begun < 2.4
    assert "in block" in beat.blocking_stack
    assert beat.loop_lag.seconds >= 1
    assert (await stream.next("step_run")).output.data == b"3"
    stream.send(recorded=worker_pb2.Recorded(attempts=[attempt("block", 100)]))
    stop.set()
    await asyncio.to_thread(worker.join, 10)
    assert not worker.is_alive()


stop = threading.Event()


def run_in_thread(address: str) -> None:
    """Run a worker on a loop of its own, which may be blocked."""

    async def run() -> None:
        worker = stepwire.Worker(app, address, drain_seconds=0.2)
        task = asyncio.create_task(worker.run())
        while not stop.is_set():  # noqa: ASYNC110 - the event is another thread's
            await asyncio.sleep(0.05)
        worker.drain()
        await task

    stop.clear()
    asyncio.run(run())


async def test_a_drain_finishes_what_is_in_hand_and_waits_for_its_record(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, drain_seconds=10) as (worker, task):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("lone", attempt=2)
        stream.start("only")
        await asyncio.sleep(0.05)
        worker.drain()
        assert list((await stream.next("draining")).returned_attempts) == []
        run = await stream.next("step_run")
        assert not task.done()
        stream.record(run.attempt)
        await asyncio.wait_for(asyncio.shield(task), 5)
        assert stream.ended.wait(5)
        assert stream.clean


async def test_an_executor_that_welcomes_a_draining_worker_is_told(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, drain_seconds=10) as (worker, task):
        stream = await executor.stream()
        worker.drain()  # its stream is open, and it knows of no Welcome
        await stream.hello()
        await stream.next("draining")
        await asyncio.wait_for(asyncio.shield(task), 10)
        assert stream.clean


async def test_a_worker_that_drains_without_an_executor_ends_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    worker = stepwire.Worker(app, address, drain_seconds=10)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.3)
    worker.drain()
    await asyncio.wait_for(task, 5)


async def test_a_lone_step_whose_stream_is_lost_comes_back_with_its_plan(executor: ScriptedExecutor) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("lone", eager_fence=50, attempt=2)
        found = await stream.next("steps_found")
        stream.reset()
        stream = await executor.stream()
        hello = await stream.hello(resumed=True)
        assert [each.fence for each in hello.attempts_in_hand] == [50]
        assert list(hello.eager_plans) == [found]
        run = await stream.next("step_run")
        assert run.attempt.fence == 50
        stream.record(run.attempt)


async def test_a_drain_goes_on_after_a_lost_stream_and_says_so(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, drain_seconds=10) as (worker, task):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("lone", attempt=2)
        await stream.next("steps_found")
        stream.start("only")
        await until(lambda: worker._outbox.in_hand == 1)
        worker.drain()
        assert not (await stream.next("draining")).done
        stream.reset()
        stream = await executor.stream()
        hello = await stream.hello()
        assert (hello.draining, [each.fence for each in hello.attempts_in_hand]) == (True, [100])
        assert not (await stream.next("draining")).done
        run = await stream.next("step_run")
        stream.record(run.attempt)
        assert (await stream.next("draining")).done
        await asyncio.wait_for(task, 10)


async def test_a_drain_gives_back_what_does_not_end_in_time(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, drain_seconds=0.2) as (worker, task):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("kinds")
        stream.start("forever")
        await until(lambda: "forever begun" in seen)
        worker.drain()
        await stream.next("draining")
        last = await stream.next("draining")
        assert (list(last.returned_attempts), last.done) == ([attempt("forever", 100)], True)
        await asyncio.wait_for(asyncio.shield(task), 5)


async def test_a_drain_without_a_connection_ends_at_once(executor: ScriptedExecutor) -> None:
    async with serving(app, executor) as (worker, task):
        await executor.stream()
        worker.drain()
        await asyncio.wait_for(asyncio.shield(task), 5)


async def test_a_refusal_ends_the_worker_with_the_executors_words(executor: ScriptedExecutor) -> None:
    async with serving(app, executor) as (_, task):
        stream = await executor.stream()
        await stream.next("hello")
        stream.end(grpc.StatusCode.FAILED_PRECONDITION, "no common protocol")
        with pytest.raises(ExecutorError, match="no common protocol"):
            await asyncio.wait_for(asyncio.shield(task), 5)


async def test_the_least_recently_used_idle_body_is_evicted(executor: ScriptedExecutor) -> None:
    async with serving(app, executor, max_invocations=2):
        stream = await executor.stream()
        await stream.hello()
        for number in (1, 2, 3):
            stream.invoke("fan", run_id=f"r{number}", fence=number)
        evicted = await stream.next("evicted")
        assert (evicted.run_id, evicted.invocation) == ("r1", 1)


async def test_a_body_gives_up_steps_before_it_says_that_it_has_run_dry(executor: ScriptedExecutor) -> None:
    local = stepwire.App("app")

    @local.function("cancels")
    async def cancels(ctx: stepwire.Context, step: stepwire.Step) -> None:
        task = asyncio.create_task(step.sleep("long", 100))
        await step.run("first", quick)
        task.cancel()
        await step.run("second", quick)

    async with serving(local, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke("cancels")
        assert len((await stream.next("steps_found")).steps) == 2
        stream.send(resume=worker_pb2.Resume(run_id="r1", invocation=1, lead=True, entries=[entry("first", 1)]))
        kinds_ = []
        while "steps_found" not in kinds_:
            _, message = await asyncio.to_thread(stream.messages.get, True, 10)
            kinds_.append(message.WhichOneof("kind"))
        assert [kind for kind in kinds_ if kind != "heartbeat"] == ["step_cancelled", "steps_found"]


async def until(reached: object) -> None:
    assert callable(reached)
    while not reached():  # noqa: ASYNC110 - what is waited for announces itself to nobody
        await asyncio.sleep(0.01)


class Refusing(Threads):
    """Threads that can't run the first call, for a reason that nobody has foreseen."""

    def run(self, call: Callable[[], None]) -> None:
        if not seen.setdefault(self._name, False):
            seen[self._name] = True
            raise ValueError("nobody has foreseen this")
        super().run(call)


async def test_what_can_not_be_begun_fails_and_the_rest_of_its_frame_goes_on(executor: ScriptedExecutor) -> None:
    worker = stepwire.Worker(app, executor.address, drain_seconds=0)
    worker._make_threads = Refusing  # type: ignore[method-assign, assignment]
    serving = asyncio.create_task(worker.run())
    stream = await executor.stream()
    await stream.hello()
    shouts = [
        worker_pb2.AttemptStart(
            attempt=attempt(f"shout:{number}", 100 + number),
            number=1,
            task=worker_pb2.TaskStart(name="shout", input=value_pb2.Payload(data=b'"a"', encoding="json")),
        )
        for number in range(3)
    ]
    stream.send(run_steps=worker_pb2.RunSteps(attempts=shouts))
    failed = await stream.next("step_failed")
    assert (failed.attempt.fence, failed.failure.type, failed.failure.retryable) == (100, "ValueError", True)
    assert {(await stream.next("step_run")).attempt.fence for _ in range(2)} == {101, 102}
    stream.invoke("sync", fence=5)
    failed = await stream.next("run_failed")
    assert (failed.invocation, failed.failure.message) == (5, "nobody has foreseen this")
    assert failed.failure.retryable
    stream.invoke("sync", fence=6)
    assert len((await stream.next("steps_found")).steps) == 2
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def slow_then_done() -> str:
    seen["begun"] = True
    while not go_on.is_set():  # noqa: ASYNC110 - the test may be in another loop
        await asyncio.sleep(0.01)
    return "done"


cancellable = stepwire.App("app")
go_on = threading.Event()
cancellable.task("slow")(slow_then_done)


async def embedded(executor: ScriptedExecutor, drain_seconds: float = 20) -> tuple[Stream, asyncio.Task[None]]:
    """A worker in a program of somebody's, with an attempt at the task "slow" in hand."""
    go_on.clear()
    task = asyncio.create_task(stepwire.Worker(cancellable, executor.address, drain_seconds=drain_seconds).run())
    stream = await executor.stream()
    await stream.hello()
    start = worker_pb2.AttemptStart(attempt=attempt("slow", 100), number=1, task=worker_pb2.TaskStart(name="slow"))
    stream.send(run_steps=worker_pb2.RunSteps(attempts=[start]))
    while "begun" not in seen:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return stream, task


async def test_a_cancelled_worker_finishes_what_is_in_hand_and_is_cancelled_then(executor: ScriptedExecutor) -> None:
    stream, task = await embedded(executor)
    task.cancel()
    assert not (await stream.next("draining")).returned_attempts
    go_on.set()
    assert (await stream.next("step_run")).output.data == b'"done"'
    assert not task.done()
    stream.record(attempt("slow", 100))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


async def test_a_worker_that_is_cancelled_twice_gives_back_what_is_in_hand(executor: ScriptedExecutor) -> None:
    stream, task = await embedded(executor)
    task.cancel()
    await stream.next("draining")
    task.cancel()
    assert [each.fence for each in (await stream.next("draining")).returned_attempts] == [100]
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    go_on.set()


async def test_a_cancelled_worker_gives_back_what_takes_longer_than_a_drain_may(executor: ScriptedExecutor) -> None:
    stream, task = await embedded(executor, drain_seconds=0.1)
    task.cancel()
    await stream.next("draining")
    assert [each.fence for each in (await stream.next("draining")).returned_attempts] == [100]
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    go_on.set()


async def test_attempts_that_end_with_their_loop_are_given_back_and_not_failed(executor: ScriptedExecutor) -> None:
    found: list[Stream] = []

    def program() -> None:
        async def main() -> None:
            stream, _ = await embedded(executor)
            found.append(stream)

        asyncio.run(main())  # its end cancels all tasks: the worker's and the step's

    await asyncio.wait_for(asyncio.to_thread(program), 30)
    assert not (await found[0].next("draining")).returned_attempts
    returned = await found[0].next("draining")
    assert [each.fence for each in returned.returned_attempts] == [100]


async def test_a_step_that_cancels_its_own_task_fails(executor: ScriptedExecutor) -> None:
    own = stepwire.App("app")

    @own.task("slow")
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with serving(own, executor):
        stream = await executor.stream()
        await stream.hello()
        start = worker_pb2.AttemptStart(attempt=attempt("slow", 100), number=1, task=worker_pb2.TaskStart(name="slow"))
        stream.send(run_steps=worker_pb2.RunSteps(attempts=[start]))
        assert (await stream.next("step_failed")).failure.type == "CancelledError"
