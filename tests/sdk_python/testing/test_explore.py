"""`stepwire.testing.explore`: what is right under all schedules passes, planted bugs of each family are found."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stepwire
from stepwire import Context, Step, SyncStep
from stepwire.errors import NonDeterminismError, StepwireError
from stepwire.testing import (
    Exploration,
    ScheduleError,
    StuckError,
    SubstituteError,
    Takes,
    TestRun,
    aexplore,
    explore,
)
from stepwire.testing.trials import outcome
from tests.sdk_python.replay import constructs

APP = "explored"
DOCS = Path(__file__).parents[3] / "docs" / "functions-and-steps.md"


def explored(body: Callable[..., Any], data: Any = None, app: stepwire.App | None = None, **more: Any) -> Exploration:
    local = app or stepwire.App(APP)
    local.function("f")(body)
    return explore("f", data, app=local, **more)


def difference(body: Callable[..., Any], data: Any = None, **more: Any) -> ScheduleError:
    with pytest.raises(ScheduleError) as caught:
        explored(body, data, **more)
    return caught.value


async def double(n: int) -> int:
    return 2 * n


def twice(n: int) -> int:
    return 2 * n


async def collecting(ctx: Context, step: Step) -> list[int]:
    """Wrong: collects in the order of completion."""
    collected: list[int] = []

    async def branch(n: int) -> None:
        collected.append(await step.run("double", double, n))

    await asyncio.gather(*[branch(n) for n in range(3)])
    return collected


async def remembering(ctx: Context, step: Step) -> int:
    """Wrong: what a step leaves in memory is gone when the body begins anew."""
    seen: list[int] = []

    async def look(n: int) -> int:
        seen.append(n)
        return n

    await asyncio.gather(step.run("look", look, 1), step.run("look", look, 2))
    return await step.run("sum", lambda: sum(seen))


# What is right.


async def fan_out(ctx: Context, step: Step) -> list[int]:
    doubled = await asyncio.gather(*[step.run("double", double, n) for n in range(4)])
    return [await step.run("sum", sum, doubled), *doubled]


def sync_fan_out(ctx: Context, step: SyncStep) -> list[int]:
    def branch(n: int) -> int:
        return step.run("again", twice, step.run("double", twice, n))

    return step.parallel(*[lambda n=n: branch(n) for n in range(3)])


async def grouped(ctx: Context, step: Step) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(step.run("double", double, n)) for n in range(3)]
        nap = group.create_task(step.sleep("nap", 5))
    assert nap.done()
    return sorted(task.result() for task in tasks)


@pytest.mark.parametrize("body", [fan_out, sync_fan_out, grouped], ids=lambda body: body.__name__)
def test_what_is_right_ends_the_same_way_under_every_schedule(body: Callable[..., Any]) -> None:
    result = explored(body, schedules=80)
    assert result.schedules == 80
    assert result.outcomes == 1
    assert min(result.orders, result.crashes, result.repeats, result.duplicates) > 5


def test_few_orders_are_all_tried() -> None:
    result = explored(fan_out, schedules=100)
    assert result.exhaustive
    assert result.orders == 24
    assert not explored(fan_out, schedules=20).exhaustive


def test_every_order_is_distinct_and_the_numbers_can_be_read() -> None:
    async def two(ctx: Context, step: Step) -> list[int]:
        return await asyncio.gather(step.run("a", double, 1), step.run("b", double, 2))

    result = explored(two, schedules=30)
    assert result.orders == 2
    assert repr(result).startswith("<Exploration: 30 schedules, all 2 orders of completion, ")
    assert "1 outcome;" in repr(result)


def test_five_hundred_schedules_of_ten_steps_take_seconds() -> None:
    async def ten(ctx: Context, step: Step) -> list[int]:
        return await asyncio.gather(*[step.run("double", double, n) for n in range(10)])

    began = time.process_time()
    assert explored(ten).schedules == 500
    assert time.process_time() - began < 6  # it is a third of that on a slow machine


def test_retries_failures_and_errors_are_outcomes_like_others() -> None:
    async def body(ctx: Context, step: Step) -> None:
        await asyncio.gather(step.run("flaky", double, 1), step.run("other", double, 2))
        raise stepwire.NonRetriableError("the end")

    result = explored(body, schedules=60, fail={"flaky": [OSError("once"), OSError("twice")]})
    assert result.outcomes == 1


def test_a_body_that_is_tried_again_goes_on_with_what_is_recorded() -> None:
    calls = itertools.count()

    async def body(ctx: Context, step: Step) -> int:
        value = await step.run("double", double, 4)
        if ctx.attempt == 1:
            raise OSError("the first try fails")
        return value + await step.run("more", double, 1)

    assert explored(body, schedules=40, before=lambda: next(calls)).outcomes == 1
    assert next(calls) == 40


def test_waits_sends_invokes_and_timeouts_stand_every_schedule() -> None:
    app = stepwire.App(APP)

    @app.function("child")
    async def child(ctx: Context, step: Step) -> list[str]:
        parts = await asyncio.gather(*[step.run("part", double, n) for n in range(2)])
        return [str(sum(parts)), str(ctx.uuid4())]

    async def body(ctx: Context, step: Step) -> list[Any]:
        left, right, paid, sent = await asyncio.gather(
            step.invoke("left", child),
            step.invoke("right", child),
            step.wait_for_event("paid", "paid", match={"order": 7}, timeout=60),
            step.send_events("tell", [stepwire.Event("told", 1)]),
        )
        try:
            async with asyncio.timeout(10):
                await step.wait_for_event("never", "never")
        except TimeoutError:
            late = await step.run("late", lambda: "late")
        return [left, right, paid.data, len(sent), late]

    result = explored(body, app=app, schedules=120, events=[("paid", {"order": 7}), ("paid", {"order": 8})])
    assert result.outcomes == 1
    assert result.duplicates > 20


def test_steps_that_take_virtual_time_begin_anew_after_a_crash() -> None:
    async def body(ctx: Context, step: Step) -> list[int]:
        return await asyncio.gather(step.run("slow", double, 1), step.run("quick", double, 2))

    assert explored(body, schedules=30, replace={"slow": Takes(5, then=2)}).outcomes == 1


def test_a_timeout_of_a_step_is_no_report_that_could_be_lost() -> None:
    async def body(ctx: Context, step: Step) -> str:
        try:
            await step.run("slow", double, 1, timeout=5)
        except stepwire.StepError as error:
            return error.name
        return "in time"

    assert explored(body, schedules=30, replace={"slow": Takes(60, then=2)}).outcomes == 1


def test_code_that_really_takes_long_is_passed_by_after_it_has_been_waited_for_once() -> None:
    async def slow() -> str:
        await asyncio.sleep(60)
        return "slow"

    async def body(ctx: Context, step: Step) -> Any:
        return await step.parallel(step.run("slow", slow), step.run("quick", double, 1), race=True)

    began = time.monotonic()
    assert explored(body, schedules=50).outcomes == 1
    assert time.monotonic() - began < 8  # to wait each time would be 12


def test_code_that_takes_a_moment_can_come_first_and_last() -> None:
    async def moment(n: int) -> int:
        await asyncio.sleep(0.02 if n else 0)
        return n

    async def body(ctx: Context, step: Step) -> list[int]:
        return await asyncio.gather(*[step.run("moment", moment, n) for n in (1, 0, 1)])

    result = explored(body, schedules=30)
    assert (result.orders, result.exhaustive) == (6, True)


def test_timers_that_end_at_the_same_time_end_in_each_order() -> None:
    async def body(ctx: Context, step: Step) -> None:
        await asyncio.gather(step.sleep("a", 5), step.sleep("b", 5), step.sleep("later", 6))

    result = explored(body, schedules=30)
    assert (result.orders, result.exhaustive) == (2, True)


def test_a_step_that_waits_for_its_next_attempt_has_nothing_to_lose() -> None:
    calls: list[int] = []

    async def flaky() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("once")
        return len(calls)

    async def body(ctx: Context, step: Step) -> list[int]:
        return await asyncio.gather(step.run("flaky", flaky), step.run("other", double, 1))

    def waited(run: TestRun) -> Any:
        return (calls, run.duration, run.step("flaky").attempts)

    assert explored(body, before=calls.clear, same=waited, schedule="crash:other").outcomes == 1


def test_bodies_log_under_the_plain_schedule_only(caplog: pytest.LogCaptureFixture) -> None:
    async def body(ctx: Context, step: Step) -> None:
        await step.run("double", double, 1)
        ctx.logger.warning("doubled")

    explored(body, schedules=20)
    assert [record.getMessage() for record in caplog.records] == ["doubled"]


async def test_it_runs_inside_of_a_running_loop_and_on_the_test_own() -> None:
    assert explored(fan_out, schedules=5).schedules == 5
    loop = asyncio.get_running_loop()
    local = stepwire.App(APP)

    async def same_loop() -> bool:
        return asyncio.get_running_loop() is loop

    @local.function("f")
    async def f(ctx: Context, step: Step) -> bool:
        return await step.run("same", same_loop)

    cleared = []

    async def before() -> None:
        cleared.append(await same_loop())

    assert (await aexplore(f, app=local, schedules=10, before=before)).outcomes == 1
    assert cleared == [True] * 10


# Planted bugs.


def test_a_result_in_the_order_of_completion_is_found_at_once() -> None:
    error = difference(collecting, schedules=3)
    assert error.schedule in ("take:double:1", "take:double:2")


def test_state_shared_by_step_code_is_found_by_a_crash() -> None:
    error = difference(remembering, schedules=4)
    assert [word.partition(":")[0] for word in error.schedule.split()] == ["crash"]


def test_an_attempt_that_runs_again_runs_the_code_of_the_body_that_has_begun_anew() -> None:
    async def body(ctx: Context, step: Step) -> int:
        seen: list[int] = []
        await step.run("look", lambda: seen.append(1))
        _, count = await asyncio.gather(step.run("other", double, 1), step.run("count", lambda: len(seen)))
        return count

    assert difference(body, schedule="crash:other").schedule == "crash:other"


def test_a_replay_that_finds_more_than_the_run_has_found_is_no_wait_for_ever() -> None:
    app = stepwire.App(APP)
    calls: list[int] = []

    @app.function("child")
    async def child(ctx: Context, step: Step) -> int:
        return await step.run("call", lambda: calls.append(1)) or 1

    async def body(ctx: Context, step: Step) -> int:
        kid = asyncio.create_task(step.invoke("kid", "child"))
        if len(calls) > 1:
            await step.run("extra", double, 1)
        return await kid

    error = difference(body, app=app, before=calls.clear, schedule="lost:kid/call crash:kid/call")
    assert isinstance(error.__cause__, NonDeterminismError)


def test_a_step_that_is_not_idempotent_is_found_by_a_lost_report() -> None:
    ledger: list[int] = []

    async def charge(amount: int) -> str:
        ledger.append(amount)
        return "charged"

    async def body(ctx: Context, step: Step) -> str:
        return await step.run("charge", charge, 3)

    error = difference(body, schedules=5, before=ledger.clear, same=lambda run: ledger)
    assert error.schedule == "lost:charge"
    assert "same= gave [3] for the plain schedule" in str(error)
    assert "and [3, 3] for the other one" in str(error)


def test_the_loser_of_a_race_that_leaks_into_the_result_is_found() -> None:
    async def body(ctx: Context, step: Step) -> list[int]:
        asked: list[int] = []

        async def ask(n: int) -> int:
            answer = await step.run("ask", double, n)
            asked.append(answer)
            return 1

        await step.parallel(*[lambda n=n: ask(n) for n in range(3)], race=True)
        return asked

    assert difference(body, schedules=3).schedule.startswith("take:ask:")


def test_the_first_of_several_is_found_and_can_be_allowed() -> None:
    async def body(ctx: Context, step: Step) -> int:
        tasks = [asyncio.create_task(step.run("d", double, n)) for n in range(3)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()

    assert "If both ends are right, as in a race" in str(difference(body, schedules=3))
    assert explored(body, schedules=40, same=None, expect=lambda run: run.output in (0, 2, 4)).outcomes == 3
    with pytest.raises(ScheduleError, match=r"fails the test's condition: expect= gave False"):
        explored(body, schedules=40, same=None, expect=lambda run: run.output in (0, 2))


@pytest.mark.parametrize("read", [random.random, time.time_ns])
def test_random_numbers_and_clocks_in_the_body_are_non_determinism(read: Callable[[], float]) -> None:
    async def body(ctx: Context, step: Step) -> str:
        return await step.run(f"step {read()}", lambda: "x")

    with pytest.raises(NonDeterminismError):
        explored(body, schedules=1)


def test_steps_in_the_order_of_a_set_are_non_determinism() -> None:
    class Item:
        def __init__(self, n: int) -> None:
            self.n = n

    made: list[Item] = []

    async def body(ctx: Context, step: Step) -> list[int]:
        items = {Item(n) for n in range(12)}
        made.extend(items)  # no two replays have the same addresses
        return [await step.run(f"item {item.n}", double, item.n) for item in items]

    with pytest.raises(NonDeterminismError):
        explored(body, schedules=1)


def test_a_body_that_does_something_else_once_a_step_has_run_twice_is_found() -> None:
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)

    async def body(ctx: Context, step: Step) -> None:
        extra = asyncio.create_task(step.run("extra", double, 1)) if len(calls) > 1 else None
        await step.run("call", call)
        await step.run("last", double, 1)
        if extra is not None:
            await extra

    error = difference(body, schedules=5, before=calls.clear)
    assert error.schedule == "lost:call"
    assert isinstance(error.__cause__, NonDeterminismError)


def test_an_invoking_run_that_does_something_else_after_a_crash_is_found() -> None:
    app = stepwire.App(APP)
    calls: list[int] = []

    @app.function("child")
    async def child(ctx: Context, step: Step) -> int:
        return await step.run("call", lambda: calls.append(1)) or 1

    async def body(ctx: Context, step: Step) -> int:
        if len(calls) > 1:
            await step.run("extra", double, 1)
        return await step.invoke("kid", "child")

    error = difference(body, app=app, before=calls.clear, schedule="lost:kid/call crash:kid/call")
    assert "function 'f' does not replay identically" in str(error)
    assert "found closure 'extra'" in str(error)


def test_step_code_that_gives_something_else_each_time_is_told_from_schedules() -> None:
    counter = itertools.count()

    async def body(ctx: Context, step: Step) -> int:
        return await step.run("next", lambda: next(counter))

    error = difference(body)
    assert error.schedule == ""
    assert "ended differently under the same schedule" in str(error)


def test_a_bug_that_needs_a_certain_order_and_a_crash_is_found_and_shrunk_to_both() -> None:
    async def body(ctx: Context, step: Step) -> list[int]:
        order: list[int] = []
        notes: list[str] = []

        async def branch(n: int) -> int:
            value = await step.run("d", double, n)
            order.append(n)
            return value

        async def note() -> None:
            notes.append("x")

        doubled = await asyncio.gather(*[branch(n) for n in range(3)])
        await step.run("note", note)
        return [*doubled, await step.run("read", lambda: len(notes) if order[0] == 2 else 1)]

    error = difference(body, schedules=300)
    assert sorted(error.schedule.split()) == ["crash:note", "take:d:2"]


# How it is shown.


def test_the_error_shows_both_schedules_and_how_to_see_it_again() -> None:
    error = difference(collecting, seed=3)
    assert str(error).splitlines()[:15] == [
        "function 'f' ends differently (schedule 3, shrunk to 1 change)",
        "",
        "the plain schedule:",
        "   1. double gave 0",
        "   2. double:1 gave 2",
        "   3. double:2 gave 4",
        "      returned [0,2,4]",
        "",
        "the other one, schedule='take:double:1':",
        "   1. double:1 gave 2",
        "   2. double gave 0",
        "   3. double:2 gave 4",
        "      returned [2,0,4]",
        "",
        "To see it again: explore('f', …, schedule='take:double:1')",
    ]
    assert str(error).splitlines()[15].startswith("Steps that run side by side complete in any order")
    assert all(len(line) <= 110 for line in str(error).splitlines())


def test_the_timeline_tells_of_crashes_lost_reports_and_duplicates() -> None:
    schedule = "take:double:1 crash:double:1 lost:double:2 twice:double twice-event"
    error = difference(collecting, schedule=schedule)
    assert error.schedule == schedule
    shown = str(error)
    assert "1. event 'stepwire/function.invoked' arrived again, and started nothing" in shown
    assert (
        "the worker was lost after double:1 was recorded, and the body replayed; code of double, double:2 runs again"
        in shown
    )
    assert "double:2: the report of its attempt was lost, so its code runs again" in shown
    assert "double: its result arrived again, and was refused" in shown


def test_a_shown_schedule_makes_the_same_difference_again_and_no_other_does() -> None:
    for body in (collecting, remembering):
        error = difference(body)
        assert str(difference(body, schedule=error.schedule)).splitlines()[2:] == str(error).splitlines()[2:]
        assert explored(body, schedule="").schedules == 2


def test_a_schedule_says_when_the_second_report_of_a_step_is_taken() -> None:
    assert "returned [2,0,4]" in str(difference(collecting, schedule="lost:double take:double take:double:1"))
    assert explored(collecting, schedule="lost:double take:double take:double").outcomes == 1


def test_the_same_seed_tries_the_same_schedules() -> None:
    def counted(seed: int) -> tuple[int, ...]:
        result = explored(fan_out, schedules=60, seed=seed)
        return (result.orders, result.crashes, result.repeats, result.duplicates)

    assert counted(1) == counted(1)
    assert counted(1) != counted(2)


def test_steps_of_invoked_functions_are_named_with_the_invoking_step() -> None:
    async def body(ctx: Context, step: Step) -> Any:
        return await step.invoke("call it", "child")

    def with_child() -> stepwire.App:
        app = stepwire.App(APP)
        app.function("child")(collecting)
        return app

    error = difference(body, app=with_child())
    assert error.schedule == "'take:call it/double:1'"
    assert difference(body, app=with_child(), schedule=error.schedule).schedule == error.schedule


@pytest.mark.parametrize("text", ["order:a", "take", "'take:a", "crash:a lost"])
def test_a_schedule_that_can_not_be_read_says_why(text: str) -> None:
    with pytest.raises(StepwireError, match=r"schedule=.*can't be read"):
        explored(fan_out, schedule=text)


def test_a_function_that_waits_for_what_never_comes_says_so() -> None:
    async def body(ctx: Context, step: Step) -> None:
        await step.wait_for_event("paid", "paid")

    with pytest.raises(StuckError, match="waits for wait_for_event 'paid'"):
        explored(body)


def test_a_function_that_gets_stuck_under_some_schedule_only_is_shown() -> None:
    async def body(ctx: Context, step: Step) -> None:
        tasks = [asyncio.create_task(step.run("d", double, n)) for n in range(2)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if done.pop().result() == 2:
            await step.wait_for_event("never", "never")

    error = difference(body)
    assert "StuckError: function 'f' waits for wait_for_event 'never'" in str(error)
    assert isinstance(error.__cause__, StuckError)


def test_a_replacement_that_matches_nothing_is_told() -> None:
    with pytest.raises(SubstituteError, match="nothing matched"):
        explored(fan_out, replace={"doubel": 1})


def test_the_condition_is_asked_under_the_plain_schedule_too() -> None:
    with pytest.raises(ScheduleError, match="fails the test's condition: expect= raised AssertionError"):
        explored(fan_out, expect=lambda run: pytest.fail("no") if run.error else _refuse())


def _refuse() -> None:
    raise AssertionError("no")


def test_the_example_in_the_docs_gives_what_they_show() -> None:
    blocks = re.findall(r"```(?:python)?\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    number = next(number for number, block in enumerate(blocks) if "def test_bill" in block)
    names: dict[str, Any] = {}
    exec(blocks[number], names)
    with pytest.raises(ScheduleError) as caught:
        names["test_bill"]()
    assert str(caught.value) == blocks[number + 1].rstrip()


# Many functions.


def in_any_order(run: TestRun) -> Any:
    return sorted(map(str, run.output))


def followed_by_its_double(run: TestRun) -> bool:
    winner, after = run.output
    return after == 2 * winner


RACES: dict[str, Callable[[TestRun], Any]] = {
    "as_completed": in_any_order,
    "as_completed_of_a_set": in_any_order,
    "as_completed_of_branches": in_any_order,
    "queue_lock_semaphore_event": in_any_order,
    "race": followed_by_its_double,
    "race_whose_losers_clean_up": in_any_order,
    "sync_cancellation_with_a_step_in_finally": in_any_order,
    "sync_race": followed_by_its_double,
    "wait_first_completed": lambda run: sorted(run.output[::2]),
}
"""What must be the same of those that rightly take what comes first."""


@pytest.mark.parametrize("body", constructs.TABLE, ids=lambda body: body.__name__)
def test_every_construct_ends_the_same_way(body: Callable[..., Any]) -> None:
    app = stepwire.App(APP)
    if body is constructs.steps_of_every_kind:
        app.task("task")(lambda data: data)
        app.function("other")(constructs.gather)
    explored(body, app=app, schedules=40, same=RACES.get(body.__name__, outcome))


@pytest.mark.parametrize("name", RACES)
def test_a_race_without_a_projection_is_found(name: str) -> None:
    assert difference(getattr(constructs, name), schedules=40).schedule.startswith("take:")


Tree = int | list[Any]
trees = st.recursive(st.integers(0, 9), lambda inner: st.lists(inner, max_size=3), max_leaves=7)


@given(tree=trees, seed=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_no_tree_of_gathers_is_blamed(tree: Tree, seed: int) -> None:
    async def body(ctx: Context, step: Step) -> Any:
        async def walk(node: Tree, path: str) -> Any:
            if isinstance(node, int):
                return await step.run(f"leaf {path}", double, node)
            inner = await asyncio.gather(*[walk(each, f"{path}{n}") for n, each in enumerate(node)])
            return [inner, await step.run(f"node {path}", len, inner)]

        return await walk(tree, "")

    assert explored(body, schedules=25, seed=seed).outcomes == 1
