"""What a body can't await, and how that is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stepwire import Context, Step
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import Entry, Raised, Returned, StepKind
from tests.sdk_python.replay.driver import START, VALUES, invocation


def one() -> int:
    return 1


async def branch(step: Step, n: int) -> int:
    return await step.run("b", one)


async def to_thread(step: Step) -> Any:
    return await asyncio.to_thread(one)


async def open_connection(step: Step) -> Any:
    return await asyncio.open_connection("127.0.0.1", 1)


async def subprocess(step: Step) -> Any:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")


async def resolve(step: Step) -> Any:
    return await asyncio.get_running_loop().getaddrinfo("localhost", 1)


async def watch(step: Step) -> Any:
    left, right = socket.socketpair()
    with left, right:
        asyncio.get_running_loop().add_reader(left, one)


async def from_another_thread(step: Step) -> Any:
    raised: list[BaseException] = []
    loop = asyncio.get_running_loop()

    def call() -> None:
        try:
            loop.call_soon_threadsafe(one)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    raise raised[0]


async def run_until_complete(step: Step) -> Any:
    asyncio.get_running_loop().run_forever()


async def another_loop(step: Step) -> Any:
    other = asyncio.new_event_loop()
    try:
        return await other.create_future()
    finally:
        other.close()


async def another_loop_in_a_group(step: Step) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(another_loop(step))


async def nothing_that_comes(step: Step) -> Any:
    await asyncio.Event().wait()


async def a_future_of_a_pool(step: Step) -> Any:
    await asyncio.wrap_future(concurrent.futures.Future[int]())


async def endless_sleep(step: Step) -> Any:
    await asyncio.sleep(float("inf"))


async def a_set_of_coroutines(step: Step) -> Any:
    return [await each for each in asyncio.as_completed({branch(step, n) for n in range(3)})]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (to_thread, "run_in_executor()"),
        (open_connection, "create_connection()"),
        (subprocess, "subprocess_exec()"),
        (resolve, "getaddrinfo()"),
        (watch, "add_reader()"),
        (from_another_thread, "call_soon_threadsafe()"),
        (run_until_complete, "run_forever()"),
        (another_loop, "not of its own event loop"),
        (another_loop_in_a_group, "not of its own event loop"),
        (nothing_that_comes, "no step will bring"),
        (a_future_of_a_pool, "no step will bring"),
        (endless_sleep, "no step will bring"),
        (a_set_of_coroutines, "give it a list"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_is_not_a_step_is_refused_with_advice(
    code: Callable[[Step], Coroutine[Any, Any, Any]], words: str
) -> None:
    async def body(ctx: Context, step: Step) -> Any:
        return await code(step)

    turn = invocation(body).start([])
    assert isinstance(turn.outcome, Raised)
    assert turn.outcome.failure.type == "ForeignAwaitError"
    assert not turn.outcome.failure.retryable
    assert words in turn.outcome.failure.message
    assert "step.run" in turn.outcome.failure.message or words == "give it a list"
    if words in ("not of its own event loop", "no step will bring"):
        assert re.search(r" at test_foreign\.py:\d+ ", turn.outcome.failure.message)


def test_a_body_that_waits_for_a_step_may_wait_for_other_things_too() -> None:
    async def body(ctx: Context, step: Step) -> int:
        event = asyncio.Event()

        async def wake() -> None:
            await step.run("wake", one)
            event.set()

        task = asyncio.create_task(wake())
        await event.wait()
        return int(task.done())

    live = invocation(body)
    planned = live.start([]).found[0]
    turn = live.resume([Entry(1, planned.key, StepKind.CLOSURE, VALUES.encode(1), START)])
    assert isinstance(turn.outcome, Returned)


async def test_a_body_runs_inside_another_loops_task_and_leaves_it_as_it_was() -> None:
    here = asyncio.current_task()
    assert here is not None

    async def body(ctx: Context, step: Step) -> str:
        task = asyncio.current_task()
        assert task is not None
        assert task is not here
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(step.run("a", one))
        return task.get_name()

    def turn(live: Invocation) -> Any:
        return live.start([])

    live = invocation(body)
    found = turn(live).found
    assert [step.key.id for step in found] == ["a", "stepwire.timer"]
    assert asyncio.current_task() is here
    assert asyncio.get_running_loop() is here.get_loop()
    await asyncio.sleep(0)
    end = live.resume([Entry(1, found[0].key, StepKind.CLOSURE, VALUES.encode(1), START)])
    assert end.outcome == Returned(VALUES.encode("Task-1"))
    assert asyncio.current_task() is here


def test_a_body_sees_no_context_variables_of_its_caller() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("the caller's")

    async def body(ctx: Context, step: Step) -> str:
        return variable.get()

    assert invocation(body).start([]).outcome == Returned(VALUES.encode("unset"))


def test_a_body_that_exits_has_failed() -> None:
    async def body(ctx: Context, step: Step) -> None:
        sys.exit(3)

    outcome = invocation(body).start([]).outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type == "SystemExit"
