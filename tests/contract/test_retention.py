"""What every store does when old runs are removed: everything of theirs goes, and nothing that somebody needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepwire_core.commands import Writes
from stepwire_core.model import Event, Now, Run, RunState, StepState
from stepwire_executor.loading import EVENT_ID_WINDOW
from stepwire_executor.retention import EVENTS_A_LOOK, ROWS_A_REMOVAL, Retention
from stepwire_executor.store import AgedEvent, AgedRun, Removal, RunFilter, Store, StoreError
from tests.contract.store_rows import (
    MUCH,
    START,
    child_of,
    event,
    failed_attempt,
    invoking,
    known,
    new,
    run,
    seen,
    step,
    wait,
    waits_by_key,
    waits_of,
)

KEPT_SECONDS = 100.0
LATER = START + 2 * EVENT_ID_WINDOW


class Idle:
    """What retention sees of an engine; the time is what the test says."""

    def __init__(self, wall: float = LATER, moved: float = 0.0) -> None:
        self.failing = False
        self.time = Now(wall, 0.0, moved)

    def now(self) -> Now:
        return self.time


async def sweep(store: Store, engine: Idle | None = None) -> int:
    return await Retention(engine or Idle(), store, KEPT_SECONDS).sweep()  # type: ignore[arg-type]


def done(number: int, its_event: Event | None = None, **values: object) -> Run:
    """Make a run that ended a second after its beginning."""
    return run(
        number, its_event, **{"state": RunState.SUCCEEDED, "wake_at": None, "ended_at": START + number + 1, **values}
    )


async def ids(store: Store) -> list[str]:
    return [found.id for found in await store.list_runs(RunFilter(), "", 1000, MUCH)][::-1]


async def positions(store: Store) -> list[int]:
    return [found.position for found in await store.find_events("paid", "shop", 0, 1000, 1 << 30)]


async def test_events_come_with_the_runs_that_they_started(store: Store) -> None:
    parent, shared = run(1), event(4)
    told, untold = child_of(parent, 2, state=RunState.FAILED), child_of(parent, 3, state=RunState.SUCCEEDED)
    told.ended_at = untold.ended_at = START + 9
    writes = new(parent, told, untold, run(4, shared), done(5, shared), steps=[invoking(told, StepState.FAILED)])
    writes.new_steps[parent.id, 7] = replace(invoking(untold), number=7)
    writes.events.append(event(6))
    await store.commit(writes)
    events = await store.aged_events(0, 9)
    assert events == [
        AgedEvent(1, START + 1, False, [AgedRun(parent.id, None, False, 7)]),
        AgedEvent(2, START + 2, False, [AgedRun(told.id, START + 9, False, 0)]),
        AgedEvent(3, START + 3, False, [AgedRun(untold.id, START + 9, True, 0)]),
        AgedEvent(4, START + 4, False, [AgedRun(run(4).id, None, False, 0), AgedRun(run(5).id, START + 6, False, 0)]),
        AgedEvent(6, START + 6, True, []),
    ]
    assert await store.aged_events(1, 2) == events[1:3]
    assert await store.aged_events(6, 2) == []


async def test_what_is_removed_is_gone_and_the_rest_is_as_it_was(store: Store) -> None:
    gone, kept = done(1), done(2)
    writes = new(gone, kept, steps=[step(1), step(2)])
    writes.new_steps[kept.id, 1] = step(1)
    writes.failed_attempts = [failed_attempt(gone, 2, 1), failed_attempt(gone, 2, 2), failed_attempt(kept, 1, 1)]
    writes.new_waits = waits_by_key(wait(gone, 1), wait(kept, 1))
    await store.commit(writes)
    await store.remove(Removal([(gone.id, 2)]))
    assert [found.number for found in await store.get_steps(gone.id, 0, 9, MUCH)] == [1]
    assert await store.get_failed_attempts(gone.id, 1, 9, MUCH) == []
    await store.remove(Removal([(gone.id, 1)], [gone.id], [1]))
    assert await store.get_run(gone.id) is None
    assert await store.get_steps(gone.id, 0, 9, MUCH) == []
    assert await ids(store) == [kept.id]
    assert await waits_of(store) == [wait(kept, 1)]
    assert await store.known_events([event(1).key, event(2).key], 0.0) == known(event(2))
    assert await positions(store) == [2]
    assert seen(await store.get_steps(kept.id, 0, 9, MUCH)) == [seen(step(1))]
    assert await store.get_failed_attempts(kept.id, 1, 9, MUCH) == [failed_attempt(kept, 1, 1)]
    await store.commit(new(gone, steps=[step(1)]))


async def test_removing_what_is_not_there_does_nothing(store: Store) -> None:
    await store.commit(new(done(1)))
    await store.remove(Removal([("none", 1), (run(1).id, 9)], ["none"], [9]))
    await store.remove(Removal())
    assert await ids(store) == [run(1).id]


@pytest.mark.parametrize(
    "removal", [Removal(runs=[run(1).id]), Removal(events=[1]), Removal(steps=[(run(1).id, 2)], events=[1])]
)
async def test_nothing_is_removed_that_something_refers_to(store: Store, removal: Removal) -> None:
    await store.commit(new(done(1), steps=[step(1), step(2)]))
    with pytest.raises(StoreError):
        await store.remove(removal)
    with pytest.raises(StoreError, match="close it and open it again"):
        await store.confirm()
    await store.close()
    await store.open()
    assert [found.number for found in await store.get_steps(run(1).id, 0, 9, MUCH)] == [1, 2]
    assert await positions(store) == [1]


async def test_a_sweep_removes_runs_that_ended_long_ago_with_their_events(store: Store) -> None:
    old, failed, recent = done(1), done(2, state=RunState.FAILED), done(3, ended_at=LATER - KEPT_SECONDS)
    await store.commit(new(old, failed, recent, steps=[step(1), step(2)]))
    assert await sweep(store) == 2
    assert await ids(store) == [recent.id]
    assert await positions(store) == [3]
    assert await sweep(store) == 0


async def test_what_has_not_ended_stays_with_every_event_that_it_may_wait_for(store: Store) -> None:
    asleep = run(2, wake_at=LATER * 2)
    await store.commit(new(done(1), asleep, done(3)))
    await store.commit(Writes(events=[event(4), event(5)]))
    assert await sweep(store) == 2
    assert await ids(store) == [asleep.id]
    assert await positions(store) == [2, 3, 4, 5]
    asleep.state, asleep.wake_at, asleep.ended_at = RunState.SUCCEEDED, None, START + 9
    await store.commit(Writes(runs={asleep.id: asleep}))
    assert await sweep(store) == 1
    assert await positions(store) == [5]


async def test_a_child_stays_until_its_parent_was_told(store: Store) -> None:
    parent = run(1)
    child = child_of(parent, 2, state=RunState.SUCCEEDED, ended_at=START + 3, wake_at=None)
    invoke = invoking(child)
    await store.commit(new(parent, child, steps=[invoke]))
    assert await sweep(store) == 0
    assert [found.id for found in await store.ended_children(9, MUCH)] == [child.id]
    invoke.state = StepState.SUCCEEDED
    await store.commit(Writes(steps={(parent.id, 1): invoke}))
    assert await sweep(store) == 1
    assert await ids(store) == [parent.id]


async def test_an_event_stays_while_its_id_makes_it_once_only(store: Store) -> None:
    await store.commit(new(done(1), done(2)))
    assert await sweep(store, Idle(START + EVENT_ID_WINDOW)) == 2
    assert await positions(store) == [1, 2]
    assert await store.known_events([event(1).key], START + 1) == known(event(1))
    await sweep(store, Idle(START + EVENT_ID_WINDOW + 2.5))
    assert await positions(store) == [2]


async def test_positions_go_on_from_the_newest_event_after_all_was_removed(store: Store) -> None:
    await store.commit(new(done(1), done(2)))
    assert await sweep(store) == 2
    assert await ids(store) == []
    await store.close()
    assert (await store.open()).last_position == 2


async def test_a_clock_that_was_set_forward_makes_nothing_older(store: Store) -> None:
    await store.commit(new(done(1)))
    assert await sweep(store, Idle(LATER, moved=LATER - START)) == 0
    assert await sweep(store, Idle(LATER, moved=-LATER)) == 1


async def test_runs_with_more_steps_than_a_transaction_should_have_go_too(store: Store) -> None:
    large, small = done(1), done(2)
    writes = new(large, small, steps=[step(number) for number in range(1, 2 * ROWS_A_REMOVAL + 2)])
    writes.new_steps |= {(small.id, number): step(number) for number in range(1, 9)}
    await store.commit(writes)
    assert await sweep(store) == 2
    assert await ids(store) == []
    assert await store.get_steps(large.id, 0, 9, MUCH) == []


async def test_a_sweep_goes_on_over_many_events(store: Store) -> None:
    count = 2 * EVENTS_A_LOOK + 3
    runs = [done(number) if number % 2 else run(number) for number in range(1, count)]
    await store.commit(new(*runs))
    assert await sweep(store) == sum(one.state.ended for one in runs)
    assert await ids(store) == [one.id for one in runs if not one.state.ended]


async def test_a_sweep_ends_when_the_engine_fails(store: Store) -> None:
    await store.commit(new(done(1)))
    engine = Idle()
    engine.failing = True
    assert await sweep(store, engine) == 0
    assert await ids(store) == [run(1).id]
