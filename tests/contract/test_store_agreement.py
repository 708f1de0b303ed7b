"""Every store answers alike, whatever has been written to it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwire_core.commands import Wait, Writes
from stepwire_core.model import (
    Event,
    FailedAttempt,
    Failure,
    Retry,
    Run,
    RunState,
    Step,
    StepKey,
    StepKind,
    StepState,
)
from stepwire_executor.store import Store
from stepwire_executor.store.memory import MemoryStore
from stepwire_executor.store.sqlite import SQLiteStore
from stepwire_executor.store.url import open_store
from tests.contract.store_rows import START, everything, run
from tests.postgres import Cluster

NAMES = ["paid", "paid\0", "ordered 🛒", ""]
REACHED = [(), ("shop",), ("bank",), ("bank", "shop"), ('"shop"',), ('bank", "shop',)]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
blobs = st.binary(max_size=6)
times = st.none() | st.floats(START, START + 10)
counts = st.integers(0, 2**62)
leaves = st.builds(
    Failure, texts, texts, texts, st.booleans(), st.none() | st.floats(0, 9), st.none(), st.none() | blobs
)
failures = st.none() | st.recursive(
    leaves, lambda cause: st.builds(Failure, texts, texts, cause=st.none() | cause), max_leaves=3
)
retries = st.none() | st.builds(Retry, st.integers(0, 100), st.floats(0, 9), st.floats(0, 9), st.floats(1, 9))


class Scenario:
    """Draws batches that a core could write, and remembers what there is."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.position = 0
        self.runs: list[Run] = []
        self.steps: list[tuple[Run, Step]] = []
        self.waits: list[Wait] = []
        self.attempts = 0

    def batches(self) -> Iterator[Writes]:
        """Draw batches of a few operations each; runs and steps are changed in place between them."""
        operations = (self.add_run, self.add_step, self.change_run, self.change_step, self.wait, self.end, self.fail)
        for _ in range(self.draw(st.integers(1, 5))):
            writes = Writes()
            for operation in self.draw(st.lists(st.sampled_from(operations), max_size=8)):
                operation(writes)
            yield writes

    def one(self, choices: list[Any]) -> Any:
        return self.draw(st.sampled_from(choices))

    def add_run(self, writes: Writes) -> None:
        self.position += 1
        draw, number = self.draw, len(self.runs) + 1
        received = START + draw(st.integers(0, 9))
        ids = tuple(draw(st.lists(texts, max_size=2)))
        id_ = f"event-{draw(st.integers(1, 3))}"
        about = id_, self.one(NAMES), draw(blobs), 1.0, draw(texts), draw(texts), ""
        new = Event(*about, received, self.position, ids, self.one(REACHED))
        parent = self.one([None, *self.steps])
        made = run(number, new, function_id=self.one(["bill", "ship"]))
        if parent is not None and not parent[1].child_run_id and parent[1].kind is StepKind.INVOKE:
            made.parent_run_id, made.parent_key = parent[0].id, parent[1].key
            parent[1].child_run_id = made.id
            writes.steps[parent[0].id, parent[1].number] = parent[1]
        writes.events.append(new)
        writes.new_runs[made.id] = made
        self.runs.append(made)

    def change_run(self, writes: Writes) -> None:
        if not self.runs:
            return
        draw, changed = self.draw, self.one(self.runs)
        changed.state = self.one(list(RunState))
        changed.wake_at = self.one([None, 0.0, START + 1, START + 2.5])
        changed.started_at, changed.ended_at, changed.deadline_at = draw(times), draw(times), draw(times)
        changed.retry_at, changed.attempt, changed.lost_invocations = draw(times), draw(counts), draw(counts)
        changed.output, changed.failure, changed.cancel_reason = draw(st.none() | blobs), draw(failures), draw(texts)
        writes.runs[changed.id] = changed

    def add_step(self, writes: Writes) -> None:
        if not self.runs:
            return
        draw, of = self.draw, self.one(self.runs)
        number = 1 + sum(owner is of for owner, _ in self.steps)
        plan = {"target": draw(texts), "input": draw(blobs), "retry": draw(retries), "source": draw(texts)}
        limits = {"attempt_timeout": draw(times), "step_timeout": draw(times), "found_after": draw(counts)}
        kind = self.one([StepKind.INVOKE, StepKind.CLOSURE])
        state = StepState.WAITING if kind is StepKind.INVOKE else StepState.READY
        made = Step(StepKey(draw(texts), number), number, kind, **plan, **limits, state=state)
        writes.new_steps[of.id, number] = made
        self.steps.append((of, made))

    def change_step(self, writes: Writes) -> None:
        if not self.steps:
            return
        draw, (of, changed) = self.draw, self.one(self.steps)
        changed.state = self.one(list(StepState))
        changed.attempt, changed.fence, changed.worker = draw(counts), draw(counts), draw(texts)
        changed.started_at, changed.ended_at, changed.due_at = draw(times), draw(times), draw(times)
        changed.output, changed.failure, changed.timed_out = (
            draw(st.none() | blobs),
            draw(failures),
            draw(st.booleans()),
        )
        changed.event_position = self.one([None, 1, 2])
        changed.sequence, changed.session = draw(st.integers(0, 5)), draw(texts)
        writes.steps[of.id, changed.number] = changed

    def wait(self, writes: Writes) -> None:
        if self.runs:
            key, paths = StepKey(self.draw(texts), len(self.waits)), self.one(["[]", '["a"]', "\0"])
            match, of = self.one(["[1]", "[2]"]), self.one(self.runs)
            made = Wait(self.one(NAMES), paths, match, of.id, key, self.draw(counts), of.app)
            writes.begin_wait(made)
            self.waits.append(made)

    def end(self, writes: Writes) -> None:
        if self.waits:
            ended = self.one(self.waits)
            writes.end_wait(ended.run_id, ended.key)

    def fail(self, writes: Writes) -> None:
        if self.steps:
            self.attempts += 1
            of, at = self.one(self.steps)
            failure = self.draw(leaves)
            row = FailedAttempt(of.id, at.number, self.draw(counts), self.attempts, self.draw(texts), 1.0, 2.0, failure)
            writes.failed_attempts.append(row)


@pytest.fixture(scope="module")
def url(cluster: Cluster) -> str:
    return cluster.url(cluster.database())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_stores_agree_on_everything(data: st.DataObject, cluster: Cluster, url: str) -> None:
    cluster.sql("DROP SCHEMA IF EXISTS stepwire CASCADE", url.rpartition("/")[2])
    with tempfile.TemporaryDirectory() as folder:
        sqlite = SQLiteStore(Path(folder) / "store.db")
        asyncio.run(compare(Scenario(data.draw), MemoryStore(), sqlite, open_store(url)))


async def compare(scenario: Scenario, *stores: Store) -> None:
    for store in stores:
        await store.open()
    try:
        for batch in scenario.batches():
            for store in stores:
                await store.commit(batch)
        before = await read(scenario, *stores)
        for store in stores:
            await store.close()
            await store.open()
        assert await read(scenario, *stores) == before
    finally:
        for store in stores:
            await store.close()


async def read(scenario: Scenario, *stores: Store) -> Any:
    ids = [made.id for made in scenario.runs] or ["none"]
    answers = [
        await everything(store, ids, NAMES, [((), id_) for id_ in ("event-1", "event-2", "none")]) for store in stores
    ]
    for answer in answers[1:]:
        for question, value in answer.items():
            assert value == answers[0][question], question
    return answers[0]
