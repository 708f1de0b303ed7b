"""Whatever a body raises is its failure: it does not go through the machine, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from stepwire import Context, NonRetriableError, Step, SyncStep
from stepwire.replay.model import Entry, Raised, Returned
from tests.sdk_python.replay.driver import START, VALUES, invocation


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


ODD: list[BaseException] = [
    KeyboardInterrupt("odd"),
    SystemExit("odd"),
    GeneratorExit("odd"),
    StopIteration("odd"),
    StopAsyncIteration("odd"),
    asyncio.CancelledError("odd"),
    SpeechlessError("odd"),
    ExceptionGroup("odd", [ValueError("a"), ExceptionGroup("inner", [TypeError("b")])]),
    BaseExceptionGroup("odd", [KeyboardInterrupt("a"), BaseExceptionGroup("inner", [SystemExit("b")])]),
]
TYPES = {StopIteration: "RuntimeError"}
"""As what a coroutine raises something, by Python's own rule."""


def one() -> int:
    return 1


def at_once(error: BaseException) -> Callable[..., Any]:
    async def body(ctx: Context, step: Step) -> None:
        raise error

    return body


def after_a_step(error: BaseException) -> Callable[..., Any]:
    async def body(ctx: Context, step: Step) -> None:
        await step.run("a", one)
        raise error

    return body


def in_a_task(error: BaseException) -> Callable[..., Any]:
    async def body(ctx: Context, step: Step) -> None:
        async def branch() -> None:
            await step.run("a", one)
            raise error

        await asyncio.create_task(branch())

    return body


def in_a_finally(error: BaseException) -> Callable[..., Any]:
    async def body(ctx: Context, step: Step) -> None:
        try:
            await step.run("a", one)
            raise ValueError("first")
        finally:
            raise error

    return body


def in_a_generator_that_is_left(error: BaseException) -> Callable[..., Any]:
    async def body(ctx: Context, step: Step) -> None:
        async def numbers() -> AsyncIterator[int]:
            try:
                yield await step.run("a", one)
            finally:
                raise error

        async for _ in numbers():
            return

    return body


def in_a_thread(error: BaseException) -> Callable[..., Any]:
    def body(ctx: Context, step: SyncStep) -> None:
        step.run("a", one)
        raise error

    return body


def in_a_branch(error: BaseException) -> Callable[..., Any]:
    def body(ctx: Context, step: SyncStep) -> None:
        def branch() -> None:
            step.run("a", one)
            raise error

        step.parallel(branch)

    return body


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "make",
    [at_once, after_a_step, in_a_task, in_a_finally, in_a_generator_that_is_left, in_a_thread, in_a_branch],
    ids=lambda make: make.__name__,
)
def test_an_odd_exception_is_the_failure_of_the_body(
    make: Callable[[BaseException], Callable[..., Any]], error: BaseException
) -> None:
    if make is in_a_generator_that_is_left and isinstance(error, GeneratorExit):
        return  # which is how such a generator ends
    live = invocation(make(error))
    turn = live.start([])
    if turn.outcome is None:
        (step,) = turn.found
        turn = live.resume([Entry(1, step.key, step.kind, VALUES.encode(1), START)])
    assert isinstance(turn.outcome, Raised)
    failure = turn.outcome.failure
    kinds = {type(error).__name__, TYPES.get(type(error), "")}
    if make is in_a_generator_that_is_left:
        kinds.add("RuntimeError")  # async generators turn what would end a loop over them into one
    assert failure.type in kinds
    assert failure.message
    assert failure.retryable
    live.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_body_may_catch_what_its_branch_raises(kind: type[BaseException]) -> None:
    def body(ctx: Context, step: SyncStep) -> str:
        def branch() -> None:
            raise kind("odd")

        try:
            step.parallel(branch)
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    live = invocation(body)
    outcome = live.start([]).outcome
    assert isinstance(outcome, Returned)
    assert VALUES.decode(outcome.output) == f"{kind.__name__}: odd"


def test_a_callback_that_raises_what_ends_a_loop_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def body(ctx: Context, step: Step) -> int:
        def leave() -> None:
            raise SystemExit(3)

        asyncio.get_running_loop().call_soon(leave)
        await asyncio.sleep(0)
        return 5

    outcome = invocation(body).start([]).outcome
    assert isinstance(outcome, Returned)
    assert [record.getMessage() for record in caplog.records] == ["run run-1: a callback has raised SystemExit"]


def test_a_deep_group_of_errors_that_no_retry_mends_is_not_retried() -> None:
    error: Exception = NonRetriableError("no")
    for _ in range(3_000):
        error = ExceptionGroup("g", [error])
    outcome = invocation(at_once(error)).start([]).outcome
    assert isinstance(outcome, Raised)
    assert not outcome.failure.retryable
