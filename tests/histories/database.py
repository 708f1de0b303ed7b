"""The database as a checker reads it: everything that is true in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

from stepwire_core.model import Event, FailedAttempt, FunctionKey, Retry, Run, Step, StepKind
from stepwire_executor.history import digest_of_run, digest_of_step, name
from stepwire_executor.store import RunFilter, Store
from stepwire_executor.store.memory import MemoryStore

PAGE, MUCH = 1_000, 1 << 40


@dataclass(slots=True)
class Database:
    """Runs, steps by run and "id:index", journals by run, failed attempts by run and "id:index"."""

    runs: dict[str, Run] = field(default_factory=dict)
    steps: dict[str, dict[str, Step]] = field(default_factory=dict)
    journals: dict[str, dict[int, Step]] = field(default_factory=dict)
    failed: dict[str, dict[str, list[FailedAttempt]]] = field(default_factory=dict)
    retries: dict[FunctionKey, Retry] = field(default_factory=dict)
    """The policies that functions have registered."""
    events: dict[str, list[Event]] = field(default_factory=dict)
    """Those that are waited for and reach an app that has runs, by name, in their order."""

    def add(self, run: Run, steps: list[Step], failed: list[FailedAttempt]) -> None:
        """Take a run in."""
        self.runs[run.id] = run
        self.steps[run.id] = {name(step.key): step for step in steps}
        self.journals[run.id] = {step.sequence: step for step in steps if step.sequence}
        by_number = {step.number: name(step.key) for step in steps}
        of_run = self.failed[run.id] = {}
        for attempt in failed:
            of_run.setdefault(by_number[attempt.step_number], []).append(attempt)

    def of_event(self, event_id: str) -> set[str]:
        """Give the runs that an event has started."""
        return {run.id for run in self.runs.values() if run.event.id == event_id and not run.parent_run_id}

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Give how each run ended, under a name that a run of the same work has in another database too."""
        return {self.path(run): (run.state.name, digest_of_run(run)) for run in self.runs.values()}

    def path(self, run: Run) -> str:
        """Name a run by its event or by the step that invoked it."""
        parent = self.runs.get(run.parent_run_id)
        if parent is None or run.parent_key is None:
            return f"{run.event.id}/{run.function_id}"
        return f"{self.path(parent)}/{name(run.parent_key)}"


def digest(step: Step) -> str:
    """Give the digest of a step's result."""
    return digest_of_step(step)


async def read_database(store: Store) -> Database:
    """Read all of an open store."""
    database = Database()
    before = ""
    while runs := await store.list_runs(RunFilter(), before, PAGE, MUCH):
        for listed in runs:
            run = await store.get_run(listed.id)
            assert run is not None, "nothing is removed meanwhile"
            steps: list[Step] = []
            while page := await store.get_steps(run.id, steps[-1].number if steps else 0, PAGE, MUCH):
                steps += page
            failed = await store.get_failed_attempts(run.id, 1, steps[-1].number, MUCH) if steps else []
            database.add(run, steps, failed)
        before = runs[-1].id
    steps = [step for of_run in database.steps.values() for step in of_run.values()]
    apps = {run.app for run in database.runs.values()}
    for event_name in {step.target for step in steps if step.kind is StepKind.WAIT_FOR_EVENT}:
        events: dict[int, Event] = {}
        for app in apps:
            after = 0
            while page := await store.find_events(event_name, app, after, PAGE, 1 << 26):
                events |= {event.position: event for event in page}
                after = page[-1].position
        database.events[event_name] = [event for _, event in sorted(events.items())]
    return database


def database_of(store: MemoryStore) -> Database:
    """Read all of a store in memory, without copies."""
    tables = store._tables
    database = Database()
    for run in tables.runs.values():
        steps = [step for _, step in sorted(tables.steps.get(run.id, {}).items())]
        database.add(run, steps, [row for _, row in sorted(tables.failed_attempts.get(run.id, {}).items())])
    for event_name, by_apps in tables.events_by_name.items():
        database.events[event_name] = sorted(chain(*by_apps.values()), key=lambda event: event.position)
    for function in tables.functions.values():
        if function.options.retry is not None:
            database.retries[function.key] = function.options.retry
    return database
