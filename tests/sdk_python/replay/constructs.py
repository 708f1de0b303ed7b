"""The ways to wait for several things that must work in a function's body, live and in every replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import stepwire
from stepwire import Context, Step, SyncStep


async def double(number: int) -> int:
    return number * 2


def name(text: str) -> str:
    return text


def boom(text: str = "boom") -> str:
    raise ValueError(text)


async def gather(ctx: Context, step: Step) -> list[int]:
    return await asyncio.gather(*[step.run("double", double, n) for n in range(5)])


async def gather_with_exceptions(ctx: Context, step: Step) -> list[str]:
    results = await asyncio.gather(step.run("a", boom), step.run("b", double, 1), return_exceptions=True)
    return [str(result) for result in results]


async def gather_that_raises(ctx: Context, step: Step) -> str:
    try:
        await asyncio.gather(step.run("a", boom), step.run("b", double, 1))
    except stepwire.StepError as error:
        return f"{error.name} {await step.run('after', name, error.message)}"
    return "no error"


async def wait_all(ctx: Context, step: Step) -> list[int]:
    done, pending = await asyncio.wait([asyncio.create_task(step.run("d", double, n)) for n in range(4)])
    assert not pending
    return [task.result() for task in done]


async def wait_first_completed(ctx: Context, step: Step) -> list[Any]:
    pending = {asyncio.create_task(step.run("d", double, n)) for n in range(5)}
    order: list[Any] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            order.append(task.result())
            order.append(await step.run("seen", name, f"{task.result()}/{len(pending)}"))
    return order


async def wait_first_exception(ctx: Context, step: Step) -> list[int]:
    tasks = [asyncio.create_task(step.run("x", boom))]
    tasks += [asyncio.create_task(step.run("d", double, n)) for n in range(4)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    await step.run("count", double, len(done))
    return [len(done), len(pending)]


async def as_completed(ctx: Context, step: Step) -> list[int]:
    return [await earliest for earliest in asyncio.as_completed([step.run("d", double, n) for n in range(5)])]


async def task_group(ctx: Context, step: Step) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(step.run("d", double, n)) for n in range(4)]
    return [task.result() for task in tasks]


async def task_group_that_fails(ctx: Context, step: Step) -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("bad", boom))
            group.create_task(step.run("slow", double, 1))
            group.create_task(step.run("slower", double, 2))
    except* stepwire.StepError as errors:
        caught = len(errors.exceptions)
    return await step.run("report", name, f"{caught} failed")


async def create_task_and_go_on(ctx: Context, step: Step) -> list[int]:
    early = asyncio.create_task(step.run("early", double, 1))
    late = await step.run("late", double, 2)
    return [late, await early]


async def timeout_that_strikes(ctx: Context, step: Step) -> str:
    try:
        async with asyncio.timeout(10):
            await step.sleep("long", 3600)
    except TimeoutError:
        return await step.run("after", name, "timed out")
    return "in time"


async def timeout_that_does_not_strike(ctx: Context, step: Step) -> str:
    async with asyncio.timeout(10):
        first = await step.run("quick", name, "in time")
    return first + await step.run("after", name, "!")


async def wait_for(ctx: Context, step: Step) -> list[Any]:
    quick = await asyncio.wait_for(step.run("quick", double, 4), 5)
    try:
        await asyncio.wait_for(step.sleep("long", 100), 1)
    except TimeoutError:
        return [quick, await step.run("after", name, "late")]
    return [quick]


async def sleep_in_the_body(ctx: Context, step: Step) -> list[float]:
    times = []
    for seconds in (1, 2, 3):
        await asyncio.sleep(seconds)
        times.append(asyncio.get_running_loop().time())
    await step.run("after", name, "x")
    return [round(time - times[0], 1) for time in times]


async def shield(ctx: Context, step: Step) -> list[int]:
    inner = asyncio.create_task(step.run("kept", double, 5))
    outer = asyncio.create_task(_await_shielded(inner))
    await step.run("first", double, 1)
    outer.cancel()
    return [await inner]


async def _await_shielded(task: asyncio.Task[int]) -> int:
    return await asyncio.shield(task)


async def cancel_a_task(ctx: Context, step: Step) -> list[str]:
    task = asyncio.create_task(step.sleep("never", 5000))
    await step.run("first", double, 1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return [await step.run("after", name, "cancelled")]
    return ["not cancelled"]


async def cancellation_with_a_step_in_finally(ctx: Context, step: Step) -> list[str]:
    seen: list[str] = []

    async def branch() -> None:
        try:
            await step.sleep("never", 5000)
        finally:
            seen.append(await step.run("cleanup", name, "cleaned"))

    task = asyncio.create_task(branch())
    await step.run("first", double, 1)
    task.cancel()
    await asyncio.wait([task])
    return seen


async def nested_branches(ctx: Context, step: Step) -> list[int]:
    async def branch(n: int) -> int:
        first = await step.run("first", double, n)
        second, third = await asyncio.gather(step.run("second", double, first), step.run("third", double, first + 1))
        return await step.run("sum", double, second + third)

    return await asyncio.gather(*[branch(n) for n in range(3)])


async def loop_with_one_id(ctx: Context, step: Step) -> list[int]:
    return [await step.run("again", double, n) for n in range(4)]


async def queue_lock_semaphore_event(ctx: Context, step: Step) -> list[int]:
    queue: asyncio.Queue[int] = asyncio.Queue()
    lock, semaphore, event = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Event()

    async def produce(n: int) -> None:
        async with semaphore:
            value = await step.run("made", double, n)
        async with lock:
            await queue.put(value)
        if queue.qsize() == 4:
            event.set()

    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(produce(n))
        await event.wait()
    return [queue.get_nowait() for _ in range(4)]


async def async_generators_and_contexts(ctx: Context, step: Step) -> list[int]:
    @asynccontextmanager
    async def resource() -> AsyncIterator[int]:
        yield await step.run("open", double, 1)
        await step.run("close", double, 2)

    async def numbers() -> AsyncIterator[int]:
        for n in range(3):
            yield await step.run("number", double, n)

    async with resource() as base:
        return [base + n async for n in numbers()]


async def race(ctx: Context, step: Step) -> list[Any]:
    winner = await step.parallel(*[lambda n=n: step.run("r", double, n) for n in range(4)], race=True)
    return [winner, await step.run("after", double, winner)]


async def parallel_and_map(ctx: Context, step: Step) -> list[Any]:
    both = await step.parallel((lambda: step.run("a", double, 1), step.run("b", double, 2)))
    mapped = await step.map("m", double, range(7), concurrency=3)
    return [both, mapped]


async def steps_of_every_kind(ctx: Context, step: Step) -> list[Any]:
    sent = await step.send_events("send", [("x", {"n": 1}), stepwire.Event("y", 2, id="mine")])
    waited = await step.wait_for_event("wait", "x", match={"n": 1}, timeout=5)
    called = await step.call("task", {"n": 1})
    invoked = await step.invoke("invoke", "other", {"n": 2})
    await step.sleep("nap", 3)
    await step.sleep_until("later", ctx.now().timestamp() + 5)
    return [sent, waited, called, invoked]


async def deterministic_context(ctx: Context, step: Step) -> list[str]:
    first = [str(ctx.uuid4()), str(ctx.random.random()), ctx.now().isoformat()]
    await step.run("s", double, 1)
    return [*first, str(ctx.uuid4()), ctx.now().isoformat()]


async def abandoned_steps(ctx: Context, step: Step) -> str:
    asyncio.create_task(step.run("abandoned", double, 1))  # noqa: RUF006 - this is the point
    asyncio.create_task(step.sleep("abandoned too", 50))  # noqa: RUF006
    return await step.run("only", name, "done")


async def body_that_fails(ctx: Context, step: Step) -> None:
    await step.run("fine", double, 1)
    await step.run("bad", boom, "final")


async def typed_results(ctx: Context, step: Step) -> dict[str, Any]:
    pair = await step.run("pair", typed_pair)
    return {"types": [type(each).__name__ for each in pair]}


def typed_pair() -> tuple[bytes, set[int]]:
    return b"\x00\xff", {1, 2}


def sync_sequence(ctx: Context, step: SyncStep) -> list[int]:
    return [step.run("d", double, n) for n in range(3)]


def sync_parallel(ctx: Context, step: SyncStep) -> list[int]:
    def branch(n: int) -> int:
        return step.run("second", double, step.run("first", double, n))

    return step.parallel(*[lambda n=n: branch(n) for n in range(4)])


def sync_race(ctx: Context, step: SyncStep) -> list[int]:
    winner = step.parallel([lambda n=n: step.run("r", double, n) for n in range(3)], race=True)
    return [winner, step.run("after", double, winner)]


def sync_nested(ctx: Context, step: SyncStep) -> list[Any]:
    def outer(n: int) -> list[int]:
        return step.parallel(*[lambda m=m: step.run("inner", double, n * 10 + m) for m in range(2)])

    mapped = step.map("m", double, range(5), concurrency=2)
    return [step.parallel(lambda: outer(1), lambda: outer(2)), mapped]


def sync_errors(ctx: Context, step: SyncStep) -> str:
    try:
        step.run("bad", boom)
    except stepwire.StepError as error:
        step.sleep("nap", 1)
        return step.run("after", name, error.message)
    return "no error"


async def as_completed_of_branches(ctx: Context, step: Step) -> list[int]:
    async def branch(n: int) -> int:
        return await step.run("second", double, await step.run("first", double, n))

    return [await earliest for earliest in asyncio.as_completed([branch(n) for n in range(5)])]


async def as_completed_of_a_set(ctx: Context, step: Step) -> list[int]:
    return [await earliest for earliest in asyncio.as_completed({step.run("d", double, n) for n in range(9)})]


async def set_of_calls(ctx: Context, step: Step) -> list[int]:
    return [await call for call in {step.run("d", double, n) for n in range(9)}]


async def condition_and_barrier(ctx: Context, step: Step) -> list[int]:
    condition, barrier = asyncio.Condition(), asyncio.Barrier(3)
    made: list[int] = []

    async def produce(n: int) -> int:
        value = await step.run("made", double, n)
        async with condition:
            made.append(value)
            condition.notify_all()
        await barrier.wait()
        return await step.run("past the barrier", double, value)

    tasks = [asyncio.create_task(produce(n)) for n in range(3)]
    async with condition:
        await condition.wait_for(lambda: len(made) >= 2)
    await step.run("two are there", double, len(made))
    return await asyncio.gather(*tasks)


async def timeout_around_a_gather(ctx: Context, step: Step) -> list[int]:
    quick = asyncio.create_task(step.run("kept", double, 7))
    try:
        async with asyncio.timeout(5):
            await asyncio.gather(*[step.sleep("long", 1000 + n) for n in range(3)])
    except TimeoutError:
        return [await quick, await step.run("after", double, 1)]
    return []


async def generator_left_in_the_middle(ctx: Context, step: Step) -> list[int]:
    async def numbers() -> AsyncIterator[int]:
        try:
            for n in range(10):
                yield await step.run("number", double, n)
        finally:
            await step.run("release", double, 0)

    async for n in numbers():
        if n > 1:
            return [n, await step.run("after", double, n)]
    return []


async def race_whose_losers_clean_up(ctx: Context, step: Step) -> list[Any]:
    cleaned: list[int] = []

    async def branch(n: int) -> int:
        try:
            return await step.run("work", double, n)
        except asyncio.CancelledError:
            cleaned.append(await step.run("cleanup", double, n))
            raise

    winner = await step.parallel(*[branch(n) for n in range(3)], race=True)
    return [winner, *sorted(cleaned)]


async def map_that_fails(ctx: Context, step: Step) -> str:
    def odd(n: int) -> int:
        if n == 3:
            raise ValueError("three")
        return n

    try:
        await step.map("odd", odd, range(8), concurrency=2)
    except stepwire.StepError as error:
        return await step.run("after", name, error.message)
    return "no error"


async def group_whose_body_fails(ctx: Context, step: Step) -> list[str]:
    seen: list[str] = []

    async def branch() -> None:
        try:
            await step.sleep("never", 5000)
        finally:
            seen.append(await step.run("cleanup", name, "cleaned"))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(branch())
            await step.run("first", double, 1)
            raise KeyError("body")
    except* KeyError:
        seen.append(await step.run("after", name, "caught"))
    return seen


async def task_names(ctx: Context, step: Step) -> list[str]:
    async def branch() -> str:
        task = asyncio.current_task()
        assert task is not None
        return await step.run(task.get_name(), name, task.get_name())

    return await asyncio.gather(branch(), branch())


async def random_ids(ctx: Context, step: Step) -> list[str]:
    return await asyncio.gather(*[step.run(f"{ctx.uuid4()}", name, str(n)) for n in range(3)])


def sync_cancellation_with_a_step_in_finally(ctx: Context, step: SyncStep) -> list[Any]:
    cleaned: list[int] = []

    def branch(n: int) -> int:
        try:
            return step.run("work", double, n)
        except asyncio.CancelledError:
            cleaned.append(step.run("cleanup", double, n))
            raise

    winner = step.parallel([lambda n=n: branch(n) for n in range(3)], race=True)
    return [winner, *sorted(cleaned)]


def sync_parallel_that_fails(ctx: Context, step: SyncStep) -> str:
    try:
        step.parallel(lambda: step.run("bad", boom), lambda: step.sleep("long", 100), lambda: step.run("ok", double, 1))
    except stepwire.StepError as error:
        return step.run("after", name, error.message)
    return "no error"


TABLE: list[Callable[..., Any]] = [
    gather,
    gather_with_exceptions,
    gather_that_raises,
    wait_all,
    wait_first_completed,
    wait_first_exception,
    as_completed,
    task_group,
    task_group_that_fails,
    create_task_and_go_on,
    timeout_that_strikes,
    timeout_that_does_not_strike,
    wait_for,
    sleep_in_the_body,
    shield,
    cancel_a_task,
    cancellation_with_a_step_in_finally,
    nested_branches,
    loop_with_one_id,
    queue_lock_semaphore_event,
    async_generators_and_contexts,
    race,
    parallel_and_map,
    steps_of_every_kind,
    deterministic_context,
    abandoned_steps,
    body_that_fails,
    typed_results,
    sync_sequence,
    sync_parallel,
    sync_race,
    sync_nested,
    sync_errors,
    as_completed_of_branches,
    as_completed_of_a_set,
    set_of_calls,
    condition_and_barrier,
    timeout_around_a_gather,
    generator_left_in_the_middle,
    race_whose_losers_clean_up,
    map_that_fails,
    group_whose_body_fails,
    task_names,
    random_ids,
    sync_cancellation_with_a_step_in_finally,
    sync_parallel_that_fails,
]
