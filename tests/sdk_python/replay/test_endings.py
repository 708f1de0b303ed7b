"""A body that is dropped or has ended leaves nothing behind: no output, no thread, no step."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stepwire import Context, Step, SyncStep
from stepwire.replay.endings import PATIENCE
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import Entry, Planned, Raised, Returned
from tests.sdk_python.replay.constructs import TABLE
from tests.sdk_python.replay.driver import START, VALUES, Driver, invocation


def one() -> int:
    return 1


def result(sequence: int, step: Planned) -> Entry:
    return Entry(sequence, step.key, step.kind, VALUES.encode(1), START)


@contextmanager
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that nothing is said meanwhile, in a garbage collection neither, but that unfinished steps are given up."""
    gc.collect()
    heard: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda each: heard.append((each.exc_value, each.object))
    threads = set(threading.enumerate())
    try:
        with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = before
    assert [str(each.message) for each in warned] == []
    assert heard == []
    assert [record for record in caplog.records if "was unfinished when the body" not in record.getMessage()] == []
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("body", TABLE, ids=lambda body: body.__name__)
def test_a_body_can_be_dropped_anywhere(body: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    driver = Driver(body)
    driver.run()
    with silence(caplog):
        for length in range(len(driver.journal) + 1):
            live = invocation(body)
            live.start(driver.journal[:length])
            live.close()
            live.close()
            del live


async def calls_in_a_list(ctx: Context, step: Step) -> None:
    later = [step.run("later", one), step.sleep("later too", 1)]
    await step.run("now", one)
    for call in later:
        await call


async def stubborn(ctx: Context, step: Step) -> None:
    for _ in range(5):
        try:
            await step.run("again", one)
        except BaseException:
            ctx.logger.debug("caught")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.Event().wait()


async def busy_end(ctx: Context, step: Step) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield await step.run("number", one)
            yield 2
        finally:
            await asyncio.sleep(5)
            await step.run("end of numbers", one)

    async def branch() -> None:
        try:
            async with asyncio.timeout(50):
                await step.run("a", one)
        finally:
            try:
                await step.run("b", one)
            finally:
                await asyncio.gather(step.run("c", one), asyncio.sleep(1))

    async with asyncio.TaskGroup() as group:
        group.create_task(branch())
        async for _ in numbers():
            await step.run("inside", one)


def stubborn_in_a_thread(ctx: Context, step: SyncStep) -> None:
    def branch() -> None:
        for n in range(10):
            try:
                step.run("again", one)
            except BaseException:
                ctx.logger.debug("caught %d", n)

    step.parallel(branch, branch)


@pytest.mark.parametrize("body", [calls_in_a_list, stubborn, busy_end, stubborn_in_a_thread])
def test_a_body_that_resists_is_dropped_too(body: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    with silence(caplog):
        for length in range(3):
            live = invocation(body)
            turn = live.start([])
            for n in range(length):
                turn = live.resume([result(n + 1, live.unfinished()[0])])
            assert turn.outcome is None
            live.close()
            assert list(live.unfinished()) == []
            del live, turn


def sees(caught: list[str]) -> Callable[..., Any]:
    """Make a body that catches everything, for ever, and notes what it catches."""

    async def body(ctx: Context, step: Step) -> None:
        while True:
            try:
                await step.run("again", one)
                async with asyncio.timeout(60):
                    await asyncio.gather(step.run("again", one), step.sleep("pause", 5))
            except BaseException as error:
                caught.append(type(error).__name__)

    return body


def sees_in_a_thread(caught: list[str]) -> Callable[..., Any]:
    def body(ctx: Context, step: SyncStep) -> None:
        while True:
            try:
                step.run("again", one)
            except BaseException as error:
                caught.append(type(error).__name__)

    return body


def sees_in_a_task(caught: list[str]) -> Callable[..., Any]:
    async def body(ctx: Context, step: Step) -> None:
        task = asyncio.create_task(sees(caught)(ctx, step))
        await asyncio.gather(task, step.run("beside it", one))

    return body


@pytest.mark.parametrize("make", [sees, sees_in_a_thread, sees_in_a_task])
def test_code_that_goes_on_after_its_end_is_abandoned_and_logged_with_its_line(
    make: Callable[[list[str]], Callable[..., Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caught: list[str] = []
    live = invocation(make(caught))
    live.start([])
    live.close()
    assert live.abandoned == 1
    assert set(caught) == {"GeneratorExit"}
    assert len(caught) <= PATIENCE
    (record,) = caplog.records
    assert f"goes on at {make.__name__ if make is sees_in_a_thread else 'sees'}.<locals>.body" in record.getMessage()
    assert f"{__file__}:" in record.getMessage()
    del live
    gc.collect()
    assert len(caught) <= PATIENCE  # nothing of it is run any more


def test_code_that_goes_on_when_its_body_has_returned_is_abandoned_too(caplog: pytest.LogCaptureFixture) -> None:
    async def body(ctx: Context, step: Step) -> str:
        task = asyncio.create_task(sees([])(ctx, step))
        await step.run("a", one)
        return task.get_name()

    live = invocation(body)
    steps = live.start([]).found
    turn = live.resume([result(1, next(step for step in steps if step.key.id == "a"))])
    assert isinstance(turn.outcome, Returned)
    assert live.abandoned == 1
    assert ["goes on at" in record.getMessage() for record in caplog.records] == [False, True]


def test_code_deep_inside_ends_before_what_awaits_it_and_sees_generator_exit_only() -> None:
    seen: list[str] = []

    async def level(n: int, step: Step) -> None:
        try:
            if n:
                await level(n - 1, step)
            else:
                async for _ in numbers(step):
                    await step.run("inside", one)
        except BaseException as error:
            seen.append(f"{type(error).__name__} {n}")
            raise
        finally:
            await step.run("last", one)

    async def numbers(step: Step) -> AsyncIterator[int]:
        try:
            yield await step.run("number", one)
        except BaseException as error:
            seen.append(f"{type(error).__name__} in the generator")
            raise
        finally:
            await step.run("end of numbers", one)

    async def body(ctx: Context, step: Step) -> None:
        await level(3, step)

    live = invocation(body)
    live.start([])
    live.close()
    inside_out = ["GeneratorExit in the generator", *(f"GeneratorExit {n}" for n in range(4))]
    assert list(dict.fromkeys(seen)) == inside_out
    assert live.abandoned == 0


def test_a_thread_whose_code_takes_its_time_to_end_is_abandoned(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwire.replay.threads.RELEASE_SECONDS", 0.05)
    goes_on = threading.Event()

    def body(ctx: Context, step: SyncStep) -> None:
        try:
            step.run("a", one)
        finally:
            goes_on.wait(60)

    live = invocation(body)
    live.start([])
    live.close()
    assert live.abandoned == 1
    assert f"{__file__}:" in caplog.records[0].getMessage()
    goes_on.set()


def test_a_dropped_body_is_garbage() -> None:
    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    async def body(ctx: Context, step: Step) -> None:
        large = Large()
        seen.append(weakref.ref(large))
        await asyncio.gather(step.run("a", one), step.run("b", one))
        del large

    live = invocation(body)
    live.start([])
    live.close()
    gc.collect()
    assert seen[0]() is None


def test_a_body_that_has_ended_leaves_no_circles_for_the_garbage_collector() -> None:
    async def body(ctx: Context, step: Step) -> int:
        first = sum(await asyncio.gather(step.run("a", one), step.run("b", one)))
        return first + await step.run("c", one)

    Driver(body).run()  # what is made once is made
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        Driver(body).run()
        gc.collect()
        left = [type(each) for each in gc.garbage if type(each).__module__.startswith("stepwire")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert left == []


def test_a_body_that_returns_drops_its_tasks_which_start_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    ends: list[str] = []

    async def body(ctx: Context, step: Step) -> str:
        async def branch() -> None:
            try:
                await step.run("slow", one)
            finally:
                ends.append("finally")
                await step.run("too late", one)
                ends.append("never")

        task = asyncio.create_task(branch())
        await step.run("quick", one)
        return task.get_name()

    with silence(caplog):
        live = invocation(body)
        slow, quick = sorted(live.start([]).found, key=lambda step: step.key.id, reverse=True)
        turn = live.resume([result(1, quick)])
        assert isinstance(turn.outcome, Returned)
        assert list(turn.cancelled) == [slow.key]
        assert list(turn.found) == []
        assert ends == ["finally"]
        live.close()


def forgetful_body() -> Callable[..., Any]:
    async def body(ctx: Context, step: Step) -> int:
        step.run("forgotten", one)  # type: ignore[unused-coroutine]
        return await step.run("awaited", one)

    return body


def test_a_step_that_is_never_awaited_is_warned_of_when_the_body_is_live() -> None:
    with pytest.warns(RuntimeWarning, match=r"step 'forgotten' at test_endings.py:\d+ was never awaited"):
        invocation(forgetful_body()).start([])


def test_a_replay_does_not_warn_again(caplog: pytest.LogCaptureFixture) -> None:
    live = invocation(forgetful_body())
    with pytest.warns(RuntimeWarning):
        planned = live.start([]).found[0]
    with silence(caplog):
        invocation(forgetful_body()).start([result(1, planned)])


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.filterwarnings("ignore:step .* was never awaited:RuntimeWarning")
def test_a_run_whose_body_forgot_to_await_a_step_fails_and_names_it_with_its_line(replayed: bool) -> None:
    live = invocation(forgetful_body())
    (planned,) = live.start([]).found
    recorded = [result(1, planned)]
    turn = invocation(forgetful_body()).start(recorded) if replayed else live.resume(recorded)
    assert isinstance(turn.outcome, Raised)
    failure = turn.outcome.failure
    assert (failure.type, failure.retryable) == ("InvalidStepError", False)
    assert re.search(
        r"'forgotten' at test_endings.py:\d+ but never awaited it, so that it never started", failure.message
    )


@pytest.mark.filterwarnings("ignore:step .* was never awaited:RuntimeWarning")
def test_one_that_is_kept_in_a_variable_is_forgotten_all_the_same_but_not_one_that_is_closed() -> None:
    async def keeps(ctx: Context, step: Step) -> int:
        calls = [step.run("kept", one), step.sleep("kept too", 1.0)]
        return len(calls)

    async def closes(ctx: Context, step: Step) -> int:
        call = step.run("not wanted", one)
        call.close()
        return 1

    outcome = invocation(keeps).start([]).outcome
    assert isinstance(outcome, Raised)
    assert "'kept'" in outcome.failure.message
    assert "(and 1 more)" in outcome.failure.message
    assert isinstance(invocation(closes).start([]).outcome, Returned)


@pytest.mark.filterwarnings("ignore:step .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(
    ("forget", "name"),
    [
        (lambda step: step.map("forgotten", one, [1, 2]), "forgotten"),
        (lambda step: step.parallel(lambda: step.run("a", one)), "step.parallel"),
        (lambda step: step.parallel(lambda: step.run("a", one), race=True), "step.parallel"),
    ],
)
def test_a_map_or_parallel_that_is_never_awaited_fails_the_run_too(forget: Callable[[Step], Any], name: str) -> None:
    async def body(ctx: Context, step: Step) -> int:
        forget(step)
        return 1

    async def closes(ctx: Context, step: Step) -> int:
        forget(step).close()
        return 1

    outcome = invocation(body).start([]).outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type == "InvalidStepError"
    assert re.search(rf"step '{name}' at test_endings.py:\d+ but never awaited it", outcome.failure.message)
    assert isinstance(invocation(closes).start([]).outcome, Returned)


@pytest.mark.filterwarnings("ignore:step .* was never awaited:RuntimeWarning")
def test_a_body_that_raises_fails_with_its_own_error_whatever_it_forgot() -> None:
    async def body(ctx: Context, step: Step) -> None:
        step.run("forgotten", one)  # type: ignore[unused-coroutine]
        raise LookupError("its own")

    outcome = invocation(body).start([]).outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type == "LookupError"


def test_a_step_whose_task_is_left_behind_is_told_of_once_for_its_line(caplog: pytest.LogCaptureFixture) -> None:
    tasks = []

    async def body(ctx: Context, step: Step) -> str:
        tasks.append(asyncio.create_task(step.run("left behind", one)))
        await step.run("awaited", one)
        return "end"

    for _ in range(2):
        live = invocation(body)
        awaited = next(step for step in live.start([]).found if step.key.id == "awaited")
        assert isinstance(live.resume([result(1, awaited)]).outcome, Returned)
    (line,) = [record.getMessage() for record in caplog.records if "left behind" in record.getMessage()]
    assert re.search(r"step 'left behind' \(test_endings.py:\d+\) of function 'body' was unfinished", line)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_task_that_waits_for_a_timer_when_the_body_returns_is_told_of_with_its_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = []

    async def remind(step: Step) -> None:
        await asyncio.sleep(3600)
        await step.run("never started", one)

    async def body(ctx: Context, step: Step) -> str:
        tasks.append(asyncio.create_task(remind(step)))
        tasks.append(asyncio.create_task(asyncio.sleep(3600)))  # nothing of the user's goes on after this one
        lost = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        lost.cancel()
        return "end"

    assert isinstance(invocation(body).start([]).outcome, Returned)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.search(r"a task that waits at .*remind.* of function 'body' was unfinished when the", record.getMessage())


def test_the_error_of_a_task_that_nobody_awaits_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body(ctx: Context, step: Step) -> int:
        async def orphan() -> None:
            raise ValueError("unseen")

        task = asyncio.create_task(orphan())
        await asyncio.sleep(0)
        del task
        return await step.run("a", one)

    live = invocation(body)
    planned = live.start([]).found[0]
    live.resume([result(1, planned)])
    assert [record.getMessage() for record in caplog.records] == ["run run-1: ReplayTask exception was never retrieved"]
    caplog.clear()
    with silence(caplog):
        again = invocation(body)
        again.lead = False
        assert isinstance(again.start([result(1, planned)]).outcome, Returned)


@pytest.mark.parametrize("lead", [True, False])
def test_the_logger_speaks_only_live_and_only_in_the_lead(lead: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def body(ctx: Context, step: Step) -> None:
        for n in range(3):
            ctx.logger.warning("before %d", n)
            await step.run("a", one)

    driver = Driver(body)
    driver.run()
    assert [record.getMessage() for record in caplog.records] == ["before 0", "before 1", "before 2"]
    assert vars(caplog.records[0])["run_id"] == "run-1"
    caplog.clear()
    live: Invocation = invocation(body)
    live.lead = lead
    live.start(driver.journal[:1])
    live.resume(driver.journal[1:2])
    assert [record.getMessage() for record in caplog.records] == (["before 1", "before 2"] if lead else [])


def test_a_body_that_cancels_itself_has_failed() -> None:
    async def body(ctx: Context, step: Step) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await step.run("a", one)

    outcome = invocation(body).start([]).outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type == "CancelledError"
