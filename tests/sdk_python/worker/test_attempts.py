"""Step code in a worker: in tasks and threads, cancelled, and raising what nobody expects."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace

import stepwire
from stepwire.errors import StepwireError
from stepwire.worker.attempts import Attempts
from stepwire_proto.v1 import worker_pb2
from tests.sdk_python.worker.scripted import attempt

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Bench:
    """Runs attempts without a worker, and keeps their reports."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[worker_pb2.WorkerMessage] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def report(_: int, message: worker_pb2.WorkerMessage) -> None:
            self.reports.put_nowait(message)

        def from_thread(fence: int, message: worker_pb2.WorkerMessage) -> None:
            loop.call_soon_threadsafe(report, fence, message)

        self.attempts = Attempts(stepwire.App("app"), report, from_thread)

    async def run(self, code: Callable[[], Any], traceparent: str = "") -> worker_pb2.WorkerMessage:
        """Run code as attempt 3 of step "s:2" of run "r1"."""
        self.attempts.start(attempt("s:2", 7), 3, code, None, traceparent)
        return await asyncio.wait_for(self.reports.get(), 10)

    async def value(self, code: Callable[[], Any], traceparent: str = "") -> bytes:
        """Run code that succeeds; gives its output."""
        message = await self.run(code, traceparent)
        assert message.HasField("step_run"), message
        return message.step_run.output.data


async def who_async() -> list[object]:
    await asyncio.sleep(0)
    return who()


def who() -> list[object]:
    current = stepwire.current_attempt()
    return [current.run_id, current.step, current.index, current.number, current.cancelled]


def in_lambda() -> Any:
    return who_async()


@pytest.mark.parametrize("code", [who, who_async, in_lambda])
async def test_step_code_knows_its_attempt(code: Callable[[], Any]) -> None:
    assert await Bench().value(code) == b'["r1","s",2,3,false]'


def test_outside_of_a_step_there_is_no_attempt() -> None:
    with pytest.raises(StepwireError, match="outside of a step"):
        stepwire.current_attempt()


async def trace_async() -> str:
    return trace_sync()


def trace_sync() -> str:
    return f"{trace.get_current_span().get_span_context().span_id:x}"


def trace_lambda() -> Any:
    return trace_async()


@pytest.mark.parametrize("code", [trace_sync, trace_async, trace_lambda])
async def test_spans_of_step_code_nest_under_its_attempt(code: Callable[[], Any]) -> None:
    assert await Bench().value(code, TRACEPARENT) == b'"b7ad6b7169203331"'
    assert await Bench().value(code) == b'"0"', "one attempt's trace does not leak into the next"


class Odd(BaseException):
    """Not an Exception."""


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, Odd])
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_step_code_raises_is_its_failure_and_is_tried_again(
    error: type[BaseException], is_async: bool
) -> None:
    async def raise_async() -> None:
        raise error("why")

    def raise_sync() -> None:
        raise error("why")

    message = await Bench().run(raise_async if is_async else raise_sync)
    failure = message.step_failed.failure
    assert (failure.type, failure.message, failure.retryable) == (error.__name__, "why", True)
    assert "raise error" in failure.stack


async def test_code_that_can_not_be_called_so_fails_its_step() -> None:
    async def needs_more(value: int) -> None:
        del value

    failure = (await Bench().run(needs_more)).step_failed.failure  # type: ignore[arg-type]
    assert failure.type == "TypeError"


async def test_the_time_that_step_code_took_is_told() -> None:
    message = await Bench().run(lambda: time.sleep(0.05))
    assert 45_000_000 < message.step_run.elapsed.nanos < 900_000_000


async def test_a_task_that_ignores_its_cancellation_is_not_reported() -> None:
    bench = Bench()
    ended = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        ended.set()

    bench.attempts.start(attempt("s", 7), 1, stubborn, None, "")
    await asyncio.sleep(0)
    bench.attempts.cancel(7, "enough")
    await asyncio.wait_for(ended.wait(), 5)
    await asyncio.sleep(0)
    assert bench.reports.empty()


async def test_a_cancelled_sync_step_does_not_keep_the_next_one_from_a_thread() -> None:
    bench = Bench()
    release = threading.Event()
    for fence in (1, 2):
        bench.attempts.start(attempt("stuck", fence), 1, lambda: release.wait(20), None, "")
        bench.attempts.cancel(fence, "enough")
    assert await bench.value(lambda: 1) == b"1"
    release.set()


async def test_threads_are_used_again() -> None:
    bench = Bench()
    names = {await bench.value(lambda: threading.current_thread().name) for _ in range(20)}
    assert len(names) < 10, "one that has just brought its value may not be free yet, but most are"


SCRIPT = """
import asyncio, stepwire, sys, time
from stepwire.worker.attempts import Attempts
from stepwire_proto.v1 import value_pb2

async def main():
    attempts = Attempts(stepwire.App("app"), print, print)
    attempt = value_pb2.Attempt(run_id="r", fence=1)
    attempts.start(attempt, 1, lambda: time.sleep(3600), None, "")
    await asyncio.sleep(0.1)
    print(len(attempts.give_up("the end")))
    attempts.close()

asyncio.run(main())
"""


def test_sync_code_that_never_ends_does_not_keep_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "1\n"


async def swallow(gate: threading.Event) -> None:
    while not gate.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)


def hang(gate: threading.Event) -> None:
    gate.wait(20)


@pytest.mark.parametrize(("code", "advice"), [(hang, "holds its thread"), (swallow, "let it end when it is cancelled")])
async def test_code_that_goes_on_after_its_cancellation_is_reported_by_name(
    code: Callable[[threading.Event], Any],
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("stepwire.worker.attempts.ABANDONED_SECONDS", 0.1)
    bench = Bench()
    gate, polite = threading.Event(), threading.Event()
    bench.attempts.start(attempt("stubborn", 7), 1, functools.partial(code, gate), None, "")
    bench.attempts.start(attempt("polite", 8), 1, functools.partial(hang, polite), None, "")
    await asyncio.sleep(0.02)
    for fence in (7, 8):
        bench.attempts.cancel(fence, "enough of it")
    polite.set()
    async with asyncio.timeout(10):
        while not caplog.messages:  # noqa: ASYNC110 - a log handler tells nobody
            await asyncio.sleep(0.01)
    gate.set()
    await asyncio.sleep(0.05)
    (message,) = caplog.messages
    for part in ("'stubborn'", "run r1", "0.1 s", "enough of it", advice):
        assert part in message
    assert len(bench.attempts) == 0
