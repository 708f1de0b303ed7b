"""`stepwire.testing.run`, tried with functions of every kind."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import stepwire
from stepwire.payload import Payload
from stepwire.testing import StuckError, SubstituteError, Takes, arun, run
from stepwire.testing.local import Finished

app = stepwire.App("shop")


@dataclass
class Receipt:
    number: int
    at: datetime


async def charge(amount: int) -> Receipt:
    await asyncio.sleep(0)
    return Receipt(amount, datetime(2030, 1, 1, tzinfo=UTC))


def ship(address: str, *, express: bool = False) -> str:
    return f"{address} {'express' if express else 'slow'}"


@app.function("order", trigger=stepwire.on_event("shop/order"))
async def order(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, Any]:
    receipt, label = await asyncio.gather(
        step.run("charge", charge, ctx.event.data["amount"]), step.run("ship", ship, "Berlin", express=True)
    )
    return {"year": receipt.at.year, "number": receipt.number, "label": label, "event": ctx.event.name}


@app.task("double")
def double(n: int) -> int:
    return 2 * n


def test_code_of_steps_really_runs_and_types_come_back():
    result = run(order, {"amount": 3})
    assert result.result() == {"year": 2030, "number": 3, "label": "Berlin express", "event": "shop/order"}
    assert [step.id for step in result.steps] == ["charge", "ship"]
    assert [step.ended for step in result.steps] == ["succeeded", "succeeded"]
    assert result.step("charge").output.number == 3
    assert result.duration == timedelta(0)
    assert result.replays_identically


async def test_it_runs_inside_of_a_running_loop_too():
    assert run(order, {"amount": 3}).output["number"] == 3


async def test_arun_uses_the_test_own_loop():
    loop = asyncio.get_running_loop()
    local = stepwire.App("local")

    async def same_loop() -> bool:
        return asyncio.get_running_loop() is loop

    @local.function("f")
    async def f(ctx: stepwire.Context, step: stepwire.Step) -> bool:
        return await step.run("same", same_loop)

    assert (await arun(f, app=local)).output is True


@pytest.mark.parametrize("function", [order, "order", app.functions["order"]])
def test_a_function_is_found_by_what_names_it(function: Any):
    assert run(function, {"amount": 3}, app=app).output["number"] == 3


def test_a_function_of_no_app_says_what_to_do():
    with pytest.raises(stepwire.StepwireError, match="belongs to no app of its module: say which with app="):
        run(charge)
    with pytest.raises(stepwire.StepwireError, match="app 'shop' has no function 'ordr'; it has 'order'"):
        run("ordr", app=app)


def test_replace_puts_a_value_or_code_in_the_place_of_a_step():
    result = run(
        order, {"amount": 3}, replace={"charge": Receipt(7, datetime(2031, 1, 1, tzinfo=UTC)), "ship": "label"}
    )
    assert result.output == {"year": 2031, "number": 7, "label": "label", "event": "shop/order"}

    async def other(amount: int) -> Receipt:
        return Receipt(amount * 100, datetime(2032, 1, 1, tzinfo=UTC))

    def another(address: str, *, express: bool) -> str:
        return f"{address}/{express}"

    result = run(order, {"amount": 3}, replace={"charge": other, "ship": another}, event_name="other")
    assert result.output == {"year": 2032, "number": 300, "label": "Berlin/True", "event": "other"}


def test_a_failing_attempt_is_tried_again_without_waiting():
    started = time.monotonic()
    result = run(order, {"amount": 3}, fail={"charge": [ConnectionError("down"), TimeoutError]})
    assert time.monotonic() - started < 2
    assert result.output["number"] == 3
    charged = result.step("charge")
    assert (charged.attempts, charged.ended) == (3, "succeeded")
    assert charged.failure is not None
    assert charged.failure.type == "TimeoutError"
    assert result.step("ship").attempts == 1
    assert timedelta(0) < result.duration < timedelta(seconds=3)


def test_a_step_that_always_fails_fails_the_run():
    result = run(order, {"amount": 3}, fail={"charge": ConnectionError("down")})
    assert isinstance(result.error, stepwire.StepError)
    assert (result.error.step, result.error.name, result.error.attempts) == ("charge", "ConnectionError", 5)
    assert result.output is None
    assert "down" in repr(result)
    with pytest.raises(stepwire.StepError, match="charge"):
        result.result()
    assert result.attempts == 1


def test_an_error_that_is_not_to_be_retried_is_not():
    result = run(order, {"amount": 3}, fail={"charge": stepwire.NonRetriableError("no such card")})
    assert result.step("charge").attempts == 1


def test_a_retry_after_sets_the_delay():
    result = run(order, {"amount": 3}, fail={"charge": [stepwire.RetryAfterError("busy", 3600)]})
    assert result.duration == timedelta(hours=1)


def make(body: Any, **options: Any) -> tuple[stepwire.App, Any]:
    local = stepwire.App("local")
    local.task("double")(double)
    local.function("f", trigger=stepwire.on_event("f"), **options)(body)
    return local, body


def run_body(body: Any, data: Any = None, *, options: dict[str, Any] | None = None, **more: Any) -> Any:
    local, function = make(body, **(options or {}))
    return run(function, data, app=local, **more)


def test_repetitions_are_told_apart_by_their_keys():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
        return [await step.run("ship", ship, str(n)) for n in range(3)]

    result = run_body(body, replace={"ship:1": "replaced"}, fail={"ship:2": [OSError()]})
    assert result.output == ["0 slow", "replaced", "2 slow"]
    assert [(step.index, step.attempts) for step in result.steps] == [(0, 1), (1, 1), (2, 2)]


def test_every_repetition_fails_as_often_as_the_list_is_long():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
        return await asyncio.gather(*[step.run("ship", ship, str(n)) for n in range(3)])

    assert [step.attempts for step in run_body(body, fail={"ship": [OSError()]}).steps] == [2, 2, 2]


def test_names_that_match_nothing_are_shown_with_what_there_is():
    with pytest.raises(SubstituteError) as caught:
        run(order, {"amount": 3}, replace={"chrage": 1}, fail={"ship:7": OSError()}, invoke={"other": 1})
    assert str(caught.value) == (
        "nothing matched replace={'chrage': …}, fail={'ship:7': …}, invoke={'other': …}; "
        "the run's steps are: 'charge', 'ship'; it invoked: none"
    )


def test_what_is_no_error_can_not_be_raised():
    with pytest.raises(SubstituteError, match="must be an exception or a list of exceptions, not 'down'"):
        run(order, {"amount": 3}, fail={"charge": "down"})  # type: ignore[dict-item]


def test_sleeps_and_timers_take_no_time():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
        order: list[str] = []

        async def nap(name: str, days: float) -> None:
            await step.sleep(name, timedelta(days=days))
            order.append(name)

        await asyncio.gather(nap("long", 3), nap("short", 1), nap("middle", 2))
        await asyncio.sleep(3600)
        await step.sleep_until("until", datetime(2030, 2, 1, tzinfo=UTC))
        return [*order, ctx.now().isoformat()]

    result = run_body(body)
    assert result.output == ["short", "middle", "long", "2030-02-01T00:00:00+00:00"]
    assert result.duration == timedelta(days=31)


def test_the_start_can_be_chosen():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> str:
        return ctx.now().isoformat()

    assert run_body(body, now=datetime(2040, 5, 6, tzinfo=UTC)).output == "2040-05-06T00:00:00+00:00"


def test_a_replacement_can_take_virtual_time():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> str:
        try:
            async with asyncio.timeout(60):
                return await step.run("ship", ship, "Berlin")
        except TimeoutError:
            return "late"

    assert run_body(body, replace={"ship": Takes(59, "in time")}).output == "in time"
    assert run_body(body, replace={"ship": Takes(59, ship)}).output == "Berlin slow"
    late = run_body(body, replace={"ship": Takes(61, "in time")})
    assert late.output == "late"
    assert late.step("ship").ended == "cancelled"
    assert late.duration == timedelta(seconds=60)


def test_timeouts_of_steps_and_attempts_fail_them():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
        seen = []
        for options in ({"timeout": 100}, {"attempt_timeout": 5, "retries": 1}):
            try:
                await step.run("ship", ship, "Berlin", **options)
            except stepwire.StepError as error:
                seen.append([error.name, error.attempts])
        return seen

    result = run_body(body, replace={"ship": Takes(1000)})
    assert result.output == [["StepTimeoutError", 1], ["StepTimeoutError", 2]]


def test_an_attempt_that_really_takes_too_long_is_cancelled():
    async def slow() -> None:
        await asyncio.sleep(60)

    def slow_thread() -> None:
        assert stepwire.current_attempt().wait_cancelled(60)

    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
        results = await asyncio.gather(
            step.run("slow", slow, attempt_timeout=0.05, retries=0),
            step.run("thread", slow_thread, attempt_timeout=0.2, retries=0),
            return_exceptions=True,
        )
        return [result.name for result in results]

    assert run_body(body).output == ["StepTimeoutError", "StepTimeoutError"]


def test_code_that_really_takes_long_meets_the_timeouts_around_it():
    async def slow() -> None:
        await asyncio.sleep(60)

    async def body(ctx: stepwire.Context, step: stepwire.Step) -> str:
        try:
            async with asyncio.timeout(0.5):
                await step.run("slow", slow)
        except TimeoutError:
            return "late"
        return "never"

    assert run_body(body).output == "late"


def test_a_function_that_takes_too_long_fails():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.sleep("nap", 100)

    result = run_body(body, options={"timeout": 10})
    assert isinstance(result.error, stepwire.RunFailedError)
    assert result.error.failure.type == "RunTimeoutError"
    assert result.duration == timedelta(seconds=10)


def test_events_are_given_to_those_who_wait_for_them():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
        first = await step.wait_for_event("paid", "paid", match={"order.id": 7})
        second = await step.wait_for_event("shipped", "shipped", timeout=100)
        third = await step.wait_for_event("late", "late", timeout=100)
        assert first is not None
        return [first.data, second and second.data, third]

    events = [
        ("paid", {"order": {"id": 8}}),
        ("paid", {"order": {"id": 7.0}}),
        ("shipped", "by air", 50),
        ("late", None, 151),
    ]
    result = run_body(body, events=events)
    assert result.output == [{"order": {"id": 7.0}}, "by air", None]
    assert result.duration == timedelta(seconds=150)
    assert [step.ended for step in result.steps] == ["succeeded", "succeeded", "timed out"]


def test_a_wait_that_nothing_ends_is_an_error_of_the_test():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.wait_for_event("paid", "paid")

    with pytest.raises(StuckError, match=r"'f' waits for wait_for_event 'paid': nothing can move.*events="):
        run_body(body)


def test_sent_events_are_recorded_and_end_waits():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> Any:
        wait = asyncio.create_task(step.wait_for_event("wait", "ping"))
        ids = await step.send_events("send", [("ping", {"n": 1}), stepwire.Event("pong", [2], id="mine")])
        event = await wait
        assert event is not None
        return [event.data, event.id == ids[0], ids[1]]

    result = run_body(body)
    assert result.output == [{"n": 1}, True, "mine"]
    assert [(event.name, event.data) for event in result.sent] == [("ping", {"n": 1}), ("pong", [2])]


def test_tasks_of_the_app_run_and_can_be_replaced():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> int:
        return await step.call("double", 4)

    assert run_body(body).output == 8
    assert run_body(body, replace={"double": lambda n: n * 100}).output == 400
    result = run_body(body, fail={"double": [OSError()]})
    assert (result.output, result.step("double").attempts) == (8, 2)


def test_a_task_that_others_have_must_be_replaced():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> int:
        return await step.call("triple", 4)

    with pytest.raises(SubstituteError, match=r"calls the task 'triple', but app 'local' has 'double'.*replace="):
        run_body(body)
    assert run_body(body, replace={"triple": lambda n: 3 * n}).output == 12


parents = stepwire.App("parents")


@parents.function("parent")
async def parent(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    try:
        return [await step.invoke("child", child, {"n": 1}), await step.invoke("other", "others/thing", 5)]
    except stepwire.StepError as error:
        return [error.step, error.name, error.attempts]


@parents.function("child", retries=1)
async def child(ctx: stepwire.Context, step: stepwire.Step) -> int:
    await step.sleep("nap", 10)
    return await step.run("work", double, ctx.event.data["n"])


def test_invoked_functions_run_or_are_replaced():
    result = run(parent, invoke={"others/thing": lambda data: data * 2})
    assert result.output == [2, 10]
    assert result.duration == timedelta(seconds=10)
    result = run(parent, invoke={"child": 100, "thing": 6})
    assert (result.output, result.duration) == ([100, 6], timedelta(0))


def test_a_failing_child_fails_the_step_that_invoked_it():
    result = run(parent, fail={"work": OSError("disk")}, invoke={})
    assert result.output == ["child", "StepError", 1]
    result = run(parent, fail={"child": OSError("disk")})
    assert result.output == ["child", "OSError", 1]


def test_an_unknown_function_fails_the_step_as_the_executor_does():
    assert run(parent).output == ["other", "FunctionNotFoundError", 1]


def test_functions_that_invoke_each_other_in_a_circle_come_to_an_end():
    local = stepwire.App("circle")

    @local.function("f", retries=0)
    async def f(ctx: stepwire.Context, step: stepwire.Step) -> Any:
        try:
            return await step.invoke("again", "f")
        except stepwire.StepError as error:
            return error.name

    assert run(f, app=local).output == "InvokeDepthError"


def test_a_body_that_raises_is_tried_again_over_the_same_journal():
    done: list[str] = []

    def once(name: str) -> str:
        done.append(name)
        return name

    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
        before = await step.run("before", once, "before")
        beside = asyncio.create_task(step.run("beside", once, "beside"))
        await step.sleep("nap", 0.001)
        if ctx.attempt < 3:
            raise OSError("flaky body")
        return [before, await beside]

    result = run_body(body, replace={"beside": Takes(100, once)})
    assert result.output == ["before", "beside"]
    assert result.attempts == 3
    assert done == ["before", "beside"]


def test_a_body_that_always_raises_fails_by_the_function_own_policy():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        raise OSError("hopeless")

    result = run_body(body, options={"retries": 2})
    assert isinstance(result.error, OSError)
    assert result.attempts == 3


def test_a_body_whose_steps_depend_on_chance_does_not_replay():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.run("first", ship, "a")
        await step.run(f"step-{random.random()}", ship, "b")

    with pytest.raises(stepwire.NonDeterminismError, match=r"'f' does not replay identically.*test_runner\.py:\d+"):
        run_body(body)


def test_a_body_whose_output_depends_on_the_clock_does_not_replay():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> float:
        await step.run("first", ship, "a")
        return time.perf_counter()

    with pytest.raises(stepwire.NonDeterminismError, match="take clocks, random numbers and I/O into steps"):
        run_body(body)


def test_a_body_whose_inputs_depend_on_chance_does_not_replay():
    numbers = itertools.count()

    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.call("double", next(numbers))

    with pytest.raises(stepwire.NonDeterminismError, match="found task 'double'"):
        run_body(body)


def test_a_step_whose_arguments_depend_on_chance_does_not_replay():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.run("ship", ship, f"street {random.random()}")

    with pytest.raises(stepwire.NonDeterminismError, match="found closure 'ship'"):
        run_body(body)


def test_arguments_that_no_two_replays_share_are_not_compared():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> int:
        return await step.run("len", len, {object()}) + await step.run("nan", lambda n: 1, float("nan"))

    assert run_body(body).output == 2


def test_a_run_of_many_results_replays_from_each_point():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> int:
        async def chain(n: int) -> int:
            first = await step.run("first", double, n)
            await asyncio.sleep(n)
            return await step.run("second", double, first)

        chains = [asyncio.create_task(chain(n)) for n in range(20)]
        numbers = [await each for each in asyncio.as_completed(chains)]
        first, rest = await asyncio.wait(
            [asyncio.create_task(chain(n)) for n in range(5)], return_when=asyncio.FIRST_COMPLETED
        )
        return sum(numbers) + len(first) + len(rest)

    assert run_body(body).output == 4 * 190 + 5


def test_a_sync_function_runs_its_branches_side_by_side():
    def body(ctx: stepwire.Context, step: stepwire.SyncStep) -> list[int]:
        return step.parallel(*[lambda n=n: step.run("second", double, step.run("first", double, n)) for n in range(5)])

    result = run_body(body, fail={"first:3": [OSError()]})
    assert result.output == [0, 4, 8, 12, 16]
    assert {step.ended for step in result.steps} == {"succeeded"}


def test_sync_steps_that_wait_for_each_other_run_at_the_same_time():
    meeting = threading.Barrier(3, timeout=30)

    def meet(n: int) -> int:
        meeting.wait()
        return n

    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
        return await asyncio.gather(*[step.run("meet", meet, n) for n in range(3)])

    assert run_body(body).output == [0, 1, 2]


def test_quick_sync_steps_end_in_the_order_in_which_they_began():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
        tasks = [asyncio.create_task(step.run("double", double, n)) for n in range(20)]
        return [await each for each in asyncio.as_completed(tasks)]

    assert run_body(body).output == [2 * n for n in range(20)]


def test_step_code_knows_its_attempt():
    def who() -> list[Any]:
        attempt = stepwire.current_attempt()
        return [attempt.run_id, attempt.step, attempt.index, attempt.number]

    async def body(ctx: stepwire.Context, step: stepwire.Step) -> Any:
        return [ctx.run_id, await step.run("who", who)]

    result = run_body(body, fail={"who": [OSError()]}, seed=5)
    assert result.output == ["test-run-5", ["test-run-5", "who", 0, 2]]


def test_the_loser_of_a_race_is_cancelled_and_told():
    told = threading.Event()

    def sleepy() -> None:
        if stepwire.current_attempt().wait_cancelled(30):
            told.set()

    async def body(ctx: stepwire.Context, step: stepwire.Step) -> str:
        return await step.parallel(lambda: step.run("sleepy", sleepy), lambda: step.run("ship", ship, "a"), race=True)

    result = run_body(body)
    assert result.output == "a slow"
    assert result.step("sleepy").ended == "cancelled"
    assert told.wait(30)


def test_what_can_not_be_encoded_fails_the_step():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.run("object", lambda: object())

    result = run_body(body)
    assert isinstance(result.error, stepwire.StepError)
    assert (result.error.name, result.error.attempts) == ("EncodingError", 1)


def test_steps_without_code_can_not_be_replaced():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.wait_for_event("paid", "paid")

    with pytest.raises(SubstituteError, match=r"step 'paid' is a wait_for_event.*give the event in events="):
        run_body(body, replace={"paid": 1})


def test_a_codec_that_never_encodes_the_same_way_twice_is_no_divergence():
    numbers = itertools.count()

    class Salted:
        def encode(self, payload: Payload) -> Payload:
            return Payload(b"%d:%s" % (next(numbers), payload.data), "salted", {"was": payload.encoding})

        def decode(self, payload: Payload) -> Payload:
            return Payload(payload.data.partition(b":")[2], payload.metadata["was"])

    local = stepwire.App("secret", codec=Salted())

    @local.function("f")
    async def f(ctx: stepwire.Context, step: stepwire.Step) -> int:
        return await step.run("double", double, await step.invoke("g", "g", ctx.event.data))

    @local.function("g")
    async def g(ctx: stepwire.Context, step: stepwire.Step) -> int:
        return ctx.event.data + 1

    assert run(f, 2, app=local).output == 6


async def test_the_order_in_which_finished_steps_are_taken_can_be_chosen():
    from stepwire.replay.model import Event
    from stepwire.testing import replays
    from stepwire.testing.substitutes import Substitutes
    from stepwire.testing.world import World

    local = stepwire.App("orders")

    @local.function("f")
    async def f(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
        tasks = [asyncio.create_task(step.run("double", double, n)) for n in range(3)]
        return [await each for each in asyncio.as_completed(tasks)]

    def last(finished: list[Finished]) -> int:
        return len(finished) - 1

    replacements = Substitutes({"double:0": 0, "double:1": 2, "double:2": 4}, {}, {})
    world = World(local, replacements, now=0.0, schedule=last)
    ended = await world.execute(local.functions["f"], Event("e", "e", Payload(b"null"), 0.0))
    assert world.values.decode(ended.ended.output) == [4, 2, 0]
    replays.check(ended, world.invocation, opaque=False)


def test_an_event_whose_id_was_used_before_is_none_as_on_an_executor():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
        await step.send_events("send", [stepwire.Event("paid", 1, id="p"), stepwire.Event("paid", 1, id="p")])
        found = await step.wait_for_event("one", "paid", match={})
        other = await step.wait_for_event("two", "done", timeout=60)
        return [found.data, other]

    again = [stepwire.Event("done", 1, id="p")]
    assert run_body(body, events=again).output == [1, None]


def test_the_id_of_an_invoked_run_tells_nothing_of_the_order_in_which_runs_began():
    local = stepwire.App("ids")

    @local.function("f")
    async def f(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
        return await asyncio.gather(step.invoke("left", "g"), step.invoke("right", "g"))

    @local.function("g")
    async def g(ctx: stepwire.Context, step: stepwire.Step) -> str:
        return ctx.run_id

    assert run(f, app=local).output == ["test-run-0/left", "test-run-0/right"]


def test_an_error_has_no_cause_that_is_not_its_own():
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.run("fails", flaky_once, retries=0)

    def flaky_once() -> None:
        raise stepwire.NonRetriableError("no")

    result = run_body(body)
    assert result.step("fails").failure.cause is None
    assert result.error.__context__ is None


def test_the_body_logs_once(caplog: pytest.LogCaptureFixture):
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.run("double", double, 1)
        ctx.logger.warning("doubled")

    run_body(body)
    assert [record.getMessage() for record in caplog.records] == ["doubled"]


def test_a_replacement_of_a_wrong_type_is_the_error_of_the_run_and_names_the_step():
    def price() -> int:
        return 7

    app = stepwire.App("typed")

    @app.function("f")
    async def typed(ctx: stepwire.Context, step: stepwire.Step) -> str:
        return str(await step.run("price", price, retries=0))

    ended = run(typed, app=app, replace={"price": "many"})
    assert ended.output is None
    assert ended.error is not None
    assert "'price'" in str(ended.error)


def test_an_output_of_a_wrong_type_is_the_error_of_the_run():
    app = stepwire.App("typed")

    @app.function("f", retries=0)
    async def typed(ctx: stepwire.Context, step: stepwire.Step) -> int:
        return "seven"  # type: ignore[return-value]

    ended = run(typed, app=app)
    assert ended.error is not None
    assert "'f'" in str(ended.error)


def test_an_input_that_a_task_does_not_take_fails_its_step():
    app = stepwire.App("typed")

    @app.task("double")
    def double(number: int) -> int:
        return number * 2

    @app.function("f")
    async def typed(ctx: stepwire.Context, step: stepwire.Step) -> int:
        value: int = await step.call("double", "seven", retries=0)
        return value

    ended = run(typed, app=app)
    assert isinstance(ended.error, stepwire.StepError)
    assert ended.error.step == "double"
    assert "task 'double'" in str(ended.error)


def test_names_that_match_nothing_are_not_asked_for_in_a_run_that_failed():
    app = stepwire.App("fails")

    @app.function("f", retries=0)
    async def fails(ctx: stepwire.Context, step: stepwire.Step) -> None:
        raise ValueError("before the step")

    ended = run(fails, app=app, replace={"later": 1})
    assert isinstance(ended.error, ValueError)
