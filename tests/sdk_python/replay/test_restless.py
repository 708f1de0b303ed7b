"""A body that polls is found, wherever it runs; one that works is not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from stepwire import Context, InvalidStepError, Step, SyncStep
from stepwire.replay.model import Entry, Raised, Returned
from tests.sdk_python.replay.driver import START, VALUES, Driver, invocation


def one() -> int:
    return 1


async def polls(ctx: Context, step: Step) -> int:
    task = asyncio.create_task(step.run("a", one))
    while not task.done():  # noqa: ASYNC110 - this is the point
        await asyncio.sleep(0)
    return task.result()


async def polls_after_a_step(ctx: Context, step: Step) -> int:
    await step.run("first", one)
    return await polls(ctx, step)


async def wakes_another(ctx: Context, step: Step) -> None:
    here, there = asyncio.Event(), asyncio.Event()

    async def ping(wait: asyncio.Event, wake: asyncio.Event) -> None:
        while True:
            await wait.wait()
            wait.clear()
            wake.set()

    here.set()
    await asyncio.gather(ping(here, there), ping(there, here), step.run("a", one))


async def calls_soon(ctx: Context, step: Step) -> None:
    loop = asyncio.get_running_loop()

    def again() -> None:
        loop.call_soon(again)

    again()
    await step.run("a", one)


async def polls_with_a_timeout(ctx: Context, step: Step) -> None:
    task = asyncio.create_task(step.run("a", one))
    while not task.done():
        async with asyncio.timeout(5):
            await asyncio.sleep(0)


async def makes_tasks_for_ever(ctx: Context, step: Step) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    task = asyncio.create_task(step.run("a", one))
    while not task.done():
        await asyncio.gather(nothing(), nothing())


def asks_for_nothing(ctx: Context, step: SyncStep) -> None:
    while True:
        step.map("a", one, [])


def polls_in_a_branch(ctx: Context, step: SyncStep) -> None:
    def branch() -> None:
        while True:
            step.map("b", one, [])

    step.parallel(branch, lambda: step.run("a", one))


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (polls, "polls"),
        (polls_after_a_step, "polls"),
        (wakes_another, "wakes_another.<locals>.ping"),
        (calls_soon, "calls_soon.<locals>.again"),
        (polls_with_a_timeout, "polls_with_a_timeout"),
        (makes_tasks_for_ever, "makes_tasks_for_ever"),
        (asks_for_nothing, "asks_for_nothing"),
        (polls_in_a_branch, "polls_in_a_branch.<locals>.branch"),
    ],
)
def test_a_body_that_polls_fails_with_its_line_in_each_replay_and_is_not_retried(
    body: Callable[..., Any], place: str
) -> None:
    for lead in (True, False):
        live = invocation(body, most_callbacks=5_000)
        live.lead = lead
        turn = live.start([])
        while turn.outcome is None:
            (step,) = live.unfinished()
            turn = live.resume([Entry(live.sequence + 1, step.key, step.kind, VALUES.encode(1), START)])
        assert isinstance(turn.outcome, Raised)
        failure = turn.outcome.failure
        assert (failure.type, failure.retryable) == ("SpinningBodyError", False)
        assert re.search(rf"{re.escape(place)}\S* \({re.escape(__file__)}:\d+\)", failure.message)
        assert "asyncio.wait" in failure.message
        live.close()


async def calls_wrongly_again_and_again(ctx: Context, step: Step) -> None:
    while True:
        try:
            await step.run("", one)
        except Exception:
            continue


async def calls_wrongly_beside_others(ctx: Context, step: Step) -> None:
    await asyncio.gather(step.run("a", one), calls_wrongly_again_and_again(ctx, step))


async def forgets_an_argument_again_and_again(ctx: Context, step: Step) -> None:
    again: Any = step.run
    while True:
        try:
            await again("a")
        except Exception:
            continue


async def matches_an_empty_path_again_and_again(ctx: Context, step: Step) -> None:
    while True:
        try:
            await step.wait_for_event("w", "e", match={"": 1})
        except BaseException:
            continue


async def gives_what_cannot_be_encoded(ctx: Context, step: Step) -> None:
    while True:
        try:
            await step.send_events("s", [("e", object())])
        except Exception:
            continue


async def has_too_long_an_id(ctx: Context, step: Step) -> None:
    while True:
        try:
            await step.run("x" * 5_000, one)
        except Exception:
            continue


async def sleeps_for_too_long(ctx: Context, step: Step) -> None:
    while True:
        try:
            await asyncio.sleep(1e12)
        except Exception:
            continue


async def asks_for_a_thread(ctx: Context, step: Step) -> None:
    while True:
        try:
            await asyncio.to_thread(one)
        except Exception:
            continue


async def awaits_a_call_twice(ctx: Context, step: Step) -> None:
    call = step.run("a", one)
    beside = call.__await__()
    while True:
        try:
            await call
        except Exception:
            assert beside is not None


def calls_wrongly_in_a_thread(ctx: Context, step: SyncStep) -> None:
    while True:
        try:
            step.run("", one)
        except Exception:
            continue


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (calls_wrongly_again_and_again, "InvalidStepError"),
        (calls_wrongly_beside_others, "InvalidStepError"),
        (forgets_an_argument_again_and_again, "InvalidStepError"),
        (matches_an_empty_path_again_and_again, "InvalidStepError"),
        (gives_what_cannot_be_encoded, "EncodingError"),
        (has_too_long_an_id, "InvalidStepError"),
        (sleeps_for_too_long, "InvalidStepError"),
        (asks_for_a_thread, "ForeignAwaitError"),
        (awaits_a_call_twice, "RuntimeError"),
        (calls_wrongly_in_a_thread, "InvalidStepError"),
    ],
)
def test_a_body_that_catches_the_errors_of_wrong_calls_and_calls_again_fails_with_one_of_them(
    body: Callable[..., Any], error: str
) -> None:
    live = invocation(body)
    outcome = live.start([]).outcome
    assert isinstance(outcome, Raised)
    assert (outcome.failure.type, outcome.failure.retryable) == (error, error == "RuntimeError")
    live.close()


async def test_wrong_calls_that_are_caught_do_no_harm_if_they_end() -> None:
    async def tries(ctx: Context, step: Step) -> int:
        for number in range(5_000):
            with pytest.raises(InvalidStepError):
                await step.run("", one)
            if number % 2_000 == 0:
                await step.run("a", one)
        return 7

    driver = Driver(tries)
    driver.run()
    assert isinstance(driver.outcome, Returned)


def test_a_body_that_polls_is_broken_off_and_goes_on_where_it_was() -> None:
    live = invocation(polls, most_callbacks=10_000)
    live.begin(0)
    slices = 0
    while (turn := live.go_on(0)) is None:
        slices += 1
    assert slices > 10
    assert isinstance(turn.outcome, Raised)
    assert turn.outcome.failure.type == "SpinningBodyError"


def test_time_counts_too_but_not_that_in_which_the_process_stood_still() -> None:
    now = 0.0

    async def slow(ctx: Context, step: Step) -> None:
        nonlocal now
        while True:
            now += 0.004
            await asyncio.sleep(0)

    live = invocation(slow, clock=lambda: now)
    outcome = live.start([]).outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type == "SpinningBodyError"
    assert 10 <= now < 12

    now = 0.0

    async def stopped(ctx: Context, step: Step) -> str:
        nonlocal now
        for n in range(3_000):
            now += 1_000 if n == 2_000 else 0
            await asyncio.sleep(0)
        return "through"

    assert isinstance(invocation(stopped, clock=lambda: now).start([]).outcome, Returned)


def test_a_body_that_is_broken_off_in_its_journal_comes_to_the_same_end() -> None:
    async def body(ctx: Context, step: Step) -> int:
        total = 0
        for n in range(200):
            total += await step.run("a", lambda n=n: n)
        return total

    driver = Driver(body)
    assert isinstance(driver.run(), Returned)
    live = invocation(body)
    live.begin(len(driver.journal))
    live.feed(driver.journal)
    slices = 0
    while (turn := live.go_on(0)) is None:
        slices += 1
    assert slices >= 3
    assert turn.outcome == driver.outcome


async def yields_politely(ctx: Context, step: Step) -> int:
    for _ in range(50_000):
        await asyncio.sleep(0)
    return await step.run("a", one)


async def gathers_often(ctx: Context, step: Step) -> int:
    async def nothing() -> int:
        return 1

    for _ in range(10_000):
        await asyncio.gather(nothing(), nothing(), nothing())
    return await step.run("a", one)


async def has_tasks_that_begin_late(ctx: Context, step: Step) -> int:
    async def late() -> int:
        for _ in range(5):
            await asyncio.sleep(0)
        return await step.run("a", one)

    return len(await asyncio.gather(*[late() for _ in range(30_000)]))


@pytest.mark.parametrize("body", [yields_politely, gathers_often, has_tasks_that_begin_late])
def test_a_body_that_has_much_to_do_is_left_alone(body: Callable[..., Any]) -> None:
    live = invocation(body)
    turn = live.start([])
    assert turn.outcome is None
    assert len(turn.found) in (1, 30_000)
    live.close()
