"""Every construct, live, in cold replay from every prefix of the journal, and on a replica that becomes the lead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepwire.errors import Failure
from stepwire.replay.model import Entry, Raised, Returned, StepKind, Turn
from tests.sdk_python.replay.constructs import TABLE
from tests.sdk_python.replay.driver import VALUES, Driver, expected, invocation, really

SEEDS = range(6)
table = pytest.mark.parametrize("body", TABLE, ids=lambda body: body.__name__)
seeds = pytest.mark.parametrize("seed", SEEDS)


def live(body: Callable[..., Any], seed: int) -> Driver:
    driver = Driver(body, seed=seed)
    driver.run()
    return driver


def same_end(left: Returned | Raised | None, right: Returned | Raised | None) -> bool:
    if isinstance(left, Raised) and isinstance(right, Raised):
        return (left.failure.type, left.failure.message) == (right.failure.type, right.failure.message)
    return left == right


@table
def test_it_gives_what_plain_asyncio_gives(body: Callable[..., Any]) -> None:
    outcome = live(body, 0).outcome
    assert isinstance(outcome, Returned) or body.__name__ == "body_that_fails"


@table
@seeds
def test_a_cold_replay_from_every_prefix_finds_the_same(body: Callable[..., Any], seed: int) -> None:
    driver = live(body, seed)
    for length in range(len(driver.journal) + 1):
        again = invocation(body)
        known = driver.open_after(length)
        turns = [again.start(driver.journal[:length], expected(known))]
        assert list(turns[0].found) == []
        assert {step.key for step in again.unfinished()} == (
            {step.key for step in known} if length < len(driver.journal) else set()
        )
        turns += [again.resume([entry]) for entry in driver.journal[length:]]
        later = [step.key for turn in turns[1:] for step in turn.found]
        assert later == [step.key for turn in driver.turns[length + 1 :] for step in turn.found]
        assert [list(turn.cancelled) for turn in turns[1:]] == [list(t.cancelled) for t in driver.turns[length + 1 :]]
        assert same_end(turns[-1].outcome, driver.outcome)
        again.close()


@table
@seeds
def test_a_lead_that_knows_nothing_finds_all_that_is_unfinished(body: Callable[..., Any], seed: int) -> None:
    driver = live(body, seed)
    for length in range(len(driver.journal)):
        again = invocation(body)
        turn = again.start(driver.journal[:length])
        assert [step.key for step in turn.found] == [step.key for step in driver.open_after(length)]
        again.close()


@table
@seeds
def test_a_replica_fed_in_heaps_ends_the_same_way(body: Callable[..., Any], seed: int) -> None:
    driver = live(body, seed)
    for size in (1, 2, 3, 100):
        replica = invocation(body)
        last: Turn = replica.start([])
        for at in range(0, len(driver.journal), size):
            heap: list[Entry] = driver.journal[at : at + size]
            last = replica.resume(heap)
        assert same_end(last.outcome, driver.outcome)
        assert replica.sequence == len(driver.journal)
        replica.close()


@table
@seeds
def test_every_replica_has_the_same_code_under_the_same_key(body: Callable[..., Any], seed: int) -> None:
    driver = live(body, seed)
    recorded = {entry.key: entry.outcome for entry in driver.journal}
    replica = invocation(body)
    replica.start([])
    for entry in driver.journal:
        closure = replica.closure(entry.key)
        if closure is not None:
            again, before = really(closure.run, closure.output_type), recorded[entry.key]
            assert again == before or (isinstance(before, Failure) and isinstance(again, Failure))
        replica.resume([entry])
    replica.close()


@table
def test_different_orders_of_completion_are_really_tried(body: Callable[..., Any]) -> None:
    orders = {tuple(entry.key for entry in live(body, seed).journal) for seed in SEEDS}
    widest = max(sum(step.kind is not StepKind.SLEEP for step in turn.found) for turn in live(body, 0).turns)
    assert len(orders) > 1 or widest < 3


def test_the_values_are_those_of_plain_asyncio() -> None:
    outcomes = {body.__name__: live(body, 0).outcome for body in TABLE}
    values = {name: VALUES.decode(end.output) for name, end in outcomes.items() if isinstance(end, Returned)}
    assert values["gather"] == [0, 2, 4, 6, 8]
    assert values["gather_that_raises"] == "ValueError boom"
    assert sorted(values["wait_all"]) == [0, 2, 4, 6]
    assert sorted(values["as_completed"]) == [0, 2, 4, 6, 8]
    assert values["task_group"] == [0, 2, 4, 6]
    assert values["task_group_that_fails"] == "1 failed"
    assert values["timeout_that_strikes"] == "timed out"
    assert values["timeout_that_does_not_strike"] == "in time!"
    assert values["wait_for"] == [8, "late"]
    assert values["sleep_in_the_body"] == [0.0, 2.5, 6.0]
    assert values["cancel_a_task"] == ["cancelled"]
    assert values["cancellation_with_a_step_in_finally"] == ["cleaned"]
    assert values["nested_branches"] == [4, 20, 36]
    assert values["loop_with_one_id"] == [0, 2, 4, 6]
    assert values["parallel_and_map"] == [[2, 4], [0, 2, 4, 6, 8, 10, 12]]
    assert values["typed_results"] == {"types": ["bytes", "set"]}
    assert values["sync_parallel"] == [0, 4, 8, 12]
    assert values["sync_nested"] == [[[20, 22], [40, 42]], [0, 2, 4, 6, 8]]
    assert values["sync_errors"] == "boom"
    assert sorted(values["as_completed_of_branches"]) == [0, 4, 8, 12, 16]
    assert sorted(values["as_completed_of_a_set"]) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert sorted(values["set_of_calls"]) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert values["condition_and_barrier"] == [0, 4, 8]
    assert values["timeout_around_a_gather"] == [14, 2]
    assert values["generator_left_in_the_middle"] == [2, 4]
    assert sorted(values["race_whose_losers_clean_up"]) == [0, 2, 4]
    assert values["map_that_fails"] == "three"
    assert values["group_whose_body_fails"] == ["cleaned", "caught"]
    assert sorted(values["sync_cancellation_with_a_step_in_finally"]) == [0, 2, 4]
    assert values["sync_parallel_that_fails"] == "boom"
