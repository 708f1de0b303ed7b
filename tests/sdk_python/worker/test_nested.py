"""Step code that starts a step fails its attempt, whatever it makes of the error. Over a real stream."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import stepwire
from tests.sdk_python.worker.scripted import ScriptedExecutor, serving

app = stepwire.App("app")


async def work() -> str:
    return "done"


def outer_steps(step: Any) -> dict[str, Any]:
    """Code of steps that start a step, and swallow the error that this raises."""

    async def swallows() -> str:
        with contextlib.suppress(Exception):
            await step.run("inner", work)
        return "swallowed"

    async def in_a_task() -> str:
        await asyncio.gather(asyncio.create_task(swallows()), return_exceptions=True)
        return "swallowed"

    async def raises_another() -> str:
        try:
            return str(await step.run("inner", work))
        except Exception:
            raise ConnectionError("try again") from None

    def in_a_pool() -> str:
        with ThreadPoolExecutor(1) as pool:
            return str(pool.submit(quietly).result())

    def in_a_thread() -> str:
        thread = threading.Thread(target=quietly)
        thread.start()
        thread.join()
        return "swallowed"

    def quietly() -> str:
        with contextlib.suppress(Exception):
            step.run("inner", work)
        return "swallowed"

    async def on_a_thread() -> str:
        return await asyncio.to_thread(quietly)

    return {
        "swallows": swallows,
        "in-a-task": in_a_task,
        "raises-another": raises_another,
        "in-a-pool": in_a_pool,
        "in-a-thread": in_a_thread,
        "quietly": quietly,
        "on-a-thread": on_a_thread,
    }


NAMES = list(outer_steps(None))


@app.function("body")
async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
    await asyncio.gather(*[step.run(name, code) for name, code in outer_steps(step).items()], step.run("good", work))


@app.function("sync-body")
def sync_body(ctx: stepwire.Context, step: stepwire.SyncStep) -> None:
    codes = [*outer_steps(step).items(), ("good", work)]
    step.parallel([lambda name=name, code=code: step.run(name, code) for name, code in codes])


@pytest.fixture
def executor() -> Iterator[ScriptedExecutor]:
    with ScriptedExecutor() as scripted:
        yield scripted


@pytest.mark.parametrize("function", ["body", "sync-body"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_step_that_tried_to_start_a_step_fails_whatever_its_code_makes_of_it(
    function: str, name: str, executor: ScriptedExecutor
) -> None:
    async with serving(app, executor):
        stream = await executor.stream()
        await stream.hello()
        stream.invoke(function, lead=False)
        stream.start(name)
        failure = (await stream.next("step_failed")).failure
        assert (failure.type, failure.retryable) == ("NestedStepError", False)
        assert "'inner'" in failure.message
        assert f"'{name}'" in failure.message
        stream.start("good", first_fence=200)
        assert (await stream.next("step_run")).output.data == b'"done"'
