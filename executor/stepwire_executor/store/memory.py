"""The store in memory: for tests, and to try Stepwire out. It outlives `close`, but not the process."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, TypeVar

from stepwire_core.commands import Wait, Writes
from stepwire_core.model import (
    Event,
    EventKey,
    FailedAttempt,
    Failure,
    Function,
    FunctionKey,
    Run,
    Step,
    StepKey,
    StepState,
    restore,
)
from stepwire_executor.store import AgedEvent, AgedRun, Opened, Removal, RunFilter, StoreError, rows

WaitKey = tuple[str, StepKey]
position_of = attrgetter("position")


@dataclass(slots=True)
class Tables:
    """Everything stored. Runs and steps are copies, which nobody else has."""

    functions: dict[FunctionKey, Function] = field(default_factory=dict)
    events: dict[int, Event] = field(default_factory=dict)
    events_by_key: dict[EventKey, list[Event]] = field(default_factory=dict)
    events_by_name: dict[str, dict[tuple[str, ...], list[Event]]] = field(default_factory=dict)
    """By whom they reach, in order."""
    runs: dict[str, Run] = field(default_factory=dict)
    unfinished: dict[str, Run] = field(default_factory=dict)
    steps: dict[str, dict[int, Step]] = field(default_factory=dict)
    """By run and number."""
    failed_attempts: dict[str, dict[tuple[int, int, int], FailedAttempt]] = field(default_factory=dict)
    """By run, and then by step number, attempt and fence."""
    waits: dict[WaitKey, Wait] = field(default_factory=dict)
    matches: dict[str, dict[str, dict[str, dict[str, dict[WaitKey, Wait]]]]] = field(default_factory=dict)
    """Waits by event name, app, paths and match."""
    told: int = 0


Row = TypeVar("Row", Run, Step)


def copy_row(row: Row) -> Row:
    """Copy a row as it is; `replace` takes six times as long."""
    new: Row = object.__new__(type(row))
    for name in row.__slots__:
        setattr(new, name, getattr(row, name))
    return new


def copy_run(run: Run) -> Run:
    """Copy a run without its steps."""
    new = copy_row(run)
    new.steps, new.journal, new.journal_bytes, new.open = {}, [], 0, {}
    return new


def copy_step(step: Step) -> Step:
    """Copy what is stored of a step."""
    new = copy_row(step)
    new.session = ""
    return new


def copied(writes: Writes) -> Writes:
    """Copy a batch, so that later changes don't show in it. What is both new and changed is only new."""
    return Writes(
        list(writes.events),
        {id_: copy_run(run) for id_, run in writes.new_runs.items()},
        {id_: copy_run(run) for id_, run in writes.runs.items() if id_ not in writes.new_runs},
        {at: copy_step(step) for at, step in writes.new_steps.items()},
        {at: copy_step(step) for at, step in writes.steps.items() if at not in writes.new_steps},
        list(writes.failed_attempts),
        list(writes.functions),
        dict(writes.forgotten),
        dict(writes.new_waits),
        dict(writes.ended_waits),
        writes.told,
    )


class MemoryStore:
    """A store in memory; see Store for what its methods do. It can be opened again after `close`, as a disk can."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._epoch = 0
        self._opened = False
        self._failed = False

    async def open(self) -> Opened:
        """See Store."""
        if self._opened:
            raise StoreError("the store is open already")
        self._opened, self._failed = True, False
        self._epoch += 1
        functions = [function for _, function in sorted(self._tables.functions.items())]
        return Opened(self._epoch, functions, max(self._tables.events, default=0), self._tables.told)

    async def close(self) -> None:
        """See Store."""
        self._opened = False

    @property
    def _at(self) -> Tables:
        if not self._opened:
            raise StoreError("the store is not open")
        if self._failed:
            raise failed()
        return self._tables

    def read_ahead(self, writes: Writes) -> Iterator[None]:
        """See Store; there is nothing to read."""
        return iter(())

    def commit(self, writes: Writes) -> Awaitable[None]:
        """See Store; it is written when awaited."""
        return self._commit(copied(writes))

    async def _commit(self, writes: Writes) -> None:
        at = self._at
        wrong = next(faults(at, writes), "")
        if wrong:
            self._failed = True
            raise StoreError(f"the store refuses a batch: {wrong}")
        apply(at, writes)

    async def remove(self, removal: Removal) -> None:
        """See Store."""
        at = self._at
        wrong = next(faults_of_removal(at, removal), "")
        if wrong:
            self._failed = True
            raise StoreError(f"the store refuses to remove: {wrong}")
        remove(at, removal)

    async def shrink(self) -> None:
        """See Store; it keeps nothing of the kind."""

    async def confirm(self) -> None:
        """See Store; nobody else can reach it. Raises StoreError once a write has failed."""
        if self._failed:
            raise failed()

    async def aged_events(self, after: int, limit: int) -> list[AgedEvent]:
        """See Store."""
        at = self._at
        positions = sorted(position for position in at.events if position > after)[:limit]
        runs: dict[int, list[AgedRun]] = {position: [] for position in positions}
        told_later = awaited(at)
        for id_, run in sorted(at.runs.items()):
            if run.event.position in runs:
                ended_at = run.ended_at if run.state.ended else None
                steps = max(at.steps.get(id_, ()), default=0)
                waits = bool(run.parent_run_id) and id_ in told_later
                runs[run.event.position].append(AgedRun(id_, ended_at, waits, steps))
        newest = max(at.events, default=0)
        return [AgedEvent(at_, at.events[at_].received_at, at_ == newest, runs[at_]) for at_ in positions]

    async def load_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """See Store."""
        at = self._at
        wanted = (at.unfinished[id_] for id_ in dict.fromkeys(run_ids) if id_ in at.unfinished)
        return [restore(copy_run(run), self._steps(run.id, 0)) for run in wanted]

    async def hot_runs(self, after: str, limit: int) -> list[str]:
        """See Store."""
        return sorted(id_ for id_, run in self._at.unfinished.items() if run.wake_at == 0 and id_ > after)[:limit]

    async def unfinished_functions(self, after: str, limit: int) -> list[tuple[str, str, str]]:
        """See Store."""
        ids = sorted(id_ for id_ in self._at.unfinished if id_ > after)[:limit]
        return [(id_, *self._at.unfinished[id_].function_key) for id_ in ids]

    async def due_runs(self, until: float, limit: int) -> list[str]:
        """See Store."""
        asleep = [(run.wake_at, id_) for id_, run in self._at.unfinished.items() if run.wake_at]
        return [id_ for wake_at, id_ in sorted(asleep) if wake_at <= until][:limit]

    async def next_wake(self, after: float) -> float | None:
        """See Store."""
        asleep = (run.wake_at for run in self._at.unfinished.values() if run.wake_at)
        return min((wake_at for wake_at in asleep if wake_at > after), default=None)

    async def known_events(self, keys: Sequence[EventKey], since: float) -> dict[EventKey, Event]:
        """See Store."""
        at = self._at
        found = {}
        for key in keys:
            recent = [event for event in at.events_by_key.get(key, ()) if event.received_at >= since]
            if recent:
                found[key] = replace(max(recent, key=lambda event: event.position), data=b"")
        return found

    async def find_events(self, name: str, app: str, after: int, limit: int, most_bytes: int) -> list[Event]:
        """See Store."""
        return within(islice(self._events(name, app, after), limit), most_bytes, lambda event: len(event.data))

    async def find_positions(self, name: str, app: str, after: int, limit: int) -> list[int]:
        """See Store."""
        return [event.position for event in islice(self._events(name, app, after), limit)]

    def _events(self, name: str, app: str, after: int) -> Iterator[Event]:
        """Give the events with a name that reach an app, behind a position, in order."""
        by_apps = self._at.events_by_name.get(name, {})
        reaching = [events for apps, events in by_apps.items() if not apps or app in apps]
        return merge(*(behind(events, after) for events in reaching), key=position_of)

    async def wait_names(self, after: str, limit: int) -> list[str]:
        """See Store."""
        return sorted(name for name in self._at.matches if name > after)[:limit]

    async def wait_apps(self, event_name: str) -> list[str]:
        """See Store."""
        return sorted(self._at.matches.get(event_name, ()))

    async def wait_paths(self, event_name: str, app: str, after: str | None, limit: int) -> list[str]:
        """See Store."""
        found = sorted(self._at.matches.get(event_name, {}).get(app, ()))
        return [paths for paths in found if after is None or paths > after][:limit]

    async def find_waits(
        self, event_name: str, app: str, paths: str, match: str, after: tuple[str, StepKey | None] | None, limit: int
    ) -> list[Wait]:
        """See Store."""
        found = self._at.matches.get(event_name, {}).get(app, {}).get(paths, {}).get(match, {})
        in_order = sorted(found.items())
        match after:
            case (run_id, None):
                in_order = [each for each in in_order if each[0][0] > run_id]
            case (_, _):
                in_order = [each for each in in_order if each[0] > after]
        return [wait for _, wait in in_order[:limit]]

    async def ended_children(self, limit: int, most_bytes: int) -> list[Run]:
        """See Store."""
        at = self._at
        children = (at.runs[id_] for id_ in sorted(awaited(at)) if id_ in at.runs and at.runs[id_].state.ended)
        found = within(islice(children, limit), most_bytes, lambda run: len(run.output or b"") + size_of(run.failure))
        return [brief(run) for run in found]

    async def orphans(self, limit: int) -> list[str]:
        """See Store."""
        at = self._at
        kept = awaited(at)
        return sorted(id_ for id_, run in at.unfinished.items() if run.parent_run_id and id_ not in kept)[:limit]

    async def get_run(self, run_id: str) -> Run | None:
        """See Store."""
        run = self._at.runs.get(run_id)
        return None if run is None else copy_run(run)

    async def get_steps(
        self, run_id: str, after_number: int, limit: int, most_bytes: int, *, outputs: bool = True
    ) -> list[Step]:
        """See Store."""
        steps = self._steps(run_id, after_number)[:limit]
        for step in steps if not outputs else ():
            step.output = step.event_position = None
        size = lambda step: len(rows.input_of(step)) + len(step.output or b"") + size_of(step.failure)  # noqa: E731
        return within(steps, most_bytes, size)

    def _steps(self, run_id: str, after_number: int) -> list[Step]:
        numbers = sorted(number for number in self._at.steps.get(run_id, ()) if number > after_number)
        return [copy_step(self._at.steps[run_id][number]) for number in numbers]

    async def get_failed_attempts(
        self, run_id: str, first_number: int, last_number: int, most_bytes: int
    ) -> list[FailedAttempt]:
        """See Store."""
        attempts = [attempt for _, attempt in sorted(self._at.failed_attempts.get(run_id, {}).items())]
        wanted = (attempt for attempt in attempts if first_number <= attempt.step_number <= last_number)
        by_step = [list(of_step) for _, of_step in groupby(wanted, key=attrgetter("step_number"))]
        found = within(by_step, most_bytes, lambda of_step: sum(size_of(attempt.failure) for attempt in of_step))
        return [attempt for of_step in found for attempt in of_step]

    async def count_steps(self, run_ids: Sequence[str]) -> dict[str, dict[StepState, int]]:
        """See Store."""
        steps = self._at.steps
        return {id_: dict(Counter(step.state for step in steps[id_].values())) for id_ in run_ids if steps.get(id_)}

    async def list_runs(self, where: RunFilter, before_id: str, limit: int, most_bytes: int) -> list[Run]:
        """See Store."""
        runs = (run for id_, run in self._at.runs.items() if not before_id or id_ < before_id)
        listed = sorted((run for run in runs if matches(run, where)), key=lambda run: run.id, reverse=True)
        found = [brief(run) for run in within(listed[:limit], most_bytes, lambda run: size_of(run.failure))]
        for run in found:
            run.output = None
        return found


def behind(events: Sequence[Event], after: int) -> Iterator[Event]:
    """Give the events behind a position, of some that are in order."""
    return (events[at] for at in range(bisect_right(events, after, key=position_of), len(events)))


def within(found: Iterable[Any], most_bytes: int, size: Callable[[Any], int]) -> list[Any]:
    """Give what comes before there are so many bytes; the first one always."""
    page: list[Any] = []
    room = most_bytes
    for each in found:
        if page and room <= 0:
            break
        page.append(each)
        room -= size(each)
    return page


def size_of(failure: Failure | None) -> int:
    """Give the bytes of a failure as a database has it."""
    return len(rows.dump_failure(failure) or "")


def brief(run: Run) -> Run:
    """Copy a run as a list tells of it; its event without what may be large."""
    new = copy_run(run)
    new.event = replace(run.event, data=b"", run_ids=(), apps=())
    return new


def failed() -> StoreError:
    """Give the error of everything after a failure."""
    return StoreError("the store has failed: close it and open it again")


def matches(run: Run, where: RunFilter) -> bool:
    """Whether a run is to be listed."""
    return (
        where.app in ("", run.app)
        and where.function_id in ("", run.function_id)
        and (not where.states or run.state in where.states)
        and where.event_id in ("", run.event.id)
        and where.parent_run_id in ("", run.parent_run_id)
        and (where.created_after is None or run.created_at >= where.created_after)
        and (where.created_before is None or run.created_at < where.created_before)
    )


def awaited(at: Tables) -> set[str]:
    """Give the runs that a waiting step of an unfinished run has invoked."""
    steps: Iterable[Step] = (step for id_ in at.unfinished for step in at.steps.get(id_, {}).values())
    return {step.child_run_id for step in steps if step.state is StepState.WAITING and step.child_run_id}


def faults(at: Tables, writes: Writes) -> Iterator[str]:
    """Say what a database would refuse: keys that exist already, rows that don't."""
    positions = [event.position for event in writes.events]
    if len(set(positions)) < len(positions) or not at.events.keys().isdisjoint(positions):
        yield "an event's position is taken"
    for run in writes.new_runs.values():
        if run.id in at.runs:
            yield f"run {run.id} exists"
        if run.event.position not in at.events and run.event.position not in positions:
            yield f"the event of run {run.id} does not exist"
    for id_ in writes.runs:
        if id_ not in at.runs:
            yield f"run {id_} does not exist"
    for id_, number in writes.new_steps:
        if number in at.steps.get(id_, ()):
            yield f"step {number} of run {id_} exists"
    for id_, number in writes.steps:
        if number not in at.steps.get(id_, ()):
            yield f"step {number} of run {id_} does not exist"
    for row in writes.failed_attempts:
        place = row.run_id, row.step_number
        if place not in writes.new_steps and row.step_number not in at.steps.get(row.run_id, ()):
            yield f"step {row.step_number} of run {row.run_id} does not exist"
        if (row.step_number, row.number, row.fence) in at.failed_attempts.get(row.run_id, ()):
            yield f"attempt {row.number} of step {row.step_number} of run {row.run_id} exists"
    if not at.waits.keys().isdisjoint(writes.new_waits):
        yield "a wait exists"
    for id_ in [id_ for id_, _ in writes.new_steps] + [id_ for id_, _ in writes.new_waits]:
        if id_ not in at.runs and id_ not in writes.new_runs:
            yield f"run {id_} does not exist"


def apply(at: Tables, writes: Writes) -> None:
    """Write a batch that has no faults."""
    for event in writes.events:
        at.events[event.position] = event
        at.events_by_key.setdefault(event.key, []).append(event)
        insort(at.events_by_name.setdefault(event.name, {}).setdefault(event.apps, []), event, key=position_of)
    at.runs.update(writes.new_runs)
    for id_, run in writes.runs.items():
        change(at.runs[id_], run, rows.RUN_CHANGING)
    for id_ in [*writes.new_runs, *writes.runs]:
        if at.runs[id_].state.ended:
            at.unfinished.pop(id_, None)
        else:
            at.unfinished[id_] = at.runs[id_]
    for (id_, number), step in writes.new_steps.items():
        at.steps.setdefault(id_, {})[number] = step
    for (id_, number), step in writes.steps.items():
        change(at.steps[id_][number], step, rows.STEP_CHANGING)
    for row in writes.failed_attempts:
        at.failed_attempts.setdefault(row.run_id, {})[row.step_number, row.number, row.fence] = row
    for function in writes.functions:
        at.functions[function.key] = function
    for function_key in writes.forgotten:
        at.functions.pop(function_key, None)
    for wait in writes.new_waits.values():
        at.waits[wait.run_id, wait.key] = wait
        of_app = at.matches.setdefault(wait.event_name, {}).setdefault(wait.app, {})
        of_app.setdefault(wait.paths, {}).setdefault(wait.match, {})[wait.run_id, wait.key] = wait
    for key in writes.ended_waits:
        end_wait(at, key)
    at.told = writes.told or at.told


def faults_of_removal(at: Tables, removal: Removal) -> Iterator[str]:
    """Say what a database would refuse to remove: what something refers to that stays."""
    steps, runs = set(removal.steps), set(removal.runs)
    for id_ in runs:
        if any((id_, number) not in steps for number in at.steps.get(id_, ())):
            yield f"run {id_} has steps"
    referred = {run.event.position for id_, run in at.runs.items() if id_ not in runs}
    for position in removal.events:
        if position in referred:
            yield f"event {position} has runs"


def remove(at: Tables, removal: Removal) -> None:
    """Remove rows of which nothing else speaks."""
    for id_, number in removal.steps:
        at.steps.get(id_, {}).pop(number, None)
        attempts = at.failed_attempts.get(id_, {})
        for key in [key for key in attempts if key[0] == number]:
            del attempts[key]
    for id_ in removal.runs:
        for wait in [key for key in at.waits if key[0] == id_]:
            end_wait(at, wait)
        for table in (at.runs, at.unfinished, at.steps, at.failed_attempts):
            table.pop(id_, None)
    for position in removal.events:
        event = at.events.pop(position, None)
        if event is not None:
            at.events_by_key[event.key].remove(event)
            at.events_by_name[event.name][event.apps].remove(event)


def change(stored: Run | Step, now: Run | Step, columns: Iterable[str]) -> None:
    """Change what may change of a row, and no more, as a database does."""
    for name in columns:
        setattr(stored, name, getattr(now, name))


def end_wait(at: Tables, key: WaitKey) -> None:
    """Remove a wait, if there is one, with the levels of `matches` that it leaves empty."""
    wait = at.waits.pop(key, None)
    if wait is not None:
        of_name = at.matches[wait.event_name]
        of_app = of_name[wait.app]
        of_paths = of_app[wait.paths]
        del of_paths[wait.match][key]
        if not of_paths[wait.match]:
            del of_paths[wait.match]
        if not of_paths:
            del of_app[wait.paths]
        if not of_app:
            del of_name[wait.app]
        if not of_name:
            del at.matches[wait.event_name]
