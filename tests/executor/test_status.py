"""What the executor observes of itself, and shows: GetStatus, and pieces of work that take long in the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from stepwire.testing import ExecutorProcess
from stepwire_executor import vitals as executor_vitals
from stepwire_executor.vitals import BOUNDS, SHORT_SECONDS, WINDOW_SECONDS, Times, Vitals, Watchdog, observed_loop
from stepwire_proto.v1 import admin_pb2, admin_pb2_grpc, event_pb2, event_pb2_grpc, value_pb2, worker_pb2
from tests.executor import tokens
from tests.executor.peer import Peer, bearer, until


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[ExecutorProcess]:
    settings = {"tokens_file": tokens.write(tmp_path / "tokens.toml"), "max_queued_runs": 77}
    with ExecutorProcess(settings=settings, folder=tmp_path / "executor") as process:
        yield process


def status(channel: grpc.Channel, token: str = "admins") -> admin_pb2.GetStatusResponse:
    """Ask how the executor is."""
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    return stub.GetStatus(admin_pb2.GetStatusRequest(), metadata=bearer(tokens.secret(token)), timeout=20)


def send(channel: grpc.Channel, name: str, size: int) -> None:
    """Send an event with so much data."""
    payload = value_pb2.Payload(data=b'"' + b"x" * (size - 2) + b'"', encoding="json")
    request = event_pb2.SendEventsRequest(events=[event_pb2.Event(name=name, data=payload)])
    event_pb2_grpc.EventServiceStub(channel).SendEvents(request, metadata=bearer(tokens.secret("clients")))


def test_status_counts_what_is_there(executor: ExecutorProcess, channel: grpc.Channel) -> None:
    before = status(channel)
    assert (before.state, before.reason) == (admin_pb2.EXECUTOR_STATE_SERVING, "")
    assert (before.workers, before.runs, before.faults, before.begun_anew) == (0, 0, 0, 0)
    assert before.epoch == 1
    assert before.max_queued_runs == 77
    assert before.memory_bytes > 10 << 20
    with Peer(executor.address, tokens.secret("shop-workers")) as peer:
        function = worker_pb2.FunctionOptions(id="f", triggers=[worker_pb2.Trigger(event_name="paid")])
        peer.hello(app="shop", functions=[function], slots=3, max_invocations=1)
        peer.next("welcome")
        for _ in range(3):
            send(channel, "paid", 1000)
        peer.next("invoke")
        after = status(channel)
        assert (after.workers, after.slots, after.runs, after.queued_runs) == (1, 3, 3, 2)
        assert after.queued_bytes >= 2000
        assert after.commits.count >= 3
        assert after.commits.longest.ToNanoseconds() >= after.commits.p50.ToNanoseconds() > 0
        assert after.waits.count > before.waits.count
        assert after.pieces.count > before.pieces.count
        (holder,) = after.holders
        assert (holder.app, holder.kind, holder.count) == ("shop", admin_pb2.HOLDER_KIND_RUNS, 3)
        assert holder.bytes >= 3000


def test_who_holds_memory_is_told_of_the_callers_apps_alone(executor: ExecutorProcess, channel: grpc.Channel) -> None:
    with (
        Peer(executor.address, tokens.secret("shop-workers")) as shop,
        Peer(executor.address, tokens.secret("bank-workers"), reads=False) as bank,
    ):
        for peer, app in ((shop, "shop"), (bank, "bank")):
            function = worker_pb2.FunctionOptions(id="f", triggers=[worker_pb2.Trigger(event_name=app)])
            peer.hello(app=app, instance_id=f"of-{app}", functions=[function], max_invocations=1000)
        shop.next("welcome")
        until(lambda: status(channel).workers == 2)
        bank.send(fragment=worker_pb2.Fragment(id=1, data=b"x" * 5000))
        send(channel, "shop", 2000)
        until(lambda: {each.app for each in status(channel).holders} == {"shop", "bank"})
        fragments = [each for each in status(channel).holders if each.kind == admin_pb2.HOLDER_KIND_FRAGMENTS]
        assert [(each.app, each.worker, each.bytes) for each in fragments] == [("bank", "of-bank", 5000)]
        assert {each.app for each in status(channel, "shop-admins").holders} == {"shop"}


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_percentiles_are_those_of_buckets_a_quarter_wide() -> None:
    times = Times()
    for number in range(1, 1001):
        times.note(number / 1000)
    assert times.count == 1000
    assert times.longest == 1.0
    for share in (0.5, 0.99, 0.999):
        assert share <= times.below(share) <= share * 1.25
    assert times.below(1.0) == 1.0


def test_times_outside_of_all_buckets_count() -> None:
    times = Times()
    times.note_short(999)
    times.note(BOUNDS[-1] * 2)
    assert times.below(0.5) == SHORT_SECONDS
    assert times.below(0.9999) == times.longest == BOUNDS[-1] * 2


def test_times_are_those_of_one_to_two_windows() -> None:
    clock = Clock()
    times = Times(clock)
    times.note(9.0)
    for now, longest in ((WINDOW_SECONDS - 1, 9.0), (WINDOW_SECONDS, 9.0), (2 * WINDOW_SECONDS, 0.0)):
        clock.now = now
        times.turn()
        assert times.longest == longest
    assert times.count == 0


def test_a_piece_of_work_that_takes_long_is_logged_with_what_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_vitals, "LONG_SECONDS", 0.2)
    monkeypatch.setattr(executor_vitals, "LOOKED_AT_SECONDS", 0.02)
    vitals = Vitals()
    caplog.set_level(logging.WARNING, "stepwire.executor")

    def hold_everybody_up() -> None:
        time.sleep(1)

    async def work() -> None:
        watchdog = Watchdog(vitals)
        watchdog.start()
        asyncio.get_running_loop().call_soon(hold_everybody_up)
        await asyncio.sleep(0.1)
        watchdog.stop()

    with asyncio.Runner(loop_factory=lambda: observed_loop(vitals)) as runner:
        runner.run(work())
    (during,) = [each for each in caplog.messages if "in hold_everybody_up" in each]
    assert "one piece of work has kept everybody waiting for over 0.2 s" in during
    assert any(each.startswith("a piece of work took ") for each in caplog.messages)
    vitals.turn()
    assert vitals.pieces.longest >= 1
    assert vitals.pieces.count > 2
