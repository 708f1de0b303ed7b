"""What the calls of Step and SyncStep plan, check and give."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import stepwire
from stepwire import Context, Payload, Retry, Step, SyncStep
from stepwire.replay.model import (
    Closure,
    Entry,
    Failure,
    Invoke,
    OutgoingEvent,
    Planned,
    Raised,
    Returned,
    SendEvents,
    Sleep,
    StepKey,
    StepKind,
    Task,
    TimedOut,
    WaitForEvent,
)
from tests.sdk_python.replay.driver import EMPTY, START, VALUES, Driver, invocation

NAN = float("nan")


def one() -> int:
    return 1


def record(step: Planned, outcome: Any, sequence: int = 1, at: float = START) -> Entry:
    return Entry(sequence, step.key, step.kind, outcome, at, 3, step.source)


def planned(code: Callable[[Step], Any], **limits: int) -> Planned:
    """Give the step that the code starts first."""

    async def body(ctx: Context, step: Step) -> Any:
        return await code(step)

    turn = invocation(body, **limits).start([])
    assert turn.outcome is None, turn.outcome
    return turn.found[0]


def given(code: Callable[[Step], Any], outcome: Any) -> Any:
    """Give what awaiting the step gives, once it has this outcome."""
    seen: list[Any] = []

    async def body(ctx: Context, step: Step) -> None:
        try:
            seen.append(await code(step))
        except stepwire.StepwireError as error:
            seen.append(error)

    live = invocation(body)
    step = live.start([]).found[0]
    assert isinstance(live.resume([record(step, outcome)]).outcome, Returned)
    return seen[0]


def test_a_closure_is_planned_with_its_options_and_its_line() -> None:
    step = planned(lambda step: step.run("a", one, retries=2, timeout=timedelta(minutes=1), attempt_timeout=5))
    assert step.key == StepKey("a", 0)
    assert (step.kind, step.retry) == (StepKind.CLOSURE, Retry(2))
    assert (step.step_timeout, step.attempt_timeout) == (60.0, 5.0)
    assert step.source.startswith("test_steps.py:")


def test_a_closure_carries_code_and_type() -> None:
    def add(left: int, *, right: int) -> int:
        return left + right

    for code in (
        lambda step: step.run("a", add, 2, right=3),
        lambda step: step.run("a", functools.partial(add, 2), right=3),
    ):
        target = planned(code).target
        assert isinstance(target, Closure)
        assert target.run() == 5
        assert target.output_type is int
    target = planned(lambda step: step.run("a", add, 2, output_type=float)).target
    assert isinstance(target, Closure)
    assert target.output_type is float


def test_the_other_kinds_are_planned() -> None:
    assert planned(lambda step: step.call("t", {"n": 1}, id="x")).target == Task("t", VALUES.encode({"n": 1}))
    assert planned(lambda step: step.call("t")).key == StepKey("t", 0)
    assert planned(lambda step: step.sleep("s", timedelta(hours=1))).target == Sleep(delay=3600.0)
    when = datetime(2023, 12, 1, tzinfo=UTC)
    assert planned(lambda step: step.sleep_until("s", when)).target == Sleep(until=when.timestamp())
    assert planned(lambda step: step.sleep_until("s", 5)).target == Sleep(until=5.0)
    assert planned(lambda step: step.invoke("i", "shop/ship", 1)).target == Invoke("shop", "ship", VALUES.encode(1))
    assert planned(lambda step: step.invoke("i", "ship")).target == Invoke("", "ship", VALUES.encode(None))
    events = [stepwire.Event("e", 1, "id", when), ("f", None)]
    assert planned(lambda step: step.send_events("s", events)).target == SendEvents(
        [OutgoingEvent("e", VALUES.encode(1), "id", when.timestamp()), OutgoingEvent("f", VALUES.encode(None))]
    )
    match = {"user.id": "u", "n": 1, "x": 1.5, "yes": True, "no": None}
    wait = planned(lambda step: step.wait_for_event("w", "paid", match=match, timeout=9)).target
    fields = {"user.id": '"u"', "n": "1", "x": "1.5", "yes": "true", "no": "null"}
    assert wait == WaitForEvent("paid", fields, 9.0)


def test_a_declared_function_is_invoked_by_what_was_declared() -> None:
    app = stepwire.App("shop")

    @app.function("ship")
    async def ship(ctx: Context, step: Step) -> tuple[int, ...]:
        return ()

    assert planned(lambda step: step.invoke("i", ship)).target == Invoke("shop", "ship", VALUES.encode(None))
    assert given(lambda step: step.invoke("i", ship), VALUES.encode([1, 2])) == (1, 2)
    assert given(lambda step: step.invoke("i", app.functions["ship"]), VALUES.encode([1, 2])) == (1, 2)


def test_results_come_from_the_payload_as_their_type_says() -> None:
    def pair() -> tuple[int, bytes]:
        return 1, b"x"

    stored = VALUES.encode((1, b"x"), tuple[int, bytes])
    assert given(lambda step: step.run("a", pair), stored) == (1, b"x")
    assert given(lambda step: step.run("a", lambda: pair()), stored) == [1, "eA=="]
    assert given(lambda step: step.call("t", output_type=tuple[int, bytes]), stored) == (1, b"x")
    assert given(lambda step: step.sleep("s", 1), EMPTY) is None
    assert given(lambda step: step.send_events("s", [("e", 1)]), VALUES.encode(["id-1"])) == ["id-1"]
    assert given(lambda step: step.wait_for_event("w", "e"), TimedOut()) is None
    text = json.dumps({"id": "i", "name": "e", "data": {"n": 1}, "time": "2023-12-01T00:00:00+00:00"})
    event = given(lambda step: step.wait_for_event("w", "e"), Payload(text.encode()))
    assert event == stepwire.ReceivedEvent("i", "e", {"n": 1}, datetime(2023, 12, 1, tzinfo=UTC))


def test_a_result_that_can_not_be_read_is_a_step_error_where_it_is_awaited() -> None:
    error = given(lambda step: step.run("a", one), VALUES.encode("text"))
    assert isinstance(error, stepwire.StepError)
    assert (error.step, error.index, error.name) == ("a", 0, "EncodingError")
    assert str(error).startswith(
        "step 'a' succeeded, but its result can't be read: EncodingError: the output of step 'a'"
    )


def test_a_failed_step_raises_all_that_is_known() -> None:
    failure = Failure("ValueError", "bad", "stack")
    error = given(lambda step: step.invoke("a", "other"), failure)
    assert isinstance(error, stepwire.StepError)
    assert (error.step, error.index, error.attempts, error.failure) == ("a", 0, 3, failure)
    assert (error.name, error.message, error.stack) == ("ValueError", "bad", "stack")


def test_a_step_error_that_the_body_lets_through_is_not_retried() -> None:
    async def alone(ctx: Context, step: Step) -> None:
        await step.run("a", one)

    async def in_a_group(ctx: Context, step: Step) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("a", one))

    async def as_a_cause(ctx: Context, step: Step) -> None:
        try:
            await step.run("a", one)
        except stepwire.StepError as error:
            raise ConnectionError("try again") from error

    for body, retryable in ((alone, False), (in_a_group, False), (as_a_cause, True)):
        live = invocation(body)
        step = live.start([]).found[0]
        outcome = live.resume([record(step, Failure("E", "e"))]).outcome
        assert isinstance(outcome, Raised)
        assert outcome.failure.retryable is retryable


INVALID: list[tuple[Callable[[Step], Any], str]] = [
    (lambda step: step.run("", one), "empty"),
    (lambda step: step.run(5, one), "must be a text"),
    (lambda step: step.run("stepwire.timer", one), "Stepwire's own"),
    (lambda step: step.run("\ud800", one), "lone surrogate"),
    (lambda step: step.run("x" * 1025, one), "--max-step-id-bytes=1024"),
    (lambda step: step.run("é" * 513, one), "1026 bytes"),
    (lambda step: step.run("a", one()), "can't be called"),
    (lambda step: step.run("a", one, retries=-1), "from 0 to 100"),
    (lambda step: step.run("a", one, retries=101), "from 0 to 100"),
    (lambda step: step.run("a", one, retries=True), "from 0 to 100"),
    (lambda step: step.run("a", one, retries=Retry(multiplier=0.5)), "multiplier"),
    (lambda step: step.run("a", one, timeout=-1), "negative"),
    (lambda step: step.run("a", one, attempt_timeout=NAN), "negative"),
    (lambda step: step.run("a", one, timeout="5"), "number of seconds"),
    (lambda step: step.sleep("s", -0.1), "negative"),
    (lambda step: step.sleep("s", NAN), "negative"),
    (lambda step: step.sleep("s", timedelta(days=367)), "--max-sleep"),
    (lambda step: step.sleep("s", float("inf")), "--max-sleep"),
    (lambda step: step.sleep_until("s", datetime(2023, 12, 1)), "no time zone"),
    (lambda step: step.sleep_until("s", NAN), "aware datetime"),
    (lambda step: step.sleep_until("s", "tomorrow"), "aware datetime"),
    (lambda step: step.sleep_until("s", datetime(2090, 1, 1, tzinfo=UTC)), "--max-sleep"),
    (lambda step: asyncio.sleep(400 * 86400), "--max-sleep"),
    (lambda step: step.call(""), "not empty"),
    (lambda step: step.send_events("s", []), "no events"),
    (lambda step: step.send_events("s", ["paid"]), "is no event"),
    (lambda step: step.send_events("s", [("", 1)]), "not empty"),
    (lambda step: step.invoke("i", "shop/"), "app/id"),
    (lambda step: step.invoke("i", "/ship"), "app/id"),
    (lambda step: step.invoke("i", one), "not declared"),
    (lambda step: step.wait_for_event("w", ""), "not empty"),
    (lambda step: step.wait_for_event("w", "e", match={"a": [1]}), "values are texts"),
    (lambda step: step.wait_for_event("w", "e", match={f"f{n}": n for n in range(17)}), "17 fields, but at most 16"),
    (lambda step: step.wait_for_event("w", "e", match={"é" * 129: 1}), "258 bytes and 1 names, but at most 256 bytes"),
    (lambda step: step.wait_for_event("w", "e", match={"." * 16: 1}), "17 names, but at most 256 bytes and 16 names"),
    (lambda step: step.wait_for_event("w", "e", match={"." * 100_000: 1}), "100001 names"),
    (
        lambda step: step.wait_for_event("w", "e", match={"a": "x" * 1_015}),
        "1025 bytes as JSON in ASCII, but at most 1024",
    ),
    (lambda step: step.wait_for_event("w", "e", match={"a": "é" * 200}), "1209 bytes as JSON in ASCII"),
    (lambda step: step.wait_for_event("w", "e", match={"a": NAN}), "values are texts"),
    (lambda step: step.wait_for_event("w", "e", match={"a": "\ud800"}), "lone surrogate"),
    (lambda step: step.wait_for_event("w", "e", match={5: 1}), "a path"),
    (lambda step: step.wait_for_event("w", "e", match="a=1"), "given paths"),
    (lambda step: step.wait_for_event("w", "e", timeout=-1), "negative"),
    (lambda step: step.map("m", one, [1], concurrency=0), "concurrency"),
    (lambda step: step.map("", one, []), "empty"),
    (lambda step: step.parallel(5), "no branch"),
    (lambda step: step.run("a", one, timeout=0), "the timeout of step 'a' is 0, but must be more"),
    (lambda step: step.run("a", one, attempt_timeout=timedelta(0)), "the attempt_timeout of step 'a'"),
    (lambda step: step.run("a", one, timeout=True), "the timeout of step 'a' is True"),
    (lambda step: step.run("a", one, timeout=10**400), "the timeout of step 'a' is inf s"),
    (lambda step: step.call("t", timeout=0), "the timeout of step 't' is 0"),
    (lambda step: step.invoke("i", "f", timeout=0), "the timeout of step 'i' is 0"),
    (lambda step: step.invoke("i", None), "invokes None"),
    (lambda step: step.invoke("i", 5), "invokes 5"),
    (lambda step: step.run("a", one, retries=Retry(initial_interval="1")), "initial_interval"),
    (lambda step: step.run("a", one, retries=Retry(multiplier=True)), "must be numbers"),
    (lambda step: step.run("a", one, retries="3"), "retries is '3'"),
    (lambda step: step.sleep("s", True), "is True"),
    (lambda step: step.sleep("s", None), "is None"),
    (lambda step: step.sleep_until("s", -1e300), "before the year 1"),
    (lambda step: step.sleep_until("s", -(10**400)), "aware datetime or Unix time"),
    (lambda step: step.sleep_until("s", False), "until False"),
    (lambda step: step.map("m", one, [1], concurrency="2"), "concurrency is '2'"),
    (lambda step: step.map("m", one, [1], concurrency=1.5), "concurrency is 1.5"),
    (lambda step: step.map("m", one, [1], concurrency=NAN), "concurrency is nan"),
    (lambda step: step.map("m", one, 5), "can't be iterated"),
    (lambda step: step.map("m", 5, []), "is to run 5"),
    (lambda step: step.send_events("s", 5), "not iterable"),
    (lambda step: step.send_events("s", [stepwire.Event(5)]), "the name of an event"),
    (lambda step: step.send_events("s", [stepwire.Event("e", id=5)]), "the id of event 'e'"),
    (lambda step: step.send_events("s", [stepwire.Event("e", time=1.0)]), "the time of event 'e'"),
    (lambda step: step.wait_for_event("w", "e", timeout="1h"), "the timeout of wait 'w'"),
    (lambda step: step.parallel(race=True), "at least one"),
    (lambda step: step.sleep("s"), "step.sleep: missing a required argument: 'duration'"),
    (lambda step: step.run("a"), "step.run: missing a required argument: 'fn'"),
    (lambda step: step.wait_for_event("w", "e", timout=1), "step.wait_for_event: got an unexpected keyword argument"),
    (lambda step: step.map("m", one), "step.map: missing a required argument: 'items'"),
]


@pytest.mark.parametrize(("code", "words"), INVALID, ids=[words for _, words in INVALID])
def test_what_is_not_allowed_is_refused_with_advice(code: Callable[[Step], Any], words: str) -> None:
    async def body(ctx: Context, step: Step) -> Any:
        return await code(step)

    turn = invocation(body).start([])
    assert list(turn.found) == []
    assert isinstance(turn.outcome, Raised)
    assert turn.outcome.failure.type == "InvalidStepError"
    assert not turn.outcome.failure.retryable
    assert words in turn.outcome.failure.message


@pytest.mark.parametrize("code", [lambda step: step.sleep("s"), lambda step: step.call("t", timout=1)])
def test_a_sync_body_is_told_of_arguments_that_are_missing_or_unknown_too(code: Callable[[SyncStep], Any]) -> None:
    def body(ctx: Context, step: SyncStep) -> Any:
        return code(step)

    outcome = invocation(body).start([]).outcome
    assert isinstance(outcome, Raised)
    assert (outcome.failure.type, outcome.failure.retryable) == ("InvalidStepError", False)


@pytest.mark.parametrize("step_id", ["🚀", "a\0b", "é" * 512, "x" * 1024, " ", "stepwire"])
def test_unusual_ids_are_fine(step_id: str) -> None:
    assert planned(lambda step: step.run(step_id, one)).key.id == step_id


def test_an_output_that_cant_be_encoded_fails_the_body_for_good() -> None:
    async def body(ctx: Context, step: Step) -> Any:
        return object()

    outcome = invocation(body).start([]).outcome
    assert isinstance(outcome, Raised)
    assert (outcome.failure.type, outcome.failure.retryable) == ("EncodingError", False)


@pytest.mark.parametrize("code", [one, None])
def test_too_many_steps_end_the_body_and_name_the_limit(code: Any) -> None:
    async def body(ctx: Context, step: Step) -> Any:
        starts = [step.run("a", one) if code else asyncio.sleep(5) for _ in range(11)]
        return await asyncio.gather(*starts)

    fits = invocation(body, max_steps=11)
    assert len(fits.start([]).found) == 11
    fits.close()
    turn = invocation(body, max_steps=10).start([])
    assert isinstance(turn.outcome, Raised)
    assert turn.outcome.failure.type == "TooManyStepsError"
    assert not turn.outcome.failure.retryable
    assert "step 11, over --max-steps=10" in turn.outcome.failure.message


def test_steps_of_a_step_are_refused() -> None:
    async def body(ctx: Context, step: Step) -> None:
        async def nested() -> Any:
            return await step.run("inner", one)

        waiting = step.run("waiting", one)

        async def smuggled() -> Any:
            return await waiting

        await asyncio.gather(step.run("nested", nested), step.run("smuggled", smuggled), return_exceptions=True)
        waiting.close()

    def sync_body(ctx: Context, step: SyncStep) -> None:
        step.run("nested", lambda: step.run("inner", one))

    for code in (body, sync_body):
        driver = Driver(code)
        driver.run()
        for entry in driver.journal:
            assert isinstance(entry.outcome, Failure)
            assert entry.outcome.type == "NestedStepError"
            assert not entry.outcome.retryable


def test_a_step_that_was_awaited_cant_be_awaited_again() -> None:
    async def body(ctx: Context, step: Step) -> str:
        call = step.run("a", one)
        await call
        try:
            await call
        except RuntimeError as error:
            return str(error)
        return ""

    outcome = Driver(body).run()
    assert isinstance(outcome, Returned)
    assert "awaited before" in VALUES.decode(outcome.output)


def test_map_keeps_to_its_concurrency_and_names_the_users_line() -> None:
    async def body(ctx: Context, step: Step) -> list[int]:
        return await step.map("m", lambda n: n * 2, iter(range(9)), concurrency=4, retries=0)

    driver = Driver(body)
    outcome = driver.run()
    assert outcome == Returned(VALUES.encode([n * 2 for n in range(9)]))
    assert len(driver.turns[0].found) == 4
    assert all(len(turn.found) <= 1 for turn in driver.turns[1:])
    assert {step.source.split(":")[0] for step in driver.plans.values()} == {"test_steps.py"}
    assert {step.retry for step in driver.plans.values()} == {Retry(0)}


def test_parallel_takes_arguments_a_tuple_or_a_list_and_plain_values() -> None:
    async def body(ctx: Context, step: Step) -> list[Any]:
        nothing = await step.parallel()
        listed = await step.parallel([lambda: step.run("a", one), step.run("b", one)])
        task = asyncio.create_task(step.run("c", one))
        return [nothing, listed, await step.parallel((lambda: 5, task))]

    assert Driver(body).run() == Returned(VALUES.encode([[], [1, 1], [5, 1]]))


def test_a_race_that_fails_first_raises() -> None:
    async def body(ctx: Context, step: Step) -> None:
        await step.parallel(lambda: step.run("a", one), lambda: step.run("b", one), race=True)

    live = invocation(body)
    first, second = live.start([]).found
    turn = live.resume([record(first, Failure("E", "lost"))])
    assert isinstance(turn.outcome, Raised)
    assert turn.outcome.failure.type == "StepError"
    assert live.was_cancelled(second.key)


def test_the_clock_stands_at_the_last_result_and_never_goes_back() -> None:
    times: list[float] = []

    async def body(ctx: Context, step: Step) -> None:
        loop = asyncio.get_running_loop()
        for n in range(3):
            times.append(loop.time())
            assert ctx.now() == datetime.fromtimestamp(loop.time(), UTC)
            await step.run(f"{n}", one)
        before = loop.time()
        await asyncio.sleep(10)
        times.append(loop.time() - before)

    live = invocation(body)
    turn = live.start([])
    for n, at in enumerate((START + 5, START + 2, START + 7), 1):
        turn = live.resume([record(turn.found[0], VALUES.encode(1), n, at)])
    assert turn.found[0].target == Sleep(delay=10.0)
    live.resume([record(turn.found[0], EMPTY, 4, START + 8)])
    assert times == [START, START + 5, START + 5, 10.0]


def test_timers_that_are_cancelled_in_their_turn_are_no_steps() -> None:
    async def body(ctx: Context, step: Step) -> None:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        async with asyncio.timeout(6):
            await step.run("a", one)
        await asyncio.sleep(7)

    live = invocation(body)
    first, timer = live.start([]).found
    assert (timer.key, timer.target) == (StepKey("stepwire.timer", 0), Sleep(delay=6.0))
    turn = live.resume([record(first, VALUES.encode(1))])
    assert list(turn.cancelled) == [timer.key]
    assert [step.key for step in turn.found] == [StepKey("stepwire.timer", 1)]


def test_a_step_that_is_cancelled_in_its_turn_is_not_reported_but_counts() -> None:
    async def body(ctx: Context, step: Step) -> None:
        task = asyncio.create_task(step.run("a", one))
        await asyncio.sleep(0)
        task.cancel()
        await step.run("a", one)

    live = invocation(body)
    turn = live.start([])
    assert [step.key for step in turn.found] == [StepKey("a", 1)]
    assert list(turn.cancelled) == []
    assert live.was_cancelled(StepKey("a", 0))
    assert live.closure(StepKey("a", 2)) is None
    assert not live.was_cancelled(StepKey("a", 1))


def test_the_context_tells_of_the_run() -> None:
    seen: list[Any] = []

    async def body(ctx: Context, step: Step) -> None:
        assert ctx.event is ctx.events[0]
        seen.extend((ctx.run_id, ctx.attempt, ctx.app, ctx.function_id, ctx.event.name, ctx.event.data))

    invocation(body, {"n": 1}).start([])
    assert seen == ["run-1", 1, "app", "body", "go", {"n": 1}]


def test_random_numbers_in_a_step_do_not_disturb_those_of_the_body() -> None:
    async def body(ctx: Context, step: Step) -> list[str]:
        await step.run("a", lambda: ctx.random.random())
        await step.run("b", lambda: str(ctx.uuid4()))
        return [str(ctx.uuid4()), str(ctx.uuid4())]

    driver = Driver(body)
    outcome = driver.run()
    assert invocation(body).start(driver.journal).outcome == outcome


def test_the_branches_of_a_sync_body_move_one_at_a_time() -> None:
    moving: list[int] = []
    together: list[int] = []

    def body(ctx: Context, step: SyncStep) -> None:
        def branch(n: int) -> None:
            for _ in range(3):
                moving.append(n)
                time.sleep(0.001)  # gives the others time to break in
                together.append(len(moving))
                moving.remove(n)
                step.run("work", one)

        step.parallel(*[lambda n=n: branch(n) for n in range(4)])

    before = set(threading.enumerate())
    assert isinstance(Driver(body).run(), Returned)
    assert together == [1] * 12
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_branch_of_a_sync_function_must_be_callable() -> None:
    def body(ctx: Context, step: SyncStep) -> Any:
        return step.parallel(step.sleep("a", 1))

    live = invocation(body)
    sleep = live.start([]).found[0]
    outcome = live.resume([record(sleep, EMPTY)]).outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type == "InvalidStepError"


def test_a_turn_of_a_sync_function_may_be_taken_by_any_thread() -> None:
    def body(ctx: Context, step: SyncStep) -> list[int]:
        return [step.run("a", one) for _ in range(3)]

    live = invocation(body)
    turns = [live.start([])]

    def resume() -> None:
        turns.append(live.resume([record(turns[-1].found[0], VALUES.encode(1), len(turns))]))

    for _ in range(3):
        thread = threading.Thread(target=resume)
        thread.start()
        thread.join()
    assert turns[-1].outcome == Returned(VALUES.encode([1, 1, 1]))


async def test_a_sync_function_runs_inside_another_loops_task() -> None:
    def body(ctx: Context, step: SyncStep) -> int:
        return step.run("a", one)

    here = asyncio.current_task()
    live = invocation(body)
    step = live.start([]).found[0]
    await asyncio.sleep(0)
    assert live.resume([record(step, VALUES.encode(1))]).outcome == Returned(VALUES.encode(1))
    assert asyncio.current_task() is here


def test_ten_thousand_steps_side_by_side_are_found_in_order() -> None:
    async def body(ctx: Context, step: Step) -> int:
        return len(await asyncio.gather(*[step.run("a", one) for _ in range(ctx.event.data)]))

    for count in (1_000, 10_000):
        live = invocation(body, count)
        found = live.start([]).found
        assert [step.key.index for step in found] == list(range(count))
        entries = [record(step, VALUES.encode(1), n, START + n) for n, step in enumerate(reversed(found), 1)]
        assert live.resume(entries).outcome == Returned(VALUES.encode(count))


def test_an_invocation_keeps_no_dict() -> None:
    """From 30 attributes on Python shares no keys between dicts, and each look at one costs twice as much."""
    live = invocation(one)
    assert not hasattr(live, "__dict__")
    live.close()
