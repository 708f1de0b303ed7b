"""Functions that the end-to-end tests run in worker processes. Each step appends what it does to a file.

A line of FLOWS_LOG is: run, step's key, attempt, process, what ("begin", "end"), Unix time in seconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import stepwire

app = stepwire.App("flows")


def note(what: str) -> stepwire.AttemptContext:
    """Append a line about the current attempt; one write, so that lines of several processes stay whole."""
    attempt = stepwire.current_attempt()
    key = f"{attempt.step}:{attempt.index}"
    line = f"{attempt.run_id} {key} {attempt.number} {os.getpid()} {what} {time.time():.6f}\n"
    descriptor = os.open(os.environ["FLOWS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    return attempt


def gate(name: str) -> Path:
    """A file beside the log; a test makes it to let steps go on."""
    return Path(os.environ["FLOWS_LOG"]).with_name(name)


async def work(n: int, seconds: float = 0.0) -> int:
    """Take a while and double a number."""
    note("begin")
    await asyncio.sleep(seconds)
    note("end")
    return n * 2


async def wait_at_gate(name: str) -> int:
    """Wait until the test opens the gate; returns the process's id."""
    note("begin")
    while not gate(name).exists():  # noqa: ASYNC110 - another process opens the gate
        await asyncio.sleep(0.01)
    note("end")
    return os.getpid()


async def fail_until(attempt: int) -> int:
    """Fail before the given attempt; returns the number of the attempt that did not."""
    current = note("begin")
    if current.number < attempt:
        raise ConnectionError(f"injected at attempt {current.number}")
    note("end")
    return current.number


def kill_worker_until(attempt: int) -> int:
    """Kill the own process before the given attempt."""
    current = note("begin")
    if current.number < attempt:
        os.kill(os.getpid(), 9)
    return current.number


SOON = stepwire.Retry(retries=4, initial_interval=0.05)


@app.function("fan-out", trigger=stepwire.on_event("flows/fan-out"))
async def fan_out(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, int]:
    """Many steps at once between two alone."""
    count = await step.run("count", work, ctx.event.data["count"] // 2)
    seconds = ctx.event.data.get("seconds", 0.0)
    results = await asyncio.gather(*[step.run("part", work, n, seconds) for n in range(count)])
    total = await step.run("total", work, sum(results))
    return {"count": count, "total": total}


@app.function("gates", trigger=stepwire.on_event("flows/gates"))
async def gates(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """Steps that each wait for a gate of their own; gives the processes that ran them."""
    return await asyncio.gather(*[step.run("gate", wait_at_gate, name) for name in ctx.event.data["gates"]])


@app.function("flaky", trigger=stepwire.on_event("flows/flaky"))
async def flaky(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """One of three parallel steps fails twice."""
    return await asyncio.gather(
        step.run("left", work, 1),
        step.run("flaky", fail_until, 3, retries=SOON),
        step.run("right", work, 2),
    )


@app.function("hopeless", trigger=stepwire.on_event("flows/hopeless"))
async def hopeless(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, Any]:
    """A step that fails for good is caught; what the body knows of it is returned."""
    try:
        await step.run("hopeless", fail_until, 100, retries=stepwire.Retry(retries=1, initial_interval=0.01))
    except stepwire.StepError as error:
        known = {"step": error.step, "name": error.name, "message": error.message, "attempts": error.attempts}
        return {**known, "repair": await step.run("repair", work, 21)}
    return {}


@app.function("doomed", trigger=stepwire.on_event("flows/doomed"))
async def doomed(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """A step error that the body lets through."""
    await step.run("doomed", fail_until, 100, retries=0)


@app.function("clumsy-body", trigger=stepwire.on_event("flows/clumsy-body"), retries=SOON)
async def clumsy_body(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """A body that raises at its first try, while one of its steps has a result and one runs still."""
    done = await step.run("before", work, 1)
    beside = asyncio.create_task(step.run("beside", work, 2, 0.2))
    await step.run("middle", work, 3)
    if ctx.attempt == 1:
        raise RuntimeError("injected into the body")
    return [done, await beside]


@app.function("killer", trigger=stepwire.on_event("flows/killer"))
async def killer(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """A step that kills the worker it runs in, beside one that does not."""
    return await asyncio.gather(
        step.run("killer", kill_worker_until, 2, retries=SOON), step.run("bystander", work, 5, 0.05)
    )


@app.function("naps", trigger=stepwire.on_event("flows/naps"))
async def naps(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, float]:
    """Every way to let time pass."""
    started = await step.run("start", clock)
    await step.sleep("nap", 0.3)
    napped = await step.run("napped", clock)
    await step.sleep_until("until", ctx.now() + timedelta(seconds=0.3))
    until = await step.run("after-until", clock)
    await asyncio.sleep(0.2)
    slept = await step.run("after-sleep", clock)
    return {"nap": napped - started, "until": until - napped, "sleep": slept - until}


def clock() -> float:
    """Read the clock."""
    return time.time()


@app.function("waits", trigger=stepwire.on_event("flows/waits"))
async def waits(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
    """Wait for two events, of which one never comes."""
    order = ctx.event.data["order"]
    paid, shipped = await asyncio.gather(
        step.wait_for_event("paid", "flows/paid", match={"order": order}, timeout=60),
        step.wait_for_event("shipped", "flows/shipped", match={"order": order}, timeout=0.3),
    )
    return [paid.data if paid else None, shipped.data if shipped else None]


@app.function("approvals", trigger=stepwire.on_event("flows/approvals"))
async def approvals(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
    """Wait for events in a loop, and then for one more that never comes."""
    match, got = {"doc": ctx.event.data["doc"]}, []
    for _ in range(ctx.event.data["count"]):
        event = await step.wait_for_event("approval", "flows/approved", match=match, timeout=60)
        got.append(event.data["by"] if event else None)
    one_more = await step.wait_for_event("approval", "flows/approved", match=match, timeout=0.3)
    return [*got, one_more]


@app.function("parent", trigger=stepwire.on_event("flows/parent"))
async def parent(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
    """Invoke two functions, of which one fails."""
    child, failing = await asyncio.gather(
        step.invoke("child", child_function, {"n": 20}),
        step.invoke("failing", "failing-child", {"n": 1}),
        return_exceptions=True,
    )
    assert isinstance(failing, stepwire.StepError)
    return [child, failing.name, failing.message]


@app.function("child")
async def child_function(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """What `parent` invokes."""
    return await step.run("work", work, ctx.event.data["n"]) + 2


@app.function("failing-child", retries=0)
async def failing_child(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """What `parent` invokes in vain."""
    raise ValueError(f"no {ctx.event.data['n']}")


@app.function("sender", trigger=stepwire.on_event("flows/sender"))
async def sender(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
    """Start other runs by events."""
    orders = ctx.event.data["orders"]
    return await step.send_events("send", [("flows/paid", {"order": order}) for order in orders])


@app.function("races", trigger=stepwire.on_event("flows/race"))
async def races(ctx: stepwire.Context, step: stepwire.Step) -> int:
    """The faster of two steps; the other is cancelled."""
    slow, fast = (lambda: step.run("slow", work, 1, 60.0)), (lambda: step.run("fast", work, 2, 0.05))
    return await step.parallel(slow, fast, race=True)


@app.function("timeouts", trigger=stepwire.on_event("flows/timeouts"))
async def timeouts(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, str]:
    """Each kind of timeout around a step that takes too long."""
    seen = {}
    try:
        retry = stepwire.Retry(retries=1, initial_interval=0.01)
        await step.run("attempt", work, 1, 60.0, attempt_timeout=0.2, retries=retry)
    except stepwire.StepError as error:
        seen["attempt"] = f"{error.name} after {error.attempts}"
    try:
        await step.run("step", work, 1, 60.0, timeout=0.3)
    except stepwire.StepError as error:
        seen["step"] = f"{error.name} after {error.attempts}"
    try:
        async with asyncio.timeout(0.3):
            await step.run("body", work, 1, 60.0)
    except TimeoutError:
        seen["body"] = "TimeoutError"
    return seen


@app.function("short", trigger=stepwire.on_event("flows/short"), timeout=0.4)
async def short(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """A function that takes longer than it may."""
    await step.run("long", work, 1, 60.0)


@app.function("long", trigger=stepwire.on_event("flows/long"))
async def long(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """Something to cancel: a running step, a sleep and a child."""
    await asyncio.gather(
        step.run("long", work, 1, 60.0), step.sleep("nap", 3600), step.invoke("child", "long-child", None)
    )


@app.function("long-child")
async def long_child(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """The child of `long`."""
    await step.run("long", work, 1, 60.0)


@app.function("plain", trigger=stepwire.on_event("flows/plain"))
def plain(ctx: stepwire.Context, step: stepwire.SyncStep) -> list[int]:
    """A sync function with parallel branches of several steps."""

    def branch(n: int) -> int:
        doubled = step.run("first", double, n)
        return step.run("second", double, doubled)

    first = step.run("alone", double, 1)
    return [first, *step.parallel(*[lambda n=n: branch(n) for n in range(ctx.event.data["count"])])]


def double(n: int) -> int:
    """A sync step."""
    note("begin")
    return n * 2


@app.function("asyncio", trigger=stepwire.on_event("flows/asyncio"))
async def constructs(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, Any]:
    """Every construct of asyncio that the guide names."""
    return await all_constructs(step, pace=0.0)


@app.function("asyncio-slowly", trigger=stepwire.on_event("flows/asyncio-slowly"))
async def constructs_slowly(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, Any]:
    """The same with pauses in which things can be killed."""
    return await all_constructs(step, pace=1.0)


async def all_constructs(step: stepwire.Step, pace: float) -> dict[str, Any]:
    """Use all constructs, with a step of `pace` seconds between them."""
    seen: dict[str, Any] = {}
    first, _ = await asyncio.wait(
        [asyncio.create_task(step.run("wait", work, n, 0.05 + n * 20)) for n in range(3)],
        return_when=asyncio.FIRST_COMPLETED,
    )
    seen["first"] = sorted(task.result() for task in first)
    await step.run("beat", work, 1, pace)
    tasks = [asyncio.create_task(step.run("exception", fail_until, 100, retries=0))]
    tasks.append(asyncio.create_task(step.run("beside", work, 4, 60.0)))
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    seen["exception"] = [len(done), len(pending)]
    await step.run("beat", work, 1, pace)
    seen["completed"] = [await each for each in asyncio.as_completed([step.run("as", work, n) for n in range(4)])]
    async with asyncio.TaskGroup() as group:
        grouped = [group.create_task(step.run("group", work, n)) for n in range(3)]
    seen["group"] = [task.result() for task in grouped]
    await step.run("beat", work, 1, pace)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("sibling", work, 1, 60.0))
            group.create_task(step.run("failing", fail_until, 100, retries=0))
    except* stepwire.StepError as errors:
        seen["group failed"] = [str(error.name) for error in errors.exceptions]  # type: ignore[union-attr]
    await step.run("beat", work, 1, pace)
    limit = asyncio.Semaphore(2)

    async def limited(n: int) -> int:
        async with limit:
            half = await step.run("limited", work, n)
            return await step.run("again", work, half)

    seen["limited"] = await asyncio.gather(*[limited(n) for n in range(5)])
    await step.run("beat", work, 1, pace)
    seen["map"] = await step.map("map", work, range(6), concurrency=2)
    return seen


@app.task("double")
def double_task(n: int) -> int:
    """What `tasks` calls by its name."""
    return double(n)


@app.function("tasks", trigger=stepwire.on_event("flows/tasks"))
async def tasks(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """Call a task many times."""
    return await asyncio.gather(*[step.call("double", n) for n in range(ctx.event.data["count"])])


def blob(size: int) -> str:
    """Make a large text."""
    return "x" * size


@app.function("blob", trigger=stepwire.on_event("flows/blob"))
async def blobs(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    """Large outputs, and a replica that is given them."""
    size = ctx.event.data["bytes"]
    large = await step.run("blob", blob, size)
    lengths = await asyncio.gather(*[step.run("length", len, large) for _ in range(2)])
    return [len(large), *lengths]


@app.function("fickle", trigger=stepwire.on_event("flows/fickle"))
async def fickle(ctx: stepwire.Context, step: stepwire.Step) -> None:
    """A body that is another one in each process."""
    await step.run(f"process-{os.getpid()}", double, 1)
    await step.sleep("nap", 3)
