"""Which wait gets which event in one process: as on an executor (docs/waiting-for-events.md)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import stepwire
from stepwire.testing import TestRun, explore, run


def run_body(body: Any, **options: Any) -> TestRun:
    local = stepwire.App("events")
    local.function("f", trigger="f")(body)
    return run("f", app=local, **options)


def numbers(*values: int, every: float = 1.0) -> list[tuple[str, Any, float]]:
    return [("n", {"v": value}, every * place) for place, value in enumerate(values, 1)]


def seen(events: list[stepwire.ReceivedEvent | None]) -> list[int | None]:
    return [event.data["v"] if event else None for event in events]


def test_waits_in_a_loop_get_one_event_after_the_other() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[int | None]:
        return seen([await step.wait_for_event("w", "n", timeout=60) for _ in range(4)])

    assert run_body(body, events=numbers(1, 2, 3)).output == [1, 2, 3, None]


def test_one_approval_does_not_pass_two_waits() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[int | None]:
        return seen([await step.wait_for_event("w", "n", match={"v": 7}, timeout=60) for _ in range(2)])

    assert run_body(body, events=numbers(5, 7)).output == [7, None]


def test_events_that_came_before_a_wait_are_kept_for_it_in_their_order() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[int | None]:
        await step.sleep("nap", 100)
        found = [await step.wait_for_event("any", "n", timeout=1)]
        found.append(await step.wait_for_event("three", "n", match={"v": 3}, timeout=1))
        found.append(await step.wait_for_event("any", "n", timeout=1))
        return seen(found)

    assert run_body(body, events=numbers(1, 2, 3)).output == [1, 3, 2]


def test_the_event_that_started_the_run_is_for_no_wait_of_it() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> bool:
        return await step.wait_for_event("w", "f", timeout=60) is None

    assert run_body(body).output is True


def test_of_waits_side_by_side_the_one_started_first_gets_the_event() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[int | None]:
        found = await asyncio.gather(
            step.wait_for_event("any", "n", timeout=60),
            step.wait_for_event("seven", "n", match={"v": 7}, timeout=60),
            step.wait_for_event("more", "n", timeout=60),
        )
        return seen(found)

    assert run_body(body, events=numbers(7, 7, 5)).output == [7, 7, 5]
    assert run_body(body, events=numbers(5, 6, 7)).output == [5, 7, 6]


def test_a_wait_that_timed_out_or_was_given_up_takes_no_event() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[int | None]:
        first = await step.wait_for_event("late", "n", timeout=1)
        given_up = asyncio.create_task(step.wait_for_event("given-up", "n"))
        await step.sleep("nap", 1)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        return seen([first, await step.wait_for_event("next", "n", timeout=60)])

    assert run_body(body, events=numbers(7, every=10.0)).output == [None, 7]


def test_each_run_gets_an_event() -> None:
    local = stepwire.App("two")

    @local.function("parent", trigger="go")
    async def parent(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
        event, child = await asyncio.gather(step.wait_for_event("w", "n"), step.invoke("child", "child"))
        return [event.data["v"] if event else None, child]

    @local.function("child")
    async def child(ctx: stepwire.Context, step: stepwire.Step) -> Any:
        return seen([await step.wait_for_event("w", "n")])[0]

    assert run(parent, app=local, events=numbers(7)).output == [7, 7]


def test_no_schedule_gives_an_event_to_two_waits_or_loses_one() -> None:
    local = stepwire.App("races")

    async def code(value: int) -> int:
        return value

    @local.function("f", trigger="f")
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[int | None]:
        waits = [asyncio.create_task(step.wait_for_event("w", "n")) for _ in range(2)]
        racing = asyncio.create_task(step.run("race", code, 1))
        await asyncio.wait([*waits, racing], return_when=asyncio.FIRST_COMPLETED)
        got = []
        if not waits[1].done():
            waits[1].cancel()
            await asyncio.gather(waits[1], return_exceptions=True)
            got.append(await step.wait_for_event("instead", "n", timeout=60))
        else:
            got.append(await waits[1])
        got.append(await waits[0])
        return sorted(seen(got))  # type: ignore[type-var]

    explore(body, app=local, events=numbers(1, 2, every=0.0), schedules=60)


def test_a_step_that_gives_one_id_to_different_events_fails_and_sends_nothing() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
        errors = []
        for other in (stepwire.Event("n", 2, id="p"), stepwire.Event("m", 1, id="p")):
            try:
                await step.send_events("send", [stepwire.Event("n", 1, id="p"), other])
            except stepwire.StepError as error:
                errors.append(error.failure.type)
        return [errors, await step.wait_for_event("w", "n", timeout=60)]

    result = run_body(body)
    assert result.output == [["EventConflictError"] * 2, None]
    assert result.sent == []


def test_the_same_event_twice_in_one_call_is_one_event() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> list[Any]:
        ids = await step.send_events("send", [stepwire.Event("n", {"v": 1}, id="p")] * 2)
        return [ids, *seen([await step.wait_for_event("w", "n", timeout=60) for _ in range(2)])]

    assert run_body(body).output == [["p", "p"], 1, None]


def test_an_id_that_a_test_gives_to_two_events_is_told() -> None:
    async def body(ctx: stepwire.Context, step: stepwire.Step) -> None:
        return None

    with pytest.raises(stepwire.StepwireError, match=r"event id 'p' is given twice, to different events"):
        run_body(body, events=[stepwire.Event("n", 1, id="p"), stepwire.Event("n", 2, id="p")])
