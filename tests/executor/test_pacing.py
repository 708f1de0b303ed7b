"""Who takes much of the loop rests while somebody else wants something, and never otherwise."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from stepwire.testing import ExecutorProcess
from stepwire_core.inputs import Tick
from stepwire_executor.pacing import (
    ACTIVE_SECONDS,
    BURST_SECONDS,
    LONGEST_REST_SECONDS,
    MOST_INPUTS,
    REST,
    TURN_SECONDS,
    Pacing,
    Turn,
)
from stepwire_executor.store.memory import MemoryStore
from stepwire_proto.v1 import worker_pb2
from tests.executor import tokens
from tests.executor.peer import Peer
from tests.executor.test_engine import running


def share_of(pacing: Pacing, name: str, turns: int, *, beside: str = "") -> float:
    """Give the share of the loop that somebody gets who wants all of it; another one wants something now and then."""
    now, had = 100.0, 0.0
    for _ in range(turns):
        if beside:
            pacing.wants(beside, now)
        now += TURN_SECONDS
        had += TURN_SECONDS
        pacing.wants(name, now)
        pacing.took(pacing.account(name), TURN_SECONDS, now)
        now += pacing.rest(pacing.account(name), now)
    return had / (now - 100.0)


def test_who_is_alone_never_rests() -> None:
    assert share_of(Pacing(), "one", 100) == pytest.approx(1.0)


def test_beside_another_one_it_has_a_third() -> None:
    assert share_of(Pacing(), "one", 1_000, beside="other") == pytest.approx(1 / (1 + REST), rel=0.05)


def test_those_of_one_token_share_its_rests() -> None:
    pacing = Pacing()
    pacing.wants("other", 100.0)
    for _ in range(10):
        pacing.took(pacing.account("one"), TURN_SECONDS, 100.0)
    assert pacing.rest(pacing.account("one"), 100.0) == pytest.approx(10 * TURN_SECONDS * (1 + REST) - BURST_SECONDS)
    assert pacing.rest(pacing.account("other"), 100.0) == 0.0


def test_a_little_after_a_while_costs_no_rest() -> None:
    pacing = Pacing()
    for now in (100.0, 100.1, 100.2):
        pacing.wants("other", now)
        pacing.took(pacing.account("one"), BURST_SECONDS / (1 + REST), now)
        assert pacing.rest(pacing.account("one"), now) == pytest.approx(0.0)


def test_the_rest_ends_when_nobody_else_wants_anything_any_more() -> None:
    pacing = Pacing()
    one = pacing.account("one")
    pacing.wants("other", 100.0)
    pacing.wants("one", 100.0)
    pacing.took(one, 10.0, 100.0)
    assert pacing.rest(one, 100.0) == pytest.approx(LONGEST_REST_SECONDS), "or its workers would be taken for lost"
    assert pacing.rest(one, 100.0 + 1.1 * ACTIVE_SECONDS) == 0.0
    pacing.wants("other", 101.0)
    assert pacing.rest(one, 101.0) == 0.0, "it has had it"


def test_who_was_kept_waiting_may_go_on_before_it_counts_as_silent() -> None:
    """A decision of another one's takes longer than anybody may be silent."""
    pacing = Pacing()
    one = pacing.account("one")
    pacing.wants("other", 100.0 + ACTIVE_SECONDS)
    ends = 100.0 + 5 * ACTIVE_SECONDS
    pacing.took(one, 5 * ACTIVE_SECONDS, ends)
    assert pacing.rest(one, ends + 0.9 * ACTIVE_SECONDS) > 0.0
    assert pacing.rest(one, ends + 1.1 * ACTIVE_SECONDS) == 0.0
    pacing.took(one, ACTIVE_SECONDS, ends + 9 * ACTIVE_SECONDS)
    assert pacing.rest(one, ends + 9 * ACTIVE_SECONDS) == 0.0, "nobody has come meanwhile"


async def test_a_worker_that_only_says_that_it_is_there_wants_nothing() -> None:
    pacing = Pacing()
    here, busy = pacing.turn("here"), pacing.turn("busy")
    here.begin(1)
    here.end(is_work=False)
    assert not busy.has_others
    here.begin(1)
    here.end()
    assert busy.has_others
    assert not here.has_others


async def test_the_time_between_two_turns_is_no_turn() -> None:
    pacing = Pacing()
    pacing.wants("other", asyncio.get_running_loop().time())
    turn = pacing.turn("one")
    turn.begin(1)
    turn.end()
    rested_at = turn.account.rested_at
    await asyncio.sleep(2 * BURST_SECONDS)
    turn.end()
    assert turn.account.rested_at == rested_at


def submit(turn: Turn, decision: int, inputs: int) -> bool:
    """Have some come after so many decisions; says whether they are enough for the next one."""
    turn.begin(decision)
    turn.left -= inputs
    is_over = turn.is_over
    turn.end()
    return is_over


async def test_those_of_one_token_have_so_many_inputs_in_a_decision() -> None:
    pacing = Pacing()
    first, second, other = pacing.turn("one"), pacing.turn("one"), pacing.turn("other")
    assert not submit(first, 1, MOST_INPUTS - 1)
    assert submit(second, 1, 1)
    assert submit(first, 1, 1)
    assert not submit(other, 1, 1)
    assert not submit(first, 2, 1)


async def test_without_tokens_each_stream_is_for_itself() -> None:
    pacing = Pacing()
    first, second = pacing.turn(""), pacing.turn("")
    assert submit(first, 1, MOST_INPUTS)
    assert not submit(second, 1, 1)
    assert not first.has_others
    assert first.rest == 0.0


async def test_whoever_waits_for_the_next_decision_goes_on_as_it_begins_or_the_engine_ends() -> None:
    async with running(MemoryStore()) as (engine, _):
        before = engine.decisions
        engine.submit(Tick())
        await asyncio.wait_for(engine.decides(), 5)
        assert engine.decisions == before + 1
        await asyncio.wait_for(engine.decides(), 5)  # nothing was submitted
        engine.submit(Tick())
        waiting = asyncio.ensure_future(engine.decides())
        await asyncio.sleep(0)
        await engine.stop()
        await asyncio.wait_for(waiting, 5)


@pytest.mark.timeout(120)
def test_a_quiet_worker_is_heard_though_others_of_its_token_flood_beside_another_one(tmp_path: Path) -> None:
    flood = worker_pb2.WorkerFrame()
    for _ in range(20_000):
        flood.messages.add(fragment=worker_pb2.Fragment(id=1, data=b"x"))
    data, over = flood.SerializeToString(), threading.Event()

    def keep_on(peer: Peer, frame: bytes, rest: float) -> None:
        while not over.wait(rest):
            if peer.unsent < 3:
                peer.frame(frame)

    with (
        ExecutorProcess(settings={"tokens_file": tokens.write(tmp_path / "tokens.toml")}) as executor,
        ExitStack() as end,
    ):

        def connect(name: str, app: str) -> Peer:
            peer = end.enter_context(Peer(executor.address, tokens.secret(name)))
            peer.welcome(instance_id=f"{name}-{id(peer)}", app=app)
            return peer

        floods = [connect("shop-workers", "shop") for _ in range(5)]
        quiet, other = connect("shop-workers", "shop"), connect("bank-workers", "bank")
        small = worker_pb2.WorkerFrame(messages=[worker_pb2.WorkerMessage(fragment=worker_pb2.Fragment(id=1))])
        with ThreadPoolExecutor(6) as threads:
            for peer in floods:
                threads.submit(keep_on, peer, data, 0.001)
            threads.submit(keep_on, other, small.SerializeToString(), 0.01)
            try:
                for _ in range(20):
                    quiet.send(heartbeat=worker_pb2.Heartbeat())
                    quiet.next("recorded", 10)
            finally:
                over.set()
        assert not any(peer.ended.is_set() for peer in (quiet, other))
