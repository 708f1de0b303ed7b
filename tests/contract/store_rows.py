"""What the store's tests write, and how they compare what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from stepwire_core import ids
from stepwire_core.commands import Wait, Writes
from stepwire_core.model import (
    Event,
    EventKey,
    FailedAttempt,
    Failure,
    Run,
    RunState,
    Step,
    StepKey,
    StepKind,
    StepState,
    restore,
)
from stepwire_executor.store import RunFilter, Store
from stepwire_executor.store.memory import copy_run

START = 1_700_000_000.0
MUCH = 1 << 30
"""Bytes that no page of these tests has."""
HARD = "nul \0, emoji 👩‍🚒, accents éé, quotes '\"`, % _ \\ \n\t \x7f \ufffe"
"""A text that databases and JSON have been known to change."""


def event(position: int, **values: Any) -> Event:
    given = {"id": f"event-{position}", "name": "paid", "data": b"{}", "time": START + position, "position": position}
    return Event(**{**given, "received_at": START + position, **values})


def run(number: int, its_event: Event | None = None, **values: Any) -> Run:
    """Make a run; those with greater numbers are newer."""
    run_id = ids.run_id(b"", START + number, number)
    given = {"app": "shop", "function_id": "bill", "app_version": "v1", "created_at": START + number}
    return Run(**{**given, "id": run_id, "event": its_event or event(number), **values})


def known(*events: Event) -> dict[EventKey, Event]:
    """Give events as the store knows them by their keys: without their data."""
    return {each.key: replace(each, data=b"") for each in events}


def as_listed(of: Run) -> Run:
    """Give a run as lists tell of it: its event without what may be large."""
    new = copy_run(of)
    new.event = replace(of.event, data=b"", run_ids=(), apps=())
    return new


def step(number: int, **values: Any) -> Step:
    key = values.pop("key", StepKey(f"step-{number}", 0))
    return Step(key, number, values.pop("kind", StepKind.CLOSURE), **values)


def invoking(child: Run, state: StepState = StepState.WAITING) -> Step:
    """Make the step that invoked a child."""
    assert child.parent_key is not None
    kind, target = StepKind.INVOKE, f"{child.app}/{child.function_id}"
    return step(1, key=child.parent_key, kind=kind, target=target, state=state, child_run_id=child.id)


def child_of(parent: Run, number: int, **values: Any) -> Run:
    return run(number, parent_run_id=parent.id, parent_key=StepKey("invoke", 0), depth=1, **values)


def wait(of: Run, number: int, **values: Any) -> Wait:
    given = {"event_name": "paid", "paths": '["id"]', "match": "[1]", "since": 0, "key": StepKey(f"wait-{number}", 0)}
    return Wait(run_id=of.id, app=of.app, **{**given, **values})


def failed_attempt(of: Run, step_number: int, number: int, **values: Any) -> FailedAttempt:
    given = {"fence": number, "worker": "w", "started_at": START, "ended_at": START + 1, "failure": Failure("E", "m")}
    return FailedAttempt(of.id, step_number, number, **{**given, **values})


def waits_by_key(*waits: Wait) -> dict[tuple[str, StepKey], Wait]:
    """Give waits as a batch of writes has them."""
    return {(each.run_id, each.key): each for each in waits}


def new(*runs: Run, steps: Sequence[Step] = ()) -> Writes:
    """Write new runs with their events; the steps are the first run's."""
    writes = Writes(events=list({one.event.position: one.event for one in runs}.values()))
    writes.new_runs = {one.id: one for one in runs}
    writes.new_steps = {(runs[0].id, one.number): one for one in steps}
    return writes


def whole(of: Run, *steps: Step) -> Run:
    """Put steps into a run, as `load_runs` gives it."""
    return restore(of, steps)


def seen(value: Any) -> Any:
    """Give something that is equal if all that is stored of two values is; runs and steps themselves never are."""
    if isinstance(value, Step):
        return {field.name: getattr(value, field.name) for field in fields(Step) if field.name != "session"}
    if isinstance(value, Run):
        flat = {field.name: getattr(value, field.name) for field in fields(Run)}
        flat["steps"] = [seen(one) for one in value.steps.values()]
        return flat | {"journal": [one.key for one in value.journal], "open": list(value.open)}
    if isinstance(value, list):
        return [seen(one) for one in value]
    return value


async def waits_of(store: Store, name: str = "paid", app: str = "shop") -> list[Wait]:
    """Give an app's waits for an event that are as `wait` makes them."""
    return await store.find_waits(name, app, '["id"]', "[1]", None, 1000)


async def everything(store: Store, run_ids: Sequence[str], names: Sequence[str], keys: Sequence[EventKey]) -> Any:
    """Read all that can be read, in every way."""
    found: dict[str, Any] = {
        "load": await store.load_runs(run_ids),
        "hot": await store.hot_runs("", 1000),
        "due": await store.due_runs(START + 1e9, 1000),
        "next": await store.next_wake(0.0),
        "known": [await store.known_events(keys, since) for since in (0.0, START + 3, START + 1e9)],
        "names": await store.wait_names("", 1000),
        "children": await store.ended_children(1000, MUCH),
        "orphans": await store.orphans(1000),
        "aged": await store.aged_events(0, 1000),
        "runs": [await store.get_run(id_) for id_ in run_ids],
        "steps": [await store.get_steps(id_, 0, 1000, MUCH) for id_ in run_ids],
        "short steps": [await store.get_steps(id_, 0, 1000, 300) for id_ in run_ids],
        "steps without outputs": [await store.get_steps(id_, 0, 1000, 100, outputs=False) for id_ in run_ids],
        "failed": [await store.get_failed_attempts(id_, 1, 1000, MUCH) for id_ in run_ids],
        "short failed": [await store.get_failed_attempts(id_, 1, 1000, 100) for id_ in run_ids],
        "short children": await store.ended_children(1000, 100),
        "counts": await store.count_steps(run_ids),
        "events": [await store.find_events(name, "shop", 0, 1000, 1 << 30) for name in names],
    }
    for name in names:
        apps = found[f"apps {name}"] = await store.wait_apps(name)
        paths = [(app, path) for app in apps for path in await store.wait_paths(name, app, None, 1000)]
        found[f"paths {name}"] = paths
        found[f"found {name}"] = [await store.find_waits(name, *at, "[1]", None, 1000) for at in paths]
        found[f"others {name}"] = [await store.find_waits(name, *at, "[2]", None, 1000) for at in paths]
        found[f"positions {name}"] = [await store.find_positions(name, app, 1, 1000) for app in ("shop", "bank")]
        found[f"within {name}"] = await store.find_events(name, "bank", 0, 3, 20)
    for where in (
        RunFilter(),
        RunFilter(states=(RunState.FAILED, RunState.CANCELLED)),
        RunFilter(states=(RunState.PENDING,)),
        RunFilter(states=(RunState.SUCCEEDED, RunState.RUNNING)),
        RunFilter(app="shop", function_id="bill"),
        RunFilter(created_after=START + 2, created_before=START + 6),
        *(RunFilter(parent_run_id=id_) for id_ in run_ids[:2]),
        *(RunFilter(event_id=id_) for _, id_ in keys[:2]),
    ):
        found[f"list {where}"] = await store.list_runs(where, "", 1000, MUCH)
        found[f"short {where}"] = await store.list_runs(where, "", 1000, 100)
        found[f"page {where}"] = await store.list_runs(where, run_ids[-1], 2, MUCH)
    return {key: seen(value) for key, value in found.items()}
