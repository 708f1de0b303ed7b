"""Functions that raise what nobody expects, where the event's data says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import stepwire

app = stepwire.App("raising")


class SpeechlessError(Exception):
    """Its text can't be had."""

    def __str__(self) -> str:
        raise KeyboardInterrupt("no text")


class Nameless(type):
    """The class of a class whose name can't be had."""

    def __getattribute__(cls, name: str) -> object:
        raise SystemExit(name)


class SecretiveError(Exception, metaclass=Nameless):
    """It tells nothing, to whoever asks."""

    def __str__(self) -> str:
        raise KeyboardInterrupt("no text")

    def __getattribute__(self, name: str) -> object:
        raise GeneratorExit(name)

    def __bool__(self) -> bool:
        raise GeneratorExit("no truth")


def circle() -> BaseException:
    """Make a group with a member whose cause is the group."""
    inner = ExceptionGroup("inner", [ValueError("a")])
    outer = ExceptionGroup("outer", [inner])
    inner.__cause__ = outer
    return outer


def vast() -> BaseException:
    """Make a group that has one error two to the thirtieth times."""
    error: Exception = ValueError("a")
    for _ in range(30):
        error = ExceptionGroup("vast", [error, error])
    return error


ODD: dict[str, Callable[[], BaseException]] = {
    "KeyboardInterrupt": lambda: KeyboardInterrupt("odd"),
    "SystemExit": lambda: SystemExit("odd"),
    "GeneratorExit": lambda: GeneratorExit("odd"),
    "CancelledError": lambda: asyncio.CancelledError("odd"),
    "SpeechlessError": SpeechlessError,
    "ExceptionGroup": lambda: ExceptionGroup("odd", [ValueError("a"), ExceptionGroup("inner", [TypeError("b")])]),
    "SecretiveError": SecretiveError,
    "circle": circle,
    "vast": vast,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("odd", [KeyboardInterrupt("a"), SystemExit("b")]),
}


async def in_async_step(name: str) -> None:
    raise ODD[name]()


def in_sync_step(name: str) -> None:
    raise ODD[name]()


async def in_task_of_step(name: str) -> None:
    await asyncio.create_task(in_async_step(name))


async def in_callback_of_step(name: str) -> None:
    def leave() -> None:
        raise ODD[name]()

    asyncio.get_running_loop().call_soon(leave)
    await asyncio.sleep(0.05)
    raise ODD[name]()


STEPS: dict[str, Any] = {
    code.__name__: code for code in (in_async_step, in_sync_step, in_task_of_step, in_callback_of_step)
}


@app.function("step", trigger="raise/step", retries=0)
async def step_raises(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("s", STEPS[ctx.event.data["where"]], ctx.event.data["what"], retries=0)


@app.function("body", trigger="raise/body", retries=0)
async def body_raises(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.run("s", str, 1)
    raise ODD[ctx.event.data["what"]]()


@app.function("group-body", trigger="raise/group-body", retries=0)
async def group_body_raises(ctx: stepwire.Context, step: stepwire.Step) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(step.sleep("s", 0.5))
        group.create_task(in_async_step(ctx.event.data["what"]))
    raise ODD[ctx.event.data["what"]]()  # a group takes no notice of a member that has cancelled itself


@app.function("sync-body", trigger="raise/sync-body", retries=0)
def sync_body_raises(ctx: stepwire.Context, step: stepwire.SyncStep) -> None:
    step.run("s", str, 1)
    raise ODD[ctx.event.data["what"]]()


@app.function("task", trigger="raise/task", retries=0)
async def task_raises(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await step.call(ctx.event.data["where"], ctx.event.data["what"], retries=0)


app.task("in_async_step")(in_async_step)
app.task("in_sync_step")(in_sync_step)
