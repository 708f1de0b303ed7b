"""What an executor has held once and holds no longer, it gives back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from benchmarks.taken import resident_bytes
from stepwire.client import Client
from stepwire.testing import ExecutorProcess
from stepwire_executor import memory as memories
from stepwire_executor.memory import FIRST_PAUSE, GROWTH, MUCH_WORK, QUIET_DECISIONS, Memory
from stepwire_executor.memory import resident_bytes as own_bytes
from stepwire_executor.store.memory import MemoryStore
from stepwire_proto.v1 import worker_pb2
from tests.executor.peer import Peer
from tests.executor.test_engine import running

STREAMS, PIECES, PIECE = 20, 8, 1_000_000
CACHE_BYTES = 32 << 20
FUNCTION = worker_pb2.FunctionOptions(id="f", triggers=[worker_pb2.Trigger(event_name="go")])


def test_memory_comes_back_when_those_have_gone_that_had_it() -> None:
    """Messages that are joined grow piece by piece, which leaves holes all over what the process has."""
    with ExecutorProcess() as executor:
        before = resident_bytes(executor.pid)
        with contextlib.ExitStack() as peers:
            each = [peers.enter_context(Peer(executor.address)) for _ in range(STREAMS)]
            for peer in each:
                peer.welcome(instance_id=f"i-{id(peer)}", app="app")
            for _ in range(PIECES):
                for peer in each:
                    peer.send(fragment=worker_pb2.Fragment(id=1, data=bytes(PIECE)))
            until = time.monotonic() + 60
            while (most := resident_bytes(executor.pid)) < before + STREAMS * PIECES * PIECE * 0.9:
                assert time.monotonic() < until, f"{most} bytes"
                time.sleep(0.1)
        until = time.monotonic() + 60
        while (after := resident_bytes(executor.pid)) > before + (most - before) * 0.25:
            assert time.monotonic() < until, f"{before} bytes before, {most} at most, {after} after"
            time.sleep(0.1)


async def test_what_sqlite_keeps_to_read_faster_is_given_back_when_there_is_little_to_decide(tmp_path: Path) -> None:
    runs, size = 8_000, 2_000
    with (
        ExecutorProcess(settings={"store": f"sqlite:///{tmp_path}/its.db"}) as executor,
        Peer(executor.address) as peer,
    ):
        peer.welcome(functions=[FUNCTION], slots=1, max_invocations=1)
        async with Client(executor.address) as client:
            before = resident_bytes(executor.pid)
            events = await client.send_many([("go", "x" * size)] * runs)
            most = resident_bytes(executor.pid)
            assert most > before + 2 * CACHE_BYTES, "the runs are in memory, their rows in pages"
            for at in range(0, runs, 500):
                await asyncio.gather(*(client.cancel(event.run_ids[0]) for event in events[at : at + 500]))
        until = time.monotonic() + 60
        while (after := resident_bytes(executor.pid)) > before + CACHE_BYTES:
            assert time.monotonic() < until, f"{before} bytes before, {most} at most, {after} after"
            await asyncio.sleep(0.1)


async def test_what_was_in_use_when_memory_was_given_back_last_is_given_back_once_it_is_free() -> None:
    store = MemoryStore()
    async with running(store) as (engine, _):
        memory = Memory(engine, store)
        await memory.give_back()
        kept = own_bytes()
        data = [bytearray(10_000) for _ in range(2 * kept // 10_000)]
        await memory.give_back()  # it has grown, and all of it is in use
        held = own_bytes()
        assert held > kept * 2.5
        data = data[::50]  # what stays keeps the C library from giving back the rest by itself
        for _ in range(FIRST_PAUSE):
            await memory.give_back()
        assert own_bytes() < kept + (held - kept) * 0.25
        assert data


async def test_looking_for_free_memory_in_vain_is_done_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    tries, rest, held, store = list[int](), 0, 100, MemoryStore()
    monkeypatch.setattr(memories, "resident_bytes", lambda: held)
    async with running(store) as (engine, _):
        memory = Memory(engine, store)
        monkeypatch.setattr(memory, "_trim", lambda _: tries.append(rest))
        held = 1_000
        while rest < 99:
            rest += 1
            await memory.give_back()
        assert tries == [1, 5, 13, 29, 61]
        held = 2_000
        while rest < 105:
            rest += 1
            await memory.give_back()
    assert tries[5:] == [100, 104]


async def test_rest_after_much_work_has_it_done_again_though_it_was_in_vain_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries, rest, held, store = list[int](), 0, 100, MemoryStore()
    monkeypatch.setattr(memories, "resident_bytes", lambda: held)
    async with running(store) as (engine, _):
        memory = Memory(engine, store)
        monkeypatch.setattr(memory, "_trim", lambda _: tries.append(rest))
        held = 1_000
        while rest < 200:
            rest += 1
            engine.decisions += MUCH_WORK
            await memory.give_back()
        assert len(tries) < 8, "there was always something to do"
        tries.clear()
        while rest < 220:
            rest += 1
            await memory.give_back()
        assert tries == [201, 205, 213]


async def test_garbage_that_refers_to_itself_is_collected_when_there_is_little_to_decide() -> None:
    class Circle:
        def __init__(self) -> None:
            self.itself, self.data = self, bytearray(10_000)

    store = MemoryStore()
    async with running(store) as (engine, _):
        memory = Memory(engine, store)
        await memory.give_back()
        kept = own_bytes()
        circles = [Circle() for _ in range(int(kept * GROWTH) // 10_000)]
        held = own_bytes()
        assert held > kept * 1.5
        del circles
        engine.decisions += QUIET_DECISIONS + 1
        await memory.give_back()
        engine.decisions += QUIET_DECISIONS
        await memory.give_back()
        assert own_bytes() < kept + (held - kept) * 0.25
