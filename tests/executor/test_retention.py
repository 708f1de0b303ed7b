"""What a sweep removes together, and that a failing store ends it and not the executor."""

from __future__ import annotations

import asyncio
import logging

import pytest

from stepwire_core.model import Now
from stepwire_executor import retention
from stepwire_executor.retention import ROWS_A_REMOVAL, Horizon, Retention, Sweep
from stepwire_executor.store import AgedEvent, AgedRun, Removal, StoreError

HORIZON = Horizon(ended=1000.0, received=500.0)


def aged(position: int, *runs: AgedRun, received_at: float = 1.0, newest: bool = False) -> AgedEvent:
    return AgedEvent(position, received_at, newest, runs)


def old(name: str, steps: int = 0, ended_at: float | None = 2.0, *, awaited: bool = False) -> AgedRun:
    return AgedRun(name, ended_at, awaited, steps)


def removed(*events: AgedEvent) -> list[Removal]:
    return list(Sweep(HORIZON).look(events))


def numbered(name: str, *numbers: int) -> list[tuple[str, int]]:
    return [(name, number) for number in numbers]


def test_a_run_goes_with_its_steps_and_its_event() -> None:
    assert removed(aged(1, old("a", 2)), aged(2, old("b", 1))) == [
        Removal([*numbered("a", 2, 1), *numbered("b", 1)], ["a", "b"], [1, 2])
    ]


@pytest.mark.parametrize(
    "run", [old("r", ended_at=None), old("r", ended_at=HORIZON.ended), old("r", awaited=True)], ids=lambda run: str(run)
)
def test_a_run_that_is_needed_stays_with_its_event(run: AgedRun) -> None:
    assert removed(aged(1, run, old("other"))) == [Removal([], ["other"], [])]


def test_an_event_stays_that_is_young_or_the_newest() -> None:
    assert removed(aged(1, received_at=HORIZON.received), aged(2, newest=True)) == []
    assert removed(aged(3, received_at=HORIZON.received - 0.1)) == [Removal([], [], [3])]


def test_younger_events_stay_for_a_run_that_may_wait_for_them() -> None:
    sweep = Sweep(HORIZON)
    assert list(sweep.look([aged(1), aged(2, old("open", ended_at=None)), aged(3)])) == [Removal([], [], [1])]
    assert list(sweep.look([aged(4), aged(5, old("r"))])) == [Removal([], ["r"], [])]


def test_a_run_is_not_split_over_transactions_if_it_fits_into_one() -> None:
    half = ROWS_A_REMOVAL // 2
    first, second = removed(aged(1, old("a", half)), aged(2, old("b", half)))
    assert (first.runs, len(first.steps)) == (["a"], half)
    assert (second.runs, len(second.steps)) == (["b"], half)


def test_of_a_large_run_the_last_steps_go_first_and_the_run_at_the_end() -> None:
    count = 2 * ROWS_A_REMOVAL + 5
    batches = removed(aged(1, old("small", 3)), aged(2, old("large", count)), aged(3, old("next")))
    assert batches[0] == Removal(numbered("small", 3, 2, 1), ["small"], [1])
    steps = [step for batch in batches[1:] for step in batch.steps]
    assert steps == numbered("large", *range(count, 0, -1))
    assert [batch.runs for batch in batches[1:]] == [[], [], ["large", "next"]]
    assert max(len(batch.steps) for batch in batches) == ROWS_A_REMOVAL


def test_a_sweep_is_over_where_nothing_can_be_old() -> None:
    sweep = Sweep(HORIZON)
    assert sweep.is_over([])
    assert sweep.is_over([aged(1, received_at=HORIZON.ended)])
    assert not sweep.is_over([aged(1, received_at=HORIZON.ended), aged(2, received_at=1.0)])


class Engine:
    failing = False

    def now(self) -> Now:
        return Now(1e9, 0.0)


class Failing:
    """A store that fails at first, then has a fault, and then has nothing."""

    def __init__(self) -> None:
        self.looks = 0

    async def aged_events(self, after: int, limit: int) -> list[AgedEvent]:
        self.looks += 1
        if self.looks == 1:
            raise StoreError("the disk is full")
        if self.looks == 2:
            raise KeyError("a bug")
        return []


async def test_after_a_failure_of_the_store_the_next_sweep_begins_afresh(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "SHORTEST_REST", 0.01)
    store = Failing()
    with caplog.at_level(logging.WARNING):
        sweeping = asyncio.create_task(Retention(Engine(), store, 0.01).run())  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while store.looks < 4:  # noqa: ASYNC110 - it is the executor's own pace that is waited for
                await asyncio.sleep(0.01)
        sweeping.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "removing old runs was broken off: the disk is full",
        "removing old runs failed, which is a bug in Stepwire; it is tried again",
    ]
