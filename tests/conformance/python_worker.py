"""The app of the conformance kit in Python, as docs/conformance.md describes it, and the worker that serves it.

Run it as `python tests/conformance/python_worker.py`; the kit's STEPWIRE_EXECUTOR says where the executor is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Coroutine
from typing import Any

import stepwire
from stepwire.worker.serve import serve

SLOTS = 4
MAX_INVOCATIONS = 3
DRAIN_SECONDS = 10.0

app = stepwire.App("conformance")
begun = 0


def function(id: str, **options: Any) -> Any:
    return app.function(id, trigger=f"conformance/{id}", **options)


async def given(value: Any) -> Any:
    return value


async def failing(how: str) -> None:
    if how == "final":
        raise stepwire.NonRetriableError("never")
    if how == "later":
        raise stepwire.RetryAfterError("later", 7)
    raise ValueError("not now")


async def failing_with(message: str) -> None:
    raise ValueError(message)


async def returning(data: dict[str, Any]) -> Any:
    return object() if data["what"] == "unencodable" else "x" * data["bytes"]


async def sleeping(seconds: float, result: str) -> str:
    await asyncio.sleep(seconds)
    return result


async def blocking(seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251 - that is what it is for
    return "blocked"


def echoed(step: stepwire.Step, id: str) -> Coroutine[Any, Any, str]:
    """Start a step that returns its own id."""
    return step.run(id, given, id)


@function("one-step")
async def one_step(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    return await step.run("a", given, ctx.event.data["value"])


@function("no-step")
async def no_step(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    return ctx.event.data["value"]


@function("chain")
async def chain(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    a = await step.run("a", given, 1)
    b = await step.run("b", lambda: given(a + 1))
    return await step.run("c", lambda: given(b + 1))


@function("fan")
async def fan(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return sum(await asyncio.gather(*[step.run("part", given, i) for i in range(ctx.event.data["n"])]))


@function("repeat")
async def repeat(ctx: stepwire.Context, step: stepwire.Step) -> list[int]:
    return [await step.run("again", given, i) for i in range(3)]


@function("two-branches")
async def two_branches(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
    async def branch(side: str) -> str:
        await echoed(step, f"{side}-1")
        return await echoed(step, f"{side}-2")

    return await asyncio.gather(branch("left"), branch("right"))


@function("nested-branches")
async def nested_branches(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
    async def outer() -> list[str]:
        await echoed(step, "a")
        return await asyncio.gather(echoed(step, "a-1"), echoed(step, "a-2"))

    inner, b = await asyncio.gather(outer(), echoed(step, "b"))
    return [*inner, b, await echoed(step, "last")]


@function("order")
async def order(ctx: stepwire.Context, step: stepwire.Step) -> list[str]:
    came: list[str] = []

    async def branch(id: str) -> None:
        came.append(await echoed(step, id))

    await asyncio.gather(branch("x"), branch("y"), branch("z"))
    await echoed(step, "-".join(["after", *came]))
    return came


@function("race")
async def race(ctx: stepwire.Context, step: stepwire.Step) -> str:
    racers = [asyncio.create_task(echoed(step, name)) for name in ("one", "two")]
    done, _ = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    (first,) = done
    await echoed(step, f"won-{first.result()}")
    return first.result()


@function("first-exception")
async def first_exception(ctx: stepwire.Context, step: stepwire.Step) -> str:
    try:
        await asyncio.gather(step.run("good", given, "good"), step.run("bad", failing_with, "bad"))
    except stepwire.StepError:
        return await step.run("handle", given, "handled")
    return "unharmed"


@function("catches")
async def catches(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    try:
        await step.run("a", failing, "retryable")
    except stepwire.StepError as error:
        return {"caught": error.message, "attempts": error.attempts}
    return None


@function("fails")
async def fails(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("a", failing, ctx.event.data["how"])


@function("body-fails")
async def body_fails(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await failing(ctx.event.data["how"])


@function("nested")
async def nested(ctx: stepwire.Context, step: stepwire.Step) -> str:
    async def outer() -> str:
        with contextlib.suppress(Exception):
            await step.run("inner", given, 1)
        return "swallowed"

    return await step.run("outer", outer)


@function("returns")
async def returns(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("a", returning, ctx.event.data)


@function("body-returns")
async def body_returns(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    return await returning(ctx.event.data)


@app.function(
    "options",
    trigger=["conformance/options", "conformance/options-too"],
    retries=stepwire.Retry(3, initial_interval=2, maximum_interval=60, multiplier=3),
    timeout=3600,
)
async def options(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return await step.run("a", given, 1, retries=1, attempt_timeout=5, timeout=50)


@function("sleeper")
async def sleeper(ctx: stepwire.Context, step: stepwire.Step) -> str:
    await step.sleep("nap", ctx.event.data["seconds"])
    return await step.run("awake", given, "awake")


@function("waiter")
async def waiter(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    match = {"id": ctx.event.data["id"]}
    event = await step.wait_for_event("answer", "conformance/answered", match=match, timeout=60)
    return None if event is None else event.data


@function("caller")
async def caller(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    return await step.call("add", {"a": ctx.event.data["a"], "b": ctx.event.data["b"]}, id="sum")


@function("calls")
async def calls(ctx: stepwire.Context, step: stepwire.Step) -> int:
    n, text = ctx.event.data["n"], "x" * ctx.event.data["bytes"]
    await asyncio.gather(*[step.call("echo", text, id="call") for _ in range(n)])
    return n


@function("sender")
async def sender(ctx: stepwire.Context, step: stepwire.Step) -> str:
    await step.send_events("send", [("conformance/sent", {"n": 1})])
    return "sent"


@function("invoker")
async def invoker(ctx: stepwire.Context, step: stepwire.Step) -> Any:
    return await step.invoke("child", "one-step", {"value": ctx.event.data["value"]})


@function("gives-up")
async def gives_up(ctx: stepwire.Context, step: stepwire.Step) -> str:
    loser = asyncio.create_task(echoed(step, "loser"))
    winner = asyncio.create_task(echoed(step, "winner"))
    await winner
    loser.cancel()
    return await echoed(step, "last")


@function("slow")
async def slow(ctx: stepwire.Context, step: stepwire.Step) -> str:
    return await step.run("slow", sleeping, ctx.event.data["seconds"], "slow")


@function("blocker")
async def blocker(ctx: stepwire.Context, step: stepwire.Step) -> str:
    return await step.run("block", blocking, ctx.event.data["seconds"])


@function("blocking-body")
async def blocking_body(ctx: stepwire.Context, step: stepwire.Step) -> int:
    time.sleep(ctx.event.data["seconds"])  # noqa: ASYNC251 - that is what it is for
    return await step.run("a", given, 1)


@function("never-yields")
async def never_yields(ctx: stepwire.Context, step: stepwire.Step) -> None:
    while True:
        pass


@app.task("echo")
async def echo(value: Any) -> Any:
    return value


@app.task("add")
async def add(value: dict[str, Any]) -> Any:
    return value["a"] + value["b"]


@app.task("length")
async def length(text: str) -> int:
    return len(text)


@app.task("big")
async def big(value: dict[str, Any]) -> str:
    return "x" * int(value["bytes"])


@app.task("unencodable")
async def unencodable() -> Any:
    return object()


@app.task("fail")
async def fail(value: dict[str, Any]) -> None:
    await failing(value["how"])


@app.task("sleep")
async def sleep(value: dict[str, Any]) -> str:
    return await sleeping(value["seconds"], "slept")


@app.task("block")
async def block(value: dict[str, Any]) -> str:
    return await blocking(value["seconds"])


@app.task("count")
async def count() -> int:
    global begun
    begun += 1
    return begun


def main(target: str = "__main__:app") -> int:
    assert os.environ.get("STEPWIRE_CONFORMANCE") == "1", "this worker is for the conformance kit"
    return serve(
        target,
        executor=os.environ["STEPWIRE_EXECUTOR"],
        slots=SLOTS,
        max_invocations=MAX_INVOCATIONS,
        drain_seconds=DRAIN_SECONDS,
    )


if __name__ == "__main__":
    sys.exit(main())
