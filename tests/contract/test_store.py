"""What every store must do; one suite for all of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from random import Random
from string import ascii_letters, digits

import pytest

from stepwire_core.commands import Writes
from stepwire_core.model import (
    Event,
    Failure,
    Function,
    FunctionOptions,
    Retry,
    Run,
    RunState,
    Step,
    StepKey,
    StepKind,
    StepState,
)
from stepwire_executor.incoming import LONGEST_NAME
from stepwire_executor.matching import LONGEST_PATH_BYTES, MOST_MATCH_BYTES
from stepwire_executor.store import Opened, RunFilter, Store, StoreError, sql
from tests.contract.store_rows import (
    HARD,
    MUCH,
    START,
    as_listed,
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
    whole,
)

DEEP = Failure(
    HARD, HARD, HARD, False, 1.5, Failure("Cause", "of it", cause=Failure("Root", "", details=b"\0\xff")), b""
)


async def reopen(store: Store) -> None:
    await store.close()
    await store.open()


async def test_every_opening_has_a_greater_epoch(store: Store) -> None:
    epochs = []
    for _ in range(3):
        await store.close()
        epochs.append((await store.open()).epoch)
    assert epochs == sorted(set(epochs))


async def test_closing_again_does_nothing(store: Store) -> None:
    await store.close()
    await store.close()


async def test_a_store_that_is_not_open_says_so(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreError, match="not open"):
        await store.next_wake(0.0)
    with pytest.raises(StoreError, match="not open"):
        await store.commit(new(run(1)))


async def test_an_empty_store_has_nothing(store: Store) -> None:
    assert await store.next_wake(0.0) is None
    assert await store.get_run("none") is None
    assert await store.load_runs(["none"]) == []
    assert await store.get_steps("none", 0, 10, MUCH) == []
    assert await store.count_steps(["none"]) == {}
    assert await store.count_steps([]) == {}
    assert await store.get_failed_attempts("none", 1, 9, MUCH) == []
    assert await store.list_runs(RunFilter(), "", 10, MUCH) == []
    assert await store.known_events([((), "none")], 0.0) == {}
    assert await store.known_events([], 0.0) == {}
    assert await store.find_events("none", "shop", 0, 10, 1 << 30) == []
    assert await store.wait_apps("none") == []
    assert await store.wait_paths("none", "shop", None, 10) == []
    assert await store.find_waits("none", "shop", "", "", None, 10) == []
    assert await waits_of(store) == []
    assert await store.hot_runs("", 10) == []
    assert await store.due_runs(1e12, 10) == []
    assert await store.ended_children(10, MUCH) == []
    assert await store.orphans(10) == []


async def test_a_large_batch_that_was_read_ahead_is_written_as_it_was_then(store: Store) -> None:
    writes = new(*(run(number) for number in range(1, 1_200)), steps=[step(number) for number in range(1, 1_200)])
    pieces = list(store.read_ahead(writes))
    assert not pieces or len(pieces) >= 2
    await store.commit(new(run(2_000)))
    await store.commit(writes)
    found = {each.id: each for each in await store.load_runs([*writes.new_runs, run(2_000).id])}
    assert len(found) == 1_200
    assert seen(found[run(1).id]) == seen(whole(run(1), *(step(number) for number in range(1, 1_200))))
    assert not list(store.read_ahead(new(run(3_000))))


async def test_an_empty_batch_may_be_committed(store: Store) -> None:
    await store.commit(Writes())


def full_run() -> Run:
    """Make a run in which nothing has its default."""
    its_event = event(7, id=HARD, name=HARD, data=b"\0\xff", traceparent="00-1", tracestate=HARD, digest="d", time=0.5)
    its_event = replace(its_event, run_ids=("r1", HARD), apps=(HARD, "shop"))
    parent = StepKey(HARD, 3)
    times = {"started_at": 1.25, "ended_at": 2.5, "deadline_at": 1e10, "retry_at": 1.7e9, "wake_at": 4.5}
    other = {"app": HARD, "function_id": HARD, "app_version": HARD, "cancel_reason": HARD, "parent_run_id": HARD}
    numbers = {"attempt": 3, "lost_invocations": 4, "depth": 5}
    return run(
        7,
        its_event,
        **times,
        **other,
        **numbers,
        parent_key=parent,
        output=b"\0o",
        failure=DEEP,
        state=RunState.RUNNING,
    )


def full_step(number: int = 1) -> Step:
    """Make a step in which nothing that is stored has its default."""
    plan = {"target": HARD, "input": b"\0i\xff", "retry": Retry(1, 0.1, 2.5, 1.0), "source": HARD, "found_after": 3}
    times = {"attempt_timeout": 0.25, "step_timeout": 9.5, "planned_at": 1.7e9, "started_at": 2.0, "ended_at": 3.5}
    result = {"due_at": 0.1, "sequence": 2, "output": b"\0", "failure": DEEP, "timed_out": True, "child_run_id": HARD}
    result["event_position"] = 2**50
    now = {"state": StepState.RETRYING, "attempt": 2, "fence": 2**62, "worker": HARD}
    return step(number, key=StepKey(HARD, 4), kind=StepKind.INVOKE, **plan, **times, **result, **now)


async def test_everything_comes_back_as_it_was(store: Store) -> None:
    the_run, the_step, attempt = full_run(), full_step(), None
    the_wait = wait(the_run, 1, key=StepKey(HARD, 1), event_name=HARD, paths=HARD, match=HARD, since=2**40)
    attempt = failed_attempt(the_run, 1, 1, fence=2**62, worker=HARD, failure=DEEP)
    options = FunctionOptions(HARD, (HARD, "b"), Retry(0), 12.5)
    function = Function(HARD, options, HARD, 1.5, 3.25)
    plain = Function("app", FunctionOptions("f"), "", 0.0)
    writes = new(the_run, steps=[the_step])
    writes.new_waits, writes.failed_attempts, writes.functions = waits_by_key(the_wait), [attempt], [function, plain]
    await store.commit(writes)
    await store.close()
    opened = await store.open()

    assert sorted(opened.functions, key=lambda one: one.app) == sorted([function, plain], key=lambda one: one.app)
    assert opened.last_position == 7
    assert seen(await store.get_run(the_run.id)) == seen(the_run)
    assert seen(await store.get_steps(the_run.id, 0, 9, MUCH)) == [seen(the_step)]
    assert seen(await store.load_runs([the_run.id])) == [seen(whole(the_run, the_step))]
    assert await store.get_failed_attempts(the_run.id, 1, 1, MUCH) == [attempt]
    assert await store.find_waits(HARD, HARD, HARD, HARD, None, 9) == [the_wait]
    assert await store.wait_paths(HARD, HARD, None, 9) == [HARD]
    assert await store.wait_apps(HARD) == [HARD]
    assert await store.known_events([the_run.event.key], 0.0) == known(the_run.event)
    assert await store.find_events(HARD, "shop", 0, 9, 1 << 30) == [the_run.event]


async def test_what_is_absent_stays_absent(store: Store) -> None:
    bare = step(1)
    the_run = run(1)
    await store.commit(new(the_run, steps=[bare]))
    await reopen(store)
    assert seen(await store.get_run(the_run.id)) == seen(run(1))
    assert seen(await store.get_steps(the_run.id, 0, 9, MUCH)) == [seen(step(1))]


async def test_empty_is_not_absent(store: Store) -> None:
    the_run, done = run(1, output=b""), step(1, output=b"", failure=Failure("", ""))
    await store.commit(new(the_run, steps=[done]))
    [found] = await store.get_steps(the_run.id, 0, 9, MUCH)
    assert (found.output, found.failure) == (b"", Failure("", ""))
    stored = await store.get_run(the_run.id)
    assert stored is not None
    assert stored.output == b""


async def test_a_failure_may_have_very_many_causes(store: Store) -> None:
    failure = None
    for depth in range(5000):
        failure = Failure("E", str(depth), cause=failure)
    the_run = run(1, failure=failure)
    await store.commit(new(the_run))
    found = await store.get_run(the_run.id)
    assert found is not None
    depth, at = 0, found.failure
    while at is not None:
        depth, at = depth + 1, at.cause
    assert depth == 5000


async def test_large_values_come_back(store: Store) -> None:
    blob = bytes(range(256)) * (4 << 12)
    the_run, big = run(1, event(1, data=blob), output=blob), step(1, input=blob, output=blob)
    await store.commit(new(the_run, steps=[big]))
    await reopen(store)
    [found] = await store.load_runs([the_run.id])
    assert (found.event.data, found.output) == (blob, blob)
    assert (found.steps[big.key].input, found.steps[big.key].output) == (blob, blob)


async def test_a_change_is_written_to_all_that_may_change(store: Store) -> None:
    the_run, the_step = run(7, full_run().event, app=HARD, function_id=HARD), step(1, key=StepKey(HARD, 4))
    await store.commit(new(the_run, steps=[the_step]))
    changed, done = full_run(), full_step()
    for name in ("parent_run_id", "parent_key", "depth"):
        setattr(changed, name, getattr(the_run, name))
    for name in ("kind", "target", "input", "retry", "attempt_timeout", "step_timeout", "source", "found_after"):
        setattr(done, name, getattr(the_step, name))
    done.planned_at = the_step.planned_at
    await store.commit(Writes(runs={changed.id: changed}, steps={(changed.id, 1): done}))
    await reopen(store)
    assert seen(await store.get_run(changed.id)) == seen(changed)
    assert seen(await store.get_steps(changed.id, 0, 9, MUCH)) == [seen(done)]


async def test_what_is_new_and_changed_is_written_once_as_it_is(store: Store) -> None:
    the_run, the_step = run(1), step(1)
    writes = new(the_run, steps=[the_step])
    writes.runs[the_run.id] = the_run
    writes.steps[the_run.id, 1] = the_step
    the_run.state, the_step.state = RunState.RUNNING, StepState.WAITING
    await store.commit(writes)
    assert seen(await store.load_runs([the_run.id])) == [seen(whole(the_run, the_step))]


@pytest.mark.parametrize("as_task", [False, True])
async def test_a_batch_is_read_when_commit_is_called(store: Store, as_task: bool) -> None:
    the_run, the_step = run(1), step(1)
    writes = new(the_run, steps=[the_step])
    committing = store.commit(writes)
    awaitable = asyncio.ensure_future(committing) if as_task else committing
    the_run.state, the_step.state, the_step.output = RunState.FAILED, StepState.SUCCEEDED, b"later"
    writes.events.clear()
    writes.new_steps.clear()
    await awaitable
    assert seen(await store.load_runs([the_run.id])) == [seen(whole(run(1), step(1)))]


async def test_changes_of_what_was_read_or_written_do_not_leak_into_the_store(store: Store) -> None:
    the_run, the_step = run(1), step(1)
    await store.commit(new(the_run, steps=[the_step]))
    the_step.state = the_step.state.FAILED
    [loaded] = await store.load_runs([the_run.id])
    loaded.state = RunState.FAILED
    loaded.steps[the_step.key].output = b"changed"
    assert seen(await store.load_runs([the_run.id])) == [seen(whole(run(1), step(1)))]


async def test_a_refused_batch_leaves_nothing(store: Store) -> None:
    await store.commit(new(run(1)))
    writes = new(run(2), steps=[step(1)])
    writes.steps[run(1).id, 5] = step(5)
    with pytest.raises(StoreError):
        await store.commit(writes)
    with pytest.raises(StoreError, match="close it and open it again"):
        await store.commit(new(run(3)))
    await reopen(store)
    assert [found.id for found in await store.list_runs(RunFilter(), "", 9, MUCH)] == [run(1).id]
    assert await store.find_events("paid", "shop", 1, 9, 1 << 30) == []
    await store.commit(new(run(3)))


def refused() -> dict[str, Writes]:
    """Give batches that contradict a store with run 1, its step 1, a wait and a failed attempt."""
    return {
        "a run again": Writes(new_runs={run(1).id: run(1)}),
        "an event's position again": Writes(events=[event(1)]),
        "a run without its event": Writes(new_runs={run(2).id: run(2)}),
        "a change of no run": Writes(runs={run(2).id: run(2)}),
        "a step again": Writes(new_steps={(run(1).id, 1): step(1)}),
        "a change of no step": Writes(steps={(run(1).id, 2): step(2)}),
        "a step of no run": Writes(new_steps={(run(2).id, 1): step(1)}),
        "a wait again": Writes(new_waits=waits_by_key(wait(run(1), 1))),
        "a wait of no run": Writes(new_waits=waits_by_key(wait(run(2), 1))),
        "a failed attempt again": Writes(failed_attempts=[failed_attempt(run(1), 1, 1)]),
        "a failed attempt of no step": Writes(failed_attempts=[failed_attempt(run(1), 2, 1)]),
    }


@pytest.mark.parametrize("what", refused())
async def test_a_batch_that_contradicts_the_store_is_refused(store: Store, what: str) -> None:
    writes = new(run(1), steps=[step(1)])
    writes.new_waits, writes.failed_attempts = waits_by_key(wait(run(1), 1)), [failed_attempt(run(1), 1, 1)]
    await store.commit(writes)
    with pytest.raises(StoreError):
        await store.commit(refused()[what])


async def test_ended_runs_are_not_loaded(store: Store) -> None:
    ended, first, second = run(1, state=RunState.SUCCEEDED), run(2), run(3)
    await store.commit(new(ended, first, second))
    loaded = await store.load_runs([second.id, ended.id, first.id, second.id, "none"])
    assert [found.id for found in loaded] == [second.id, first.id]
    assert seen(await store.get_run(ended.id)) == seen(ended)


async def test_a_journal_is_loaded_in_the_order_of_its_sequence(store: Store) -> None:
    the_run = run(1)
    steps = [
        step(1, sequence=2, state=StepState.SUCCEEDED, output=b"12345"),
        step(2),
        step(3, sequence=1, state=StepState.FAILED, failure=Failure("E", "m")),
    ]
    await store.commit(new(the_run, steps=steps))
    [found] = await store.load_runs([the_run.id])
    assert [one.number for one in found.steps.values()] == [1, 2, 3]
    assert [one.number for one in found.journal] == [3, 1]
    assert list(found.open) == [StepKey("step-2", 0)]
    assert found.journal_bytes == whole(run(1), *steps).journal_bytes > 5
    assert found.open[StepKey("step-2", 0)] is found.steps[StepKey("step-2", 0)]


async def test_hot_runs_are_paged_by_id(store: Store) -> None:
    hot = [run(number) for number in (1, 2, 3, 4)]
    asleep, parked = run(5, wake_at=START), run(6, wake_at=None)
    await store.commit(new(*reversed(hot), asleep, parked, run(7, state=RunState.CANCELLED)))
    ids = [one.id for one in hot]
    assert await store.hot_runs("", 3) == ids[:3]
    assert await store.hot_runs(ids[2], 3) == ids[3:]
    assert await store.hot_runs(ids[3], 3) == []


async def test_due_runs_come_with_the_earliest_first(store: Store) -> None:
    late, early, later = run(1, wake_at=START + 2), run(2, wake_at=START + 1), run(3, wake_at=START + 2.5)
    ended = run(4, wake_at=START + 1, state=RunState.FAILED)
    await store.commit(new(late, early, later, ended, run(5), run(6, wake_at=None)))
    assert await store.due_runs(START + 2, 9) == [early.id, late.id]
    assert await store.due_runs(START + 9, 2) == [early.id, late.id]
    assert await store.due_runs(START, 9) == []
    assert await store.next_wake(0.0) == START + 1
    assert await store.next_wake(START + 1) == START + 2
    assert await store.next_wake(START + 2.5) is None
    early.wake_at = 0.0
    await store.commit(Writes(runs={early.id: early}))
    assert await store.next_wake(0.0) == START + 2
    assert await store.hot_runs("", 9) == [early.id, run(5).id]


async def test_the_newest_known_event_is_given(store: Store) -> None:
    first, second = event(1, id="same", received_at=START), event(2, id="same", received_at=START + 10)
    await store.commit(Writes(events=[first, second, event(3)]))
    keys = [first.key, ((), "other"), event(3).key, first.key]
    assert await store.known_events(keys, START) == known(second, event(3))
    assert await store.known_events([first.key], START + 10) == known(second)
    assert await store.known_events([first.key], START + 10.5) == {}


async def test_events_with_the_same_id_are_known_apart_by_whom_they_reach(store: Store) -> None:
    reached = [(), ("shop",), ("bank", "shop"), ("bank",)]
    events = [event(number, id="same", apps=apps) for number, apps in enumerate(reached, 1)]
    await store.commit(Writes(events=events[:-1]))
    keys = [each.key for each in events]
    assert await store.known_events(keys, 0.0) == known(*events[:-1])
    assert await store.known_events(keys[1:2], 0.0) == known(events[1])
    assert await store.known_events(keys[3:], 0.0) == {}


async def test_very_many_events_can_be_asked_for_at_once(store: Store) -> None:
    events = [event(number) for number in range(1, 5001)]
    await store.commit(Writes(events=events))
    assert len(await store.known_events([one.key for one in events], 0.0)) == 5000


async def test_events_are_found_in_the_order_of_their_positions(store: Store) -> None:
    events = [event(4), event(1), event(3, name="other"), event(2), event(5)]
    await store.commit(Writes(events=events))
    assert await store.find_events("paid", "shop", 1, 2, 1 << 30) == [event(2), event(4)]
    assert await store.find_events("paid", "shop", 4, 9, 1 << 30) == [event(5)]
    await store.close()
    assert (await store.open()).last_position == 5


async def test_waits_are_found_by_exactly_their_values(store: Store) -> None:
    the_run, other = run(1), run(2)
    same = [wait(the_run, 1), wait(the_run, 2), wait(other, 1)]
    different = [
        wait(the_run, 3, event_name="Paid"),
        wait(the_run, 4, paths='["ID"]'),
        wait(the_run, 5, match="[2]"),
        wait(the_run, 6, paths="", match=""),
    ]
    await store.commit(replace_waits(new(the_run, other), [*different, *same]))
    assert await store.find_waits("paid", "shop", '["id"]', "[1]", None, 9) == same
    assert await store.find_waits("paid", "shop", '["id"]', "[1]", None, 2) == same[:2]
    assert await store.wait_paths("paid", "shop", None, 9) == ["", '["ID"]', '["id"]']
    assert await store.wait_paths("Paid", "shop", None, 9) == ['["id"]']
    assert await store.wait_paths("nothing", "shop", None, 9) == []


async def test_waits_are_found_by_their_app(store: Store) -> None:
    ours, theirs = run(1), run(2, app="other")
    mine, other = wait(ours, 1), wait(theirs, 1, paths='["else"]')
    await store.commit(replace_waits(new(ours, theirs), [mine, wait(theirs, 2), other]))
    assert await store.wait_apps("paid") == ["other", "shop"]
    assert await store.wait_paths("paid", "shop", None, 9) == ['["id"]']
    assert await store.wait_paths("paid", "other", None, 9) == ['["else"]', '["id"]']
    assert await waits_of(store) == [mine]
    assert await waits_of(store, app="other") == [wait(theirs, 2)]
    await store.commit(Writes(ended_waits={(ours.id, mine.key): None}))
    assert await store.wait_apps("paid") == ["other"]


async def test_waits_are_found_however_many_names_they_have_and_after_a_reopening(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "MOST_NAMES", 3)
    the_run, names = run(1), [f"name-{n}" for n in range(6)]
    await store.commit(new(the_run))
    for number, name in enumerate(names):
        assert await store.wait_apps(name) == []
        await store.commit(Writes(new_waits=waits_by_key(wait(the_run, number, event_name=name))))
        assert await store.wait_apps(name) == ["shop"]
    await reopened(store)
    await store.shrink()
    assert [await store.wait_apps(name) for name in names] == [["shop"]] * 6
    await store.commit(Writes(ended_waits={(the_run.id, StepKey(f"wait-{n}", 0)): None for n in range(4)}))
    await reopened(store)
    assert [await store.wait_apps(name) for name in names] == [[]] * 4 + [["shop"]] * 2


async def test_the_paths_of_waits_are_read_in_pages(store: Store) -> None:
    the_run = run(1)
    waits = [wait(the_run, n, paths=f'["p{n:02}"]') for n in range(10)]
    await store.commit(replace_waits(new(the_run), [*waits, wait(the_run, 10, paths="")]))
    read: list[str] = []
    after = None
    while page := await store.wait_paths("paid", "shop", after, 4):
        assert len(page) <= 4
        read += page
        after = page[-1]
    assert read == ["", *(one.paths for one in waits)]


async def test_the_largest_wait_that_the_contract_allows_is_kept_and_found(store: Store) -> None:
    draw = Random(1)

    def text(size: int) -> str:  # PostgreSQL compresses what it can, before it says that a row of an index is too large
        return "".join(draw.choices(ascii_letters + digits, k=size))

    the_run = run(1, app=text(LONGEST_NAME))
    paths = json.dumps([text(LONGEST_PATH_BYTES)])
    match = json.dumps([text(MOST_MATCH_BYTES - len(paths) - 4)])
    largest = wait(the_run, 1, event_name=text(256), paths=paths, match=match, key=StepKey(text(1_024), 0))
    await store.commit(replace_waits(new(the_run), [largest]))
    assert await store.find_waits(largest.event_name, the_run.app, paths, match, None, 9) == [largest]


def replace_waits(writes: Writes, waits: list) -> Writes:  # type: ignore[type-arg]
    writes.new_waits = waits_by_key(*waits)
    return writes


async def test_waits_end_one_by_one(store: Store) -> None:
    the_run = run(1)
    waits = [wait(the_run, 1), wait(the_run, 1, key=StepKey("wait-1", 1)), wait(the_run, 2)]
    await store.commit(replace_waits(new(the_run), waits))
    await store.commit(
        Writes(ended_waits={(the_run.id, waits[0].key): None, (the_run.id, StepKey("never was", 0)): None})
    )
    assert await waits_of(store) == waits[1:]
    await store.commit(Writes(ended_waits={(the_run.id, one.key): None for one in waits}))
    assert await store.wait_paths("paid", "shop", None, 9) == []
    assert await waits_of(store) == []


async def test_a_wait_that_ends_with_its_beginning_leaves_nothing(store: Store) -> None:
    the_run = run(1)
    writes = replace_waits(new(the_run), [wait(the_run, 1)])
    writes.end_wait(the_run.id, wait(the_run, 1).key)
    await store.commit(writes)
    assert await waits_of(store) == []


async def test_a_wait_that_ends_and_begins_anew_in_a_batch_is_there(store: Store) -> None:
    the_run, the_wait = run(1), wait(run(1), 1)
    first = replace_waits(new(the_run), [the_wait])
    first.end_wait(the_run.id, the_wait.key)
    first.begin_wait(the_wait)
    await store.commit(first)
    assert await waits_of(store) == [the_wait]
    again = Writes()
    for _ in range(2):
        again.end_wait(the_run.id, the_wait.key)
        again.begin_wait(the_wait)
    await store.commit(again)
    assert await waits_of(store) == [the_wait]


async def test_names_that_are_waited_for_are_paged(store: Store) -> None:
    the_run = run(1)
    names = ["a", "a\0", "b", "é", "\uffff", "😀"]
    waits = [wait(the_run, number, event_name=name) for number, name in enumerate([*names, *names])]
    await store.commit(replace_waits(new(the_run), waits))
    read, after = [], ""
    while page := await store.wait_names(after, 4):
        read += page
        after = page[-1]
    assert read == names


async def test_events_are_read_within_a_number_of_bytes_and_at_least_one(store: Store) -> None:
    sizes = [10, 10, 5000, 10]
    await store.commit(Writes(events=[event(at, data=b"x" * size) for at, size in enumerate(sizes, 1)]))

    async def page(after: int, limit: int, most_bytes: int) -> list[int]:
        return [found.position for found in await store.find_events("paid", "shop", after, limit, most_bytes)]

    assert await page(0, 9, 10) == [1]
    assert await page(0, 9, 11) == [1, 2]
    assert await page(0, 9, 21) == [1, 2, 3], "what is over the limit is the last one"
    assert await page(2, 9, 1) == [3]
    assert await page(2, 1, 1 << 20) == [3]
    assert await page(0, 9, 1 << 20) == [1, 2, 3, 4]
    assert await store.find_positions("paid", "shop", 1, 2) == [2, 3]
    assert await store.find_positions("paid", "shop", 3, 9) == [4]


async def test_an_app_finds_the_events_that_reach_it_and_no_others(store: Store) -> None:
    others = [(f"app-{number}", "shop") for number in range(250)]
    reached = [(), ("shop",), ("bank",), ("bank", "shop"), ('"shop"',), ('bank", "shop',), ("shops",), *others]
    events = [event(at, apps=reached[at % len(reached)]) for at in range(1, 2 * len(reached) + 1)]
    await store.commit(Writes(events=events[:99]))
    await store.commit(Writes(events=events[99:]))
    for _ in range(2):
        for app in ("shop", "bank", "nobody"):
            its = [each for each in events if each.reaches(app)]
            assert await store.find_events("paid", app, 0, 1000, MUCH) == its
            assert await store.find_events("paid", app, 5, 3, MUCH) == [each for each in its if each.position > 5][:3]
            assert await store.find_positions("paid", app, 0, 1000) == [each.position for each in its]
            assert (
                await store.find_positions("paid", app, 7, 2)
                == [each.position for each in its if each.position > 7][:2]
            )
        await reopened(store)


async def test_up_to_which_event_waits_were_told_is_kept(store: Store) -> None:
    await store.commit(new(run(1)))
    assert (await reopened(store)).told == 0
    await store.commit(Writes(functions=[], events=[event(5)], told=5))
    await store.commit(Writes(events=[event(6)]))
    assert (await reopened(store)).told == 5


async def reopened(store: Store) -> Opened:
    await store.close()
    return await store.open()


async def test_waits_are_paged_by_run_and_key(store: Store) -> None:
    first, second = run(1), run(2)
    keys = [StepKey("a", 0), StepKey("a", 1), StepKey("a", 10), StepKey("a\0", 0), StepKey("b", 0), StepKey("é", 0)]
    keys += [StepKey("\uffff", 0), StepKey("😀", 0)]  # code points, not UTF-16 units, give the order
    waits = [wait(of, 0, key=key) for of in (first, second) for key in keys]
    await store.commit(replace_waits(new(first, second), waits[::-1]))
    read, after = [], None
    while page := await store.find_waits("paid", "shop", '["id"]', "[1]", after, 3):
        read += page
        after = (page[-1].run_id, page[-1].key)
    assert read == waits
    assert await store.find_waits("paid", "shop", '["id"]', "[1]", (first.id, None), 3) == waits[8:11]
    assert await store.find_waits("paid", "shop", '["id"]', "[1]", (second.id, None), 3) == []


async def test_ended_children_are_those_whose_parents_still_wait(store: Store) -> None:
    parents = [run(number) for number in (1, 2, 3)]
    gone = run(4, state=RunState.CANCELLED)
    told, untold, running, late = (child_of(parent, 10 + n) for n, parent in enumerate([*parents, gone]))
    told.state = untold.state = late.state = RunState.SUCCEEDED
    untold.output = b"result"
    writes = new(*parents, gone, told, untold, running, late)
    for child, state in ((told, StepState.SUCCEEDED), (untold, StepState.WAITING), (running, StepState.WAITING)):
        writes.new_steps[child.parent_run_id, 1] = invoking(child, state)
    writes.new_steps[gone.id, 1] = invoking(late)
    await store.commit(writes)
    assert seen(await store.ended_children(9, MUCH)) == [seen(as_listed(untold))]
    done = invoking(untold, StepState.SUCCEEDED)
    await store.commit(Writes(steps={(untold.parent_run_id, 1): done}))
    assert await store.ended_children(9, MUCH) == []


async def test_ended_children_are_limited(store: Store) -> None:
    parent = run(1)
    children = [run(10 + n, parent_run_id=parent.id, parent_key=StepKey("invoke", n), depth=1) for n in range(4)]
    writes = new(parent, *children)
    for number, child in enumerate(children, 1):
        child.state = RunState.FAILED
        writes.new_steps[parent.id, number] = replace(invoking(child), number=number)
    await store.commit(writes)
    assert [found.id for found in await store.ended_children(3, MUCH)] == [child.id for child in children[:3]]


async def test_pages_of_what_may_be_large_end_by_their_bytes(store: Store) -> None:
    failure = Failure("E", "m" * 1000)
    parent = run(1)
    children = [run(10 + n, parent_run_id=parent.id, parent_key=StepKey("invoke", n), depth=1) for n in range(4)]
    writes = new(parent, *children)
    for number, child in enumerate(children, 1):
        child.state, child.output, child.failure = RunState.FAILED, bytes(1000), failure
        writes.new_steps[parent.id, number] = replace(invoking(child), number=number, input=bytes(1000))
    writes.failed_attempts = [failed_attempt(parent, at, n, failure=failure) for at in (1, 2, 4) for n in (1, 2, 3)]
    await store.commit(writes)
    for most_bytes, count in ((1, 1), (1000, 1), (3000, 2), (1 << 20, 4)):
        assert len(await store.ended_children(9, most_bytes)) == count
    for most_bytes, count in ((1, 1), (1000, 1), (1001, 2), (3001, 4)):
        assert len(await store.get_steps(parent.id, 0, 9, most_bytes)) == count
    for most_bytes, count in ((1, 1), (1500, 2), (1 << 20, 4)):
        assert len(await store.list_runs(RunFilter(parent_run_id=parent.id), "", 9, most_bytes)) == count
    for most_bytes, steps in ((1, [1]), (3000, [1]), (5000, [1, 2]), (1 << 20, [1, 2, 4])):
        found = await store.get_failed_attempts(parent.id, 1, 4, most_bytes)
        assert [attempt.step_number for attempt in found] == [at for at in steps for _ in range(3)]


async def test_lists_read_neither_outputs_nor_what_events_hold(store: Store) -> None:
    the_run = run(
        1, event(1, data=b"data", run_ids=("a", "b"), apps=("shop",)), output=b"output", state=RunState.SUCCEEDED
    )
    await store.commit(new(the_run, steps=[step(1, output=b"output", input=b"input", event_position=1)]))
    [found] = await store.list_runs(RunFilter(), "", 9, MUCH)
    assert (found.output, found.event) == (None, replace(the_run.event, data=b"", run_ids=(), apps=()))
    [its_step] = await store.get_steps(the_run.id, 0, 9, MUCH, outputs=False)
    assert (its_step.output, its_step.event_position, its_step.input) == (None, None, b"input")


async def test_orphans_are_runs_that_nobody_waits_for(store: Store) -> None:
    parents = [run(number) for number in (1, 2, 3)]
    gone = run(4, state=RunState.FAILED)
    given_up, wanted, ended, abandoned = (child_of(parent, 10 + n) for n, parent in enumerate([*parents, gone]))
    ended.state = RunState.SUCCEEDED
    writes = new(*parents, gone, given_up, wanted, ended, abandoned)
    for child, state in ((given_up, StepState.CANCELLED), (wanted, StepState.WAITING), (ended, StepState.FAILED)):
        writes.new_steps[child.parent_run_id, 1] = invoking(child, state)
    writes.new_steps[gone.id, 1] = invoking(abandoned)
    await store.commit(writes)
    assert await store.orphans(9) == [given_up.id, abandoned.id]
    assert await store.orphans(1) == [given_up.id]


async def test_steps_are_paged_by_number(store: Store) -> None:
    the_run = run(1)
    await store.commit(new(the_run, run(2), steps=[step(number) for number in (3, 1, 2, 11)]))
    assert [one.number for one in await store.get_steps(the_run.id, 0, 3, MUCH)] == [1, 2, 3]
    assert [one.number for one in await store.get_steps(the_run.id, 3, 3, MUCH)] == [11]
    assert await store.get_steps(run(2).id, 0, 3, MUCH) == []


async def test_steps_are_counted_by_state(store: Store) -> None:
    the_run = run(1)
    states = [StepState.READY, StepState.SUCCEEDED, StepState.SUCCEEDED, StepState.CANCELLED]
    steps = [step(number, state=state) for number, state in enumerate(states, 1)]
    await store.commit(new(the_run, steps=steps))
    other = run(2)
    await store.commit(new(other, run(3), steps=[step(1)]))
    counts = await store.count_steps([other.id, run(3).id, the_run.id])
    assert counts == {
        the_run.id: {StepState.READY: 1, StepState.SUCCEEDED: 2, StepState.CANCELLED: 1},
        other.id: {StepState.READY: 1},
    }


async def test_failed_attempts_are_given_by_step_and_attempt(store: Store) -> None:
    the_run = run(1)
    writes = new(the_run, steps=[step(number) for number in (1, 2, 3, 4)])
    places = [(3, 1), (2, 2), (2, 1), (4, 1), (1, 1), (2, 10)]
    writes.failed_attempts = [failed_attempt(the_run, *place) for place in places]
    await store.commit(writes)
    found = await store.get_failed_attempts(the_run.id, 2, 3, MUCH)
    assert [(one.step_number, one.number) for one in found] == [(2, 1), (2, 2), (2, 10), (3, 1)]


async def test_a_function_registered_again_replaces_itself(store: Store) -> None:
    old = Function("app", FunctionOptions("f", ("a",)), "1", START)
    newer = Function("app", FunctionOptions("f", ("b", "c"), Retry(2), 3.0), "2", START + 1)
    await store.commit(Writes(functions=[old, Function("app", FunctionOptions("g"), "1", START)]))
    await store.commit(Writes(functions=[old, newer]))
    await store.close()
    functions = {function.key: function for function in (await store.open()).functions}
    assert functions[newer.key] == newer
    assert len(functions) == 2


def listed() -> list[Run]:
    shared = event(1)
    parent = run(1, shared)
    return [
        parent,
        run(2, shared, app="other"),
        run(3, function_id="ship", state=RunState.RUNNING),
        run(4, state=RunState.FAILED, parent_run_id=parent.id, parent_key=StepKey("i", 0)),
        run(5, event(5, id="event-1"), state=RunState.SUCCEEDED),
        run(6, app="other", function_id="ship", state=RunState.CANCELLED),
    ]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (RunFilter(), [6, 5, 4, 3, 2, 1]),
        (RunFilter(app="shop"), [5, 4, 3, 1]),
        (RunFilter(app="shop", function_id="bill"), [5, 4, 1]),
        (RunFilter(function_id="ship"), [6, 3]),
        (RunFilter(app="shop", function_id="nothing"), []),
        (RunFilter(states=(RunState.FAILED,)), [4]),
        (RunFilter(states=(RunState.CANCELLED, RunState.FAILED)), [6, 4]),
        (RunFilter(states=(RunState.PENDING, RunState.RUNNING)), [3, 2, 1]),
        (RunFilter(states=(RunState.PENDING, RunState.SUCCEEDED)), [5, 2, 1]),
        (RunFilter(states=(RunState.PENDING, RunState.FAILED)), [4, 2, 1]),
        (RunFilter(app="other", states=(RunState.RUNNING, RunState.PENDING, RunState.CANCELLED)), [6, 2]),
        (RunFilter(function_id="ship", states=(RunState.RUNNING, RunState.CANCELLED)), [6, 3]),
        (RunFilter(event_id="event-1"), [5, 2, 1]),
        (RunFilter(event_id="event-1", app="other"), [2]),
        (RunFilter(parent_run_id=run(1).id), [4]),
        (RunFilter(parent_run_id=run(1).id, states=(RunState.RUNNING,)), []),
        (RunFilter(created_after=START + 3), [6, 5, 4, 3]),
        (RunFilter(created_before=START + 3), [2, 1]),
        (RunFilter(created_before=START + 3.0004), [3, 2, 1]),
        (RunFilter(created_after=START + 3.0004), [6, 5, 4]),
        (RunFilter(created_after=-6e10, created_before=2.5e11), [6, 5, 4, 3, 2, 1]),
        (RunFilter(created_before=START + 6, states=(RunState.FAILED, RunState.RUNNING)), [4, 3]),
        (RunFilter(created_after=START + 2, created_before=START + 5, app="shop"), [4, 3]),
        (RunFilter("other", "ship", (RunState.CANCELLED,), "event-6", "", START, START + 9), [6]),
    ],
)
async def test_runs_are_listed_newest_first_by_what_is_asked(
    store: Store, where: RunFilter, expected: list[int]
) -> None:
    runs = {one.id: one for one in listed()}
    await store.commit(new(*runs.values()))
    ids = [run(number).id for number in expected]
    found = await store.list_runs(where, "", 9, MUCH)
    assert [one.id for one in found] == ids
    assert seen(found) == [seen(as_listed(runs[id_])) for id_ in ids]
    paged: list[str] = []
    while page := await store.list_runs(where, paged[-1] if paged else "", 2, MUCH):
        assert len(page) <= 2
        paged += [one.id for one in page]
    assert paged == ids


async def test_reads_and_commits_may_be_called_at_once(store: Store) -> None:
    await store.commit(new(run(1)))
    commits = [store.commit(new(run(number))) for number in range(2, 30)]
    reads = [store.get_run(run(1).id) for _ in range(30)]
    found = await asyncio.gather(*commits, *reads)
    assert all(isinstance(one, Run) for one in found[28:])
    assert len(await store.list_runs(RunFilter(), "", 99, MUCH)) == 29


async def test_a_commit_whose_caller_has_gone_is_whole_or_nothing(store: Store) -> None:
    committing = asyncio.ensure_future(store.commit(new(run(1), steps=[step(n) for n in range(1, 2000)])))
    await asyncio.sleep(0)
    committing.cancel()
    await asyncio.gather(committing, return_exceptions=True)
    await reopen(store)
    assert len(await store.get_steps(run(1).id, 0, 9999, MUCH)) in (0, 1999)


async def test_an_event_is_shared_by_the_runs_that_it_started(store: Store) -> None:
    shared = Event("e", "n", b"data", START, position=3, received_at=START, run_ids=(run(1).id, run(2).id))
    await store.commit(new(run(1, shared), run(2, shared)))
    assert [found.event for found in await store.load_runs([run(1).id, run(2).id])] == [shared, shared]


async def test_functions_are_forgotten_one_by_one(store: Store) -> None:
    functions = [Function("app", FunctionOptions(id_), "v", 1.0, 2.5) for id_ in ("a", "b", "c")]
    await store.commit(Writes(functions=functions))
    await store.commit(Writes(forgotten={("app", "a"): None, ("app", "c"): None, ("app", "never"): None}))
    assert (await reopened(store)).functions == [functions[1]]
    again = replace(functions[0], served_at=9.0)
    await store.commit(Writes(functions=[again], forgotten={("app", "b"): None}))
    assert (await reopened(store)).functions == [again]


async def test_functions_of_unfinished_runs_are_read_in_pages(store: Store) -> None:
    ended = run(3, state=RunState.SUCCEEDED, ended_at=START, wake_at=None)
    runs = [run(1), run(2, function_id="other", wake_at=None), ended, run(4, app="bank", wake_at=START)]
    await store.commit(new(*runs))
    assert await store.unfinished_functions("", 2) == [(runs[0].id, "shop", "bill"), (runs[1].id, "shop", "other")]
    assert await store.unfinished_functions(runs[1].id, 9) == [(runs[3].id, "bank", "bill")]
    assert await store.unfinished_functions(runs[3].id, 9) == []
