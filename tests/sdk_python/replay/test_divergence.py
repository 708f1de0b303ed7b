"""A replay that does other things than its journal holds is caught, and told with both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stepwire import Context, Step
from stepwire.replay.model import Entry, Expected, Raised, Returned, StepKey, StepKind, TimedOut, Turn
from tests.sdk_python.replay.driver import START, VALUES, Driver, invocation


def one(text: str = "one") -> str:
    return text


async def charge(ctx: Context, step: Step) -> str:
    await step.run("reserve", one)
    return await step.run("charge", one)


async def charge_card(ctx: Context, step: Step) -> str:
    await step.run("reserve", one)
    return await step.run("charge-card", one)


async def charge_by_task(ctx: Context, step: Step) -> Any:
    await step.run("reserve", one)
    return await step.call("charge")


async def charge_nothing(ctx: Context, step: Step) -> str:
    return await step.run("reserve", one)


def entry(sequence: int, step_id: str, kind: StepKind = StepKind.CLOSURE, at: float = START) -> Entry:
    return Entry(sequence, StepKey(step_id, 0), kind, VALUES.encode("x"), at, 1, f"old.py:{sequence}")


def failure(turn: Turn) -> Any:
    assert isinstance(turn.outcome, Raised)
    assert turn.outcome.failure.type == "NonDeterminismError"
    assert not turn.outcome.failure.retryable
    assert list(turn.found) == []
    return turn.outcome.failure


def test_an_entry_that_the_body_has_not_found_shows_both_sides_with_their_lines() -> None:
    changed = invocation(charge_card)
    message = failure(changed.start([entry(1, "reserve"), entry(2, "charge")])).message
    assert "entry 2 of the journal is the result of the closure step 'charge' at old.py:2" in message
    assert "awaits the closure step 'charge-card' at test_divergence.py:" in message
    assert "version" in message
    assert changed.ended


def test_an_entry_of_another_kind_shows_both_kinds() -> None:
    message = failure(invocation(charge_by_task).start([entry(1, "reserve"), entry(2, "charge")])).message
    assert "closure step 'charge' at old.py:2" in message
    assert "found the task step 'charge' at test_divergence.py:" in message


def other_targets(new: bool) -> list[tuple[StepKind, str, Callable[..., Any]]]:
    """Bodies whose step "x" has another target when `new`, with what the executor recorded of it."""

    async def calls(ctx: Context, step: Step) -> Any:
        return await step.call("new" if new else "old", id="x")

    async def invokes(ctx: Context, step: Step) -> Any:
        return await step.invoke("x", "new" if new else "old")

    async def invokes_elsewhere(ctx: Context, step: Step) -> Any:
        return await step.invoke("x", "other/f" if new else "app/f")

    async def waits(ctx: Context, step: Step) -> Any:
        return await step.wait_for_event("x", "new" if new else "old")

    return [
        (StepKind.TASK, "old", calls),
        (StepKind.INVOKE, "app/old", invokes),
        (StepKind.INVOKE, "app/f", invokes_elsewhere),
        (StepKind.WAIT_FOR_EVENT, "old", waits),
    ]


@pytest.mark.parametrize("case", range(4))
def test_another_target_under_the_same_key_is_caught_and_both_are_shown(case: int) -> None:
    for new in (False, True):
        kind, target, body = other_targets(new)[case]
        recorded = Entry(1, StepKey("x", 0), kind, TimedOut(), START, 1, "old.py:1", target)
        planned = Expected(StepKey("x", 0), kind, "old.py:1", target)
        for turn in (invocation(body).start([recorded]), invocation(body).start([], [planned])):
            if new:
                message = failure(turn).message
                assert f"step 'x' of '{target}' at old.py:1" in message
                assert "step 'x' of '" in message.partition("but the body")[2]
                assert "test_divergence.py:" in message
            else:
                assert not isinstance(turn.outcome, Raised)


def test_a_target_that_an_older_executor_does_not_say_is_not_compared() -> None:
    for kind, _, body in other_targets(new=True):
        recorded = Entry(1, StepKey("x", 0), kind, TimedOut(), START)
        assert isinstance(invocation(body).start([recorded]).outcome, Returned)


def test_long_ids_are_cut_in_the_message() -> None:
    long = "long" * 200

    async def body(ctx: Context, step: Step) -> None:
        await asyncio.gather(*[step.run(f"{number}{long}", one) for number in range(9)])

    text = failure(invocation(body).start([entry(1, long)])).message
    assert long[:50] in text
    assert f"'0{long[:50]}" in text
    assert len(text) < 2_000


def test_a_step_that_was_found_in_another_worker_only_is_told_beside_what_is_found_here() -> None:
    live = invocation(charge)
    live.start([])
    message = str(live.not_found(StepKey("charge-card", 0)))
    assert "has not found step 'charge-card'" in message
    assert "awaits the closure step 'reserve' at test_divergence.py:" in message


def test_an_entry_that_comes_too_early_is_caught() -> None:
    failure(invocation(charge).start([entry(1, "charge"), entry(2, "reserve")]))


def test_an_entry_for_a_body_that_has_ended_without_its_step_is_caught() -> None:
    message = failure(invocation(charge_nothing).start([entry(1, "reserve"), entry(2, "charge")])).message
    assert "has not found it and has ended" in message


@pytest.mark.parametrize("body", [charge_card, charge_by_task, charge_nothing])
def test_an_expected_step_that_is_not_found_is_caught(body: Callable[..., Any]) -> None:
    unfinished = Expected(StepKey("charge", 0), StepKind.CLOSURE, "old.py:7")
    message = failure(invocation(body).start([entry(1, "reserve")], [unfinished])).message
    assert "the journal ends with the closure step 'charge' at old.py:7 unfinished" in message


def test_an_expected_step_that_the_body_has_cancelled_is_told_as_cancelled() -> None:
    async def body(ctx: Context, step: Step) -> str:
        slow = asyncio.create_task(step.run("slow", one))
        await step.run("quick", one)
        slow.cancel()
        return await step.run("after", one)

    slow = Expected(StepKey("slow", 0), StepKind.CLOSURE)
    turn = invocation(body).start([entry(1, "quick")], [slow])
    assert list(turn.cancelled) == [StepKey("slow", 0)]
    assert [step.key.id for step in turn.found] == ["after"]


def test_a_result_for_a_cancelled_step_is_skipped() -> None:
    async def body(ctx: Context, step: Step) -> str:
        slow = asyncio.create_task(step.run("slow", one))
        await step.run("quick", one)
        slow.cancel()
        return await step.run("after", one)

    live = invocation(body)
    live.start([])
    turn = live.resume([entry(1, "quick"), entry(2, "slow"), entry(3, "after", at=START + 9)])
    assert isinstance(turn.outcome, Returned)
    assert live.sequence == 3


def test_results_that_come_after_the_end_change_nothing() -> None:
    async def body(ctx: Context, step: Step) -> str:
        task = asyncio.create_task(step.run("slow", one))
        await step.run("quick", one)
        return task.get_name()

    live = invocation(body)
    live.start([])
    first = live.resume([entry(1, "quick")])
    assert isinstance(first.outcome, Returned)
    assert list(first.cancelled) == [StepKey("slow", 0)]
    assert live.resume([entry(2, "slow")]) == Turn([], [], first.outcome)
    assert list(live.unfinished()) == []


def test_nothing_moves_after_a_divergence() -> None:
    changed = invocation(charge_card)
    end = changed.start([entry(1, "reserve"), entry(2, "charge")])
    assert changed.resume([entry(3, "charge-card")]) == Turn([], [], end.outcome)


def test_a_gap_in_the_journal_is_the_shells_mistake() -> None:
    with pytest.raises(ValueError, match="entry 3 follows 1"):
        invocation(charge).start([entry(1, "reserve"), entry(3, "charge")])


def test_a_body_that_raises_gives_no_step_up_because_it_may_be_tried_again() -> None:
    async def body(ctx: Context, step: Step) -> None:
        task = asyncio.create_task(step.run("slow", one))
        await step.run("quick", one)
        task.cancel()
        raise ConnectionError("flaky")

    live = invocation(body)
    live.start([])
    turn = live.resume([entry(1, "quick")])
    assert isinstance(turn.outcome, Raised)
    assert turn.outcome.failure.retryable
    assert list(turn.cancelled) == []


async def branches(ctx: Context, step: Step) -> list[str]:
    async def branch(n: int) -> str:
        await step.run("first", one, str(n))
        return await step.run("second", one, str(n))

    return await asyncio.gather(*[branch(n) for n in range(3)])


@pytest.mark.parametrize("size", [1, 3])
def test_a_replica_that_becomes_the_lead_reports_what_is_unfinished(size: int) -> None:
    driver = Driver(branches, seed=size)
    driver.run()
    replica = invocation(branches)
    replica.lead = False
    replica.start(driver.journal[:size])
    replica.resume(driver.journal[size : size + 1])
    turn = replica.promote()
    assert replica.lead
    assert {step.key for step in turn.found} == {step.key for step in driver.open_after(size + 1)}
    assert list(turn.found) == list(replica.unfinished())
    assert replica.resume(driver.journal[size + 1 :]).outcome == driver.outcome


def test_a_replica_whose_body_has_ended_gives_its_outcome_when_it_becomes_the_lead() -> None:
    driver = Driver(branches)
    driver.run()
    replica = invocation(branches)
    replica.start([])
    replica.resume(driver.journal)
    assert replica.promote() == Turn([], (), driver.outcome)


def test_a_replica_tells_what_it_gave_up_when_it_becomes_the_lead() -> None:
    async def body(ctx: Context, step: Step) -> str:
        slow = asyncio.create_task(step.run("slow", one))
        await step.run("quick", one)
        slow.cancel()
        return await step.run("after", one)

    replica = invocation(body)
    replica.start([])
    replica.resume([entry(1, "quick")])
    turn = replica.promote()
    assert list(turn.cancelled) == [StepKey("slow", 0)]
    assert [step.key.id for step in turn.found] == ["after"]
