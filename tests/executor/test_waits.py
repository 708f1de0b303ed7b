"""WaitRuns over a real stream: each run is answered once, when it has ended, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from stepwire.testing import ExecutorProcess
from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Run, StepKey, StepKind
from stepwire_executor.services.waits import Waits, size_of
from stepwire_executor.store.memory import MemoryStore
from stepwire_proto.v1 import event_pb2, event_pb2_grpc, opcode_pb2, run_pb2, run_pb2_grpc, value_pb2, worker_pb2
from tests.executor.peer import Peer
from tests.executor.test_engine import found, hello, running, send, take

NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
MEGABYTE = 1 << 20
F = worker_pb2.FunctionOptions(id="f", triggers=[worker_pb2.Trigger(event_name="go")])


class Asker:
    """One stream of WaitRuns."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._out: queue.Queue[run_pb2.WaitRunsRequest | None] = queue.Queue()
        self._in: queue.Queue[run_pb2.WaitRunsResponse] = queue.Queue()
        self._ended = threading.Event()
        self.call: Any = run_pb2_grpc.RunServiceStub(channel).WaitRuns(iter(self._out.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for response in self.call:
                self._in.put(response)
        except grpc.RpcError:
            pass
        self._ended.set()

    def ask(self, *run_ids: str, forget: tuple[str, ...] = ()) -> None:
        self._out.put(run_pb2.WaitRunsRequest(run_ids=run_ids, forgotten_run_ids=forget))

    def message(self, timeout: float = 10.0) -> list[run_pb2.RunEnd]:
        return list(self._in.get(timeout=timeout).ends)

    def ends(self, count: int) -> dict[str, run_pb2.RunEnd]:
        """Give so many answers, by run."""
        found: list[run_pb2.RunEnd] = []
        while len(found) < count:
            found += self.message()
        assert len(found) == count
        return {end.run_id: end for end in found}

    def nothing_more(self) -> None:
        """Half-close: the stream ends, with OK and without another answer."""
        self._out.put(None)
        assert self.status()[0] is grpc.StatusCode.OK
        assert self._in.empty()

    def status(self) -> tuple[grpc.StatusCode, str]:
        assert self._ended.wait(20), "the stream is still open"
        return self.call.code(), self.call.details()


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process:
        yield process


@pytest.fixture(scope="module")
def channel(executor: ExecutorProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(executor.address, [("grpc.max_receive_message_length", 16 * MEGABYTE)]) as channel:
        yield channel


@pytest.fixture
def asker(channel: grpc.Channel) -> Iterator[Asker]:
    asker = Asker(channel)
    yield asker
    asker.call.cancel()


@pytest.fixture
def worker(executor: ExecutorProcess) -> Iterator[Peer]:
    with Peer(executor.address) as peer:
        peer.welcome(functions=[F], slots=100)
        yield peer


def begin(channel: grpc.Channel, worker: Peer, count: int) -> dict[str, worker_pb2.Invoke]:
    """Start runs; gives their invocations."""
    data = value_pb2.Payload(data=b"{}", encoding="json")
    events = [event_pb2.Event(name="go", data=data) for _ in range(count)]
    event_pb2_grpc.EventServiceStub(channel).SendEvents(event_pb2.SendEventsRequest(events=events))
    return {invoke.run_id: invoke for invoke in (worker.next("invoke") for _ in range(count))}


def finish(worker: Peer, *invokes: worker_pb2.Invoke, output: bytes = b"1") -> None:
    for each in invokes:
        payload = value_pb2.Payload(data=output, encoding="json")
        worker.send(run_finished=opcode_pb2.RunFinished(run_id=each.run_id, invocation=each.invocation, output=payload))


def test_runs_are_answered_as_they_end_and_the_stream_ends_with_the_last(
    channel: grpc.Channel, worker: Peer, asker: Asker
) -> None:
    runs = begin(channel, worker, 3)
    first, second, third = runs.values()
    asker.ask(first.run_id, second.run_id)
    finish(worker, second)
    told = asker.ends(1)[second.run_id].run
    assert (told.state, told.output.data) == (run_pb2.RUN_STATE_SUCCEEDED, b"1")
    asker.ask(third.run_id)
    finish(worker, first, third)
    assert asker.ends(2).keys() == {first.run_id, third.run_id}
    asker.nothing_more()


def test_a_run_that_has_ended_before_is_answered_at_once(channel: grpc.Channel, worker: Peer, asker: Asker) -> None:
    runs = begin(channel, worker, 2)
    finish(worker, *runs.values())
    asker.ask(*runs)
    assert asker.ends(2).keys() == runs.keys()
    asker.ask(*runs)
    assert asker.ends(2).keys() == runs.keys(), "it can be asked for again"
    asker.nothing_more()


def test_a_run_that_does_not_exist_does_not_disturb_the_others(
    channel: grpc.Channel, worker: Peer, asker: Asker
) -> None:
    (invoke,) = begin(channel, worker, 1).values()
    asker.ask(invoke.run_id, "nope")
    end = asker.ends(1)["nope"]
    assert (end.error.code, end.error.message) == (NOT_FOUND, "run 'nope' does not exist")
    finish(worker, invoke)
    assert asker.ends(1)[invoke.run_id].run.state == run_pb2.RUN_STATE_SUCCEEDED
    asker.nothing_more()


def test_a_run_that_is_asked_for_twice_is_answered_once(channel: grpc.Channel, worker: Peer, asker: Asker) -> None:
    (invoke,) = begin(channel, worker, 1).values()
    asker.ask(invoke.run_id, invoke.run_id)
    asker.ask(invoke.run_id)
    asker.ask("nope")
    asker.ends(1)  # so the others have arrived
    finish(worker, invoke)
    asker.ends(1)
    asker.nothing_more()


def test_a_run_that_is_forgotten_is_not_answered(channel: grpc.Channel, worker: Peer, asker: Asker) -> None:
    kept, forgotten = begin(channel, worker, 2).values()
    asker.ask(kept.run_id, forgotten.run_id)
    asker.ask(forget=(forgotten.run_id, "never asked for"))
    asker.ask("nope")
    asker.ends(1)
    finish(worker, forgotten)
    finish(worker, kept)
    assert asker.ends(1).keys() == {kept.run_id}
    asker.nothing_more()


def test_a_run_that_is_cancelled_or_fails_is_answered(channel: grpc.Channel, worker: Peer, asker: Asker) -> None:
    cancelled, failed = begin(channel, worker, 2).values()
    asker.ask(cancelled.run_id, failed.run_id)
    run_pb2_grpc.RunServiceStub(channel).CancelRun(run_pb2.CancelRunRequest(run_id=cancelled.run_id, reason="enough"))
    failure = value_pb2.Failure(type="ValueError", message="bad")
    worker.send(run_failed=opcode_pb2.RunFailed(run_id=failed.run_id, invocation=failed.invocation, failure=failure))
    ends = asker.ends(2)
    assert ends[cancelled.run_id].run.cancel_reason == "enough"
    assert ends[failed.run_id].run.failure.message == "bad"
    asker.nothing_more()


def test_large_outputs_go_in_several_messages(channel: grpc.Channel, worker: Peer, asker: Asker) -> None:
    runs = begin(channel, worker, 5)
    output = b'"' + b"x" * 700_000 + b'"'
    finish(worker, *runs.values(), output=output)
    asker.ask(*runs)
    messages = []
    while sum(map(len, messages)) < 5:
        messages.append(asker.message())
    assert max(sum(end.ByteSize() for end in message) for message in messages) < 2 * MEGABYTE
    assert {end.run_id for message in messages for end in message} == runs.keys()
    assert all(end.run.output.data == output for message in messages for end in message)


def test_an_executor_that_is_killed_ends_the_stream_with_unavailable() -> None:
    with (
        ExecutorProcess() as executor,
        grpc.insecure_channel(executor.address) as channel,
        Peer(executor.address) as worker,
    ):
        worker.welcome(functions=[F])
        (invoke,) = begin(channel, worker, 1).values()
        asker = Asker(channel)
        asker.ask(invoke.run_id, "nope")
        asker.ends(1)
        executor.kill()
        assert asker.status()[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_run_that_is_asked_for_and_forgotten_again_and_again_takes_no_memory() -> None:
    """The store does not answer meanwhile, so that nothing is looked up."""

    async def find(_: str) -> Run:
        return await asyncio.Future()

    async def show(_: Run) -> run_pb2.Run:
        raise AssertionError

    async def requests() -> AsyncIterator[run_pb2.WaitRunsRequest]:
        for number in range(100):
            yield run_pb2.WaitRunsRequest(run_ids=["first", f"{number}"], forgotten_run_ids=[f"{number - 1}"])
        has_asked.set()
        await asyncio.Future()

    has_asked = asyncio.Event()
    async with running(MemoryStore()) as (engine, _):
        waits = Waits(engine, find, lambda _: None, show)
        serving = asyncio.ensure_future(waits.serve(requests(), lambda _: None))
        await has_asked.wait()
        assert engine.watches == 2
        assert len(waits._unknown) <= 2
        serving.cancel()


async def test_a_run_that_has_ended_weighs_what_it_holds_in_memory() -> None:
    async with running(MemoryStore()) as (engine, peers):
        engine.submit(hello())
        await send(engine, data=f'"{"e" * 1_000}"')
        invoke = await take(peers, c.Invoke)
        run = invoke.run
        await found(engine, invoke, *(i.StepPlanned(StepKey(f"s{n}", 0), StepKind.CLOSURE) for n in range(10)))
        for _ in range(10):
            start = await take(peers, c.StartAttempt)
            result = i.StepRun(invoke.session_id, run.id, start.key, start.fence, b"r" * 500, 500, 0.0)
            engine.submit(result)
        engine.submit(i.RunFinished(invoke.session_id, run.id, invoke.invocation, b"o" * 2_000, 2_000))
        async for ended in engine.changes(run.id):
            if ended is not None:
                assert 1_000 + 10 * 500 + 2_000 < size_of(ended) < 20_000
                return
