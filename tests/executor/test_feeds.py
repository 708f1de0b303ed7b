"""Watches of runs: one look at a run serves all who watch it, whoever reads slowly, and however many there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import grpc
import pytest

from stepwire.testing import ExecutorProcess
from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Run, StepKey, StepKind
from stepwire_executor.services import feeds
from stepwire_executor.services.errors import StatusError
from stepwire_executor.services.feeds import MOST_WATCHERS_A_RUN, Feeds, Watcher
from stepwire_executor.services.pages import PAGE_BYTES
from stepwire_executor.services.runs import RunService
from stepwire_executor.store.memory import MemoryStore
from stepwire_proto.v1 import event_pb2, event_pb2_grpc, opcode_pb2, run_pb2, run_pb2_grpc, value_pb2, worker_pb2
from tests.executor.peer import Peer, refused, until
from tests.executor.test_engine import found, hello, running, send, take

F = worker_pb2.FunctionOptions(id="f", triggers=[worker_pb2.Trigger(event_name="go")])
ENDED = run_pb2.RUN_STATE_SUCCEEDED


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process:
        yield process


def fan_out(channel: grpc.Channel, worker: Peer, count: int, data: bytes = b"{}") -> worker_pb2.Invoke:
    """Start a run that has found so many steps."""
    event = event_pb2.Event(name="go", data=value_pb2.Payload(data=data, encoding="json"))
    event_pb2_grpc.EventServiceStub(channel).SendEvents(event_pb2.SendEventsRequest(events=[event]))
    invoke: worker_pb2.Invoke = worker.next("invoke")
    for at in range(0, count, 1_000):
        names = range(at, min(count, at + 1_000))
        steps = [
            opcode_pb2.StepPlanned(key=value_pb2.StepKey(id=f"s{n}"), closure=opcode_pb2.ClosureTarget()) for n in names
        ]
        found_ = opcode_pb2.StepsFound(run_id=invoke.run_id, invocation=invoke.invocation, steps=steps)
        found_.quiescent = at + 1_000 >= count
        worker.send(steps_found=found_)
    return invoke


def finish(worker: Peer, invoke: worker_pb2.Invoke, output: bytes = b"1") -> None:
    payload = value_pb2.Payload(data=output, encoding="json")
    report = opcode_pb2.RunFinished(run_id=invoke.run_id, invocation=invoke.invocation, output=payload)
    worker.send_in_fragments(run_finished=report)


def watch(channel: grpc.Channel, run_id: str) -> Any:
    return run_pb2_grpc.RunServiceStub(channel).WatchRun(run_pb2.WatchRunRequest(run_id=run_id))


def test_each_of_many_watchers_sees_all_steps_and_the_end(executor: ExecutorProcess, channel: grpc.Channel) -> None:
    with Peer(executor.address) as worker:
        worker.welcome(functions=[F], slots=100)
        invoke = fan_out(channel, worker, 3_000)
        seen: list[dict[int, run_pb2.Step]] = [{} for _ in range(20)]
        last: list[run_pb2.WatchRunResponse] = [run_pb2.WatchRunResponse() for _ in seen]

        def follow(number: int) -> None:
            for message in watch(channel, invoke.run_id):
                seen[number].update((step.number, step) for step in message.steps)
                last[number] = message

        threads = [threading.Thread(target=follow, args=(number,)) for number in range(len(seen))]
        for thread in threads:
            thread.start()
        left = 3_000
        while left:
            for start in worker.next("run_steps").attempts:
                output = value_pb2.Payload(data=b"1", encoding="json")
                worker.send(step_run=opcode_pb2.StepRun(attempt=start.attempt, output=output))
                left -= 1
        until(lambda: all(len(steps) == 3_000 for steps in seen))
        finish(worker, invoke)
        for thread in threads:
            thread.join()
    for steps, message in zip(seen, last, strict=True):
        assert sorted(steps) == list(range(1, 3_001))
        assert {step.state for step in steps.values()} == {run_pb2.STEP_STATE_SUCCEEDED}
        assert (message.run.state, message.run.output.data) == (ENDED, b"1")


def test_a_further_watcher_of_a_run_is_refused_by_a_limit_until_another_one_goes(
    executor: ExecutorProcess, channel: grpc.Channel
) -> None:
    with Peer(executor.address) as worker:
        worker.welcome(functions=[F])
        invoke, other = fan_out(channel, worker, 1), fan_out(channel, worker, 1)
        calls = [watch(channel, invoke.run_id) for _ in range(MOST_WATCHERS_A_RUN)]
        for call in calls:
            assert next(call).run.id == invoke.run_id
        code, message, _ = refused(lambda: next(watch(channel, invoke.run_id)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"{MOST_WATCHERS_A_RUN} watches are open" in message
        assert next(watch(channel, other.run_id)).run.id == other.run_id
        calls[0].cancel()

        def is_taken() -> bool:
            try:
                return bool(next(watch(channel, invoke.run_id)).run.id)
            except grpc.RpcError:
                return False

        until(is_taken)
        for call in calls:
            call.cancel()


def test_a_large_event_and_output_come_with_the_first_and_the_last_message_of_a_watch(
    executor: ExecutorProcess, channel: grpc.Channel
) -> None:
    data = b'"' + b"d" * 1_000_000 + b'"'
    with Peer(executor.address) as worker:
        worker.welcome(functions=[F])
        invoke = fan_out(channel, worker, 2, data)
        call = watch(channel, invoke.run_id)
        first = next(call)
        event = first.run.event
        assert (event.data.data, first.run.payloads_omitted) == (data, False)
        for start in [*worker.next("run_steps").attempts][:1]:
            output = value_pb2.Payload(data=b"1", encoding="json")
            worker.send(step_run=opcode_pb2.StepRun(attempt=start.attempt, output=output))
        second = next(call)
        assert (second.run.event.name, second.run.event.HasField("data")) == ("go", False)
        assert second.run.payloads_omitted
        late = watch(channel, invoke.run_id)
        first = next(late)
        assert (first.run.event, first.run.payloads_omitted) == (event, False), "who comes later has it first, too"
        assert first.run.step_counts == second.run.step_counts
        finish(worker, invoke, b'"' + b"o" * 2_900_000 + b'"')
        *_, last = call
        assert (last.run.state, last.run.payloads_omitted) == (ENDED, False)
        assert (last.run.event.data.data, len(last.run.output.data)) == (data, 2_900_002)


async def state_after(watcher: Watcher, states: dict[int, int]) -> run_pb2.WatchRunResponse:
    """Take the next message of a watcher."""
    message = await watcher.next()
    assert message is not None
    states.update((step.number, step.state) for step in message.steps)
    return message


async def test_a_watcher_that_reads_late_is_told_of_the_last_change_of_each_step_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(feeds, "STEPS_A_MESSAGE", 7)
    store = MemoryStore()
    async with running(store) as (engine, peers):
        engine.submit(hello(slots=1))
        await send(engine)
        invoke = await take(peers, c.Invoke)
        watched = Feeds(engine, store, RunService(engine, store)._show)
        with watched.watching(invoke.run.id) as quick, watched.watching(invoke.run.id) as slow:
            quick_states: dict[int, int] = {}
            slow_states: dict[int, int] = {}
            await state_after(slow, slow_states)
            steps = [i.StepPlanned(StepKey(f"s{n}", 0), StepKind.CLOSURE) for n in range(50)]
            await found(engine, invoke, *steps)
            for _ in steps:
                started = await take(peers, c.StartAttempt)
                number = invoke.run.steps[started.key].number
                engine.submit(i.StepRun(invoke.session_id, invoke.run.id, started.key, started.fence, b"", 1, 0.0))
                while quick_states.get(number) != run_pb2.STEP_STATE_SUCCEEDED:
                    await state_after(quick, quick_states)
            told = 0
            while len(slow_states) < len(steps):
                message = await state_after(slow, slow_states)
                assert len(message.steps) <= 7
                told += len(message.steps)
            assert told == len(steps)
            assert set(slow_states.values()) == {run_pb2.STEP_STATE_SUCCEEDED}
            assert len(quick.feed._places) <= 2 * len(steps) + 7, "what has changed again is forgotten"
            engine.submit(i.RunFinished(invoke.session_id, invoke.run.id, invoke.invocation, b"", 0))
            for watcher, states in ((quick, quick_states), (slow, slow_states)):
                while (await state_after(watcher, states)).run.state != ENDED:
                    pass
                assert await watcher.next() is None
        assert (len(watched), watched.kept_bytes) == (0, 0)


async def test_all_runs_together_have_a_limit_of_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_WATCHERS", 2)
    store = MemoryStore()
    async with running(store) as (engine, _):
        engine.submit(hello())
        runs = [(await send(engine, f"e{n}"))[0].run_ids[0] for n in range(3)]
        watched = Feeds(engine, store, RunService(engine, store)._show)
        with (
            watched.watching(runs[0]),
            watched.watching(runs[1]),
            pytest.raises(StatusError, match="2 watches of runs are open"),
            watched.watching(runs[2]),
        ):
            pass
        with watched.watching(runs[2]) as watcher:
            assert (await state_after(watcher, {})).run.id == runs[2]


async def test_a_token_that_has_less_than_its_share_of_watches_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_WATCHERS", 4)
    store = MemoryStore()
    async with running(store) as (engine, _):
        engine.submit(hello())
        run_id = (await send(engine))[0].run_ids[0]
        watched = Feeds(engine, store, RunService(engine, store)._show)
        with ExitStack() as opened:
            for _ in range(4):
                opened.enter_context(watched.watching(run_id, "greedy"))
            with pytest.raises(StatusError, match="4 watches of runs are open, of 4 that all may have, 4 with this"):
                opened.enter_context(watched.watching(run_id, "greedy"))
            for _ in range(2):
                opened.enter_context(watched.watching(run_id, "modest"))
            with pytest.raises(StatusError, match="2 with this token"):
                opened.enter_context(watched.watching(run_id, "modest"))
            for name in ("third", "fourth"):
                opened.enter_context(watched.watching(run_id, name))
            with pytest.raises(StatusError, match="8 watches of runs are open"):
                opened.enter_context(watched.watching(run_id, "fifth"))
        with watched.watching(run_id, "greedy") as watcher:
            assert (await state_after(watcher, {})).run.id == run_id
        assert not watched._watched


async def test_what_watched_runs_take_is_refused_to_the_tokens_that_have_more_than_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "MOST_KEPT_BYTES", 10_000)
    store = MemoryStore()
    async with running(store) as (engine, peers):
        engine.submit(hello())
        await send(engine)
        invoke = await take(peers, c.Invoke)
        await found(engine, invoke, *(i.StepPlanned(StepKey(f"s{n}", 0), StepKind.CLOSURE) for n in range(25)))
        await take(peers, c.StartAttempt)
        other = (await send(engine, "e2"))[0].run_ids[0]
        watched = Feeds(engine, store, RunService(engine, store)._show)
        with watched.watching(invoke.run.id, "greedy") as watcher:
            states: dict[int, int] = {}
            while len(states) < 25:
                await state_after(watcher, states)
            assert 10_000 < watched.kept_bytes < 20_000
            with (
                pytest.raises(StatusError, match=f"{watched.kept_bytes} for this token"),
                watched.watching(other, "greedy"),
            ):
                pass
            with watched.watching(other, "modest") as watcher:
                assert (await state_after(watcher, {})).run.id == other


async def test_a_large_event_is_not_written_with_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "GATHER_SECONDS", 0.0)
    store, seen = MemoryStore(), list[bool]()
    async with running(store) as (engine, peers):
        shown = RunService(engine, store)._show

        async def show(run: Run, *, whole: bool) -> run_pb2.Run:
            seen.append(whole)
            return await shown(run, whole=whole)

        engine.submit(hello(slots=1))
        await send(engine, data=f'"{"e" * feeds.LARGE_RUN}"')
        invoke = await take(peers, c.Invoke)
        with Feeds(engine, store, show).watching(invoke.run.id) as watcher:
            states: dict[int, int] = {}
            await state_after(watcher, states)
            await found(engine, invoke, *(i.StepPlanned(StepKey(f"s{n}", 0), StepKind.CLOSURE) for n in range(5)))
            for number in range(1, 6):
                start = await take(peers, c.StartAttempt)
                result = i.StepRun(invoke.session_id, invoke.run.id, start.key, start.fence, b"", 1, 0.0)
                engine.submit(result)
                while states.get(number) != run_pb2.STEP_STATE_SUCCEEDED:
                    assert not (await state_after(watcher, states)).run.event.HasField("data")
            engine.submit(i.RunFinished(invoke.session_id, invoke.run.id, invoke.invocation, b"", 0))
            while (await state_after(watcher, states)).run.state != ENDED:
                pass
        assert (seen[0], seen[-1], sum(seen)) == (True, True, 2)
        assert len(seen) > 4


def test_a_watch_of_a_run_from_the_store_has_pages_of_bounded_size(executor: ExecutorProcess) -> None:
    with Peer(executor.address) as worker, grpc.insecure_channel(executor.address) as channel:
        worker.welcome(functions=[F], slots=100)
        invoke = fan_out(channel, worker, 1_200)
        finish(worker, invoke)
        *_, last = watch(channel, invoke.run_id)
        assert last.run.state == ENDED
    executor.restart()
    with grpc.insecure_channel(executor.address) as channel:
        messages = list(
            run_pb2_grpc.RunServiceStub(channel).WatchRun(
                run_pb2.WatchRunRequest(run_id=invoke.run_id), wait_for_ready=True
            )
        )
    assert [step.number for message in messages for step in message.steps] == list(range(1, 1_201))
    assert all(len(message.steps) <= 500 and message.ByteSize() < 2 * PAGE_BYTES for message in messages)
    assert [message.run.state for message in messages] == [*[run_pb2.RUN_STATE_RUNNING] * (len(messages) - 1), ENDED]
    assert list(islice((message.run.HasField("ended_at") for message in messages), len(messages) - 1)) == [False] * 2
