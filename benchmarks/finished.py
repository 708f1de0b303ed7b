"""Very many finished runs in the database: what they cost the start, the work and lists, and removing them."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from stepwire.bench import flows
from stepwire.bench.workloads import fan
from stepwire.calls import RUNS_A_PAGE
from stepwire.client import Client
from stepwire.security import Security
from stepwire.testing.executor import ExecutorProcess, WorkerProcess
from stepwire_core import ids
from stepwire_core.model import Event, Failure, Run, RunState, Step, StepKey, StepKind, StepState
from stepwire_executor.retention import FIRST_REST
from stepwire_executor.store import changes, rows, sqlite_open
from stepwire_executor.store.changes import Change
from stepwire_executor.store.sqlite import execute
from stepwire_proto.v1 import run_pb2, run_pb2_grpc, value_pb2

RUNS = 1_000_000
A_BATCH = 5_000
STEPS = 2
DAYS = 60
"""The runs ended evenly over so many days, until one hour ago."""
DAY = 86_400.0
ENDS = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)
EVENT_CHANGING = ("position", "id", "name", "time", "received_at", "digest", "run_ids")
RUN_CHANGING = ("id", "app", "function_id", "event_position", "created_at", "started_at", "ended_at")
STEP_CHANGING = ("run_id", "planned_at", "started_at", "ended_at")
RARE = ("rare-app", "rare-function")
"""An app and a function with a run in each hundred thousand."""
ROUNDS = 40
WORKLOAD = fan(1_000)
PAGE = RUNS_A_PAGE
PAGES = 20

Progress = Callable[[str], None]
Figures = dict[str, float]


def fill(path: Path, count: int, progress: Progress) -> None:
    """Make a store with so many finished runs, their events and steps."""
    connection = sqlite3.connect(path, isolation_level=None)
    sqlite_open.prepare(connection, path)
    for setting in ("synchronous = OFF", "cache_size = -1000000"):
        connection.execute(f"PRAGMA {setting}")
    for done, batch in enumerate(batches(count), 1):
        execute(connection, batch)
        if done * A_BATCH % 200_000 == 0:
            progress(f"{done * A_BATCH:,} runs are written")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


class Mould:
    """A row as the store writes it, cast again and again with a few other values: a million objects take minutes."""

    def __init__(self, columns: Sequence[str], row: rows.Row, *changing: str) -> None:
        self._row = list(row)
        self._places = [columns.index(name) for name in changing]

    def cast(self, *values: Any) -> rows.Row:
        """Give the row with other values for what is changing."""
        row = self._row.copy()
        for place, value in zip(self._places, values, strict=True):
            row[place] = value
        return tuple(row)


def batches(count: int) -> Iterator[list[Change]]:
    """Give the rows of finished runs, the oldest first. Each took a second; most succeeded, some failed."""
    dice = random.Random(1)
    first = time.time() - 3600.0 - DAYS * DAY
    output = value_pb2.Payload(encoding="json", data=b'"%s"' % (b"x" * 80)).SerializeToString()
    failure = Failure("ValueError", "it could not be done", "a stack of\nsome lines\n" * 5)
    event = Event("", "", output, 0.0)
    of_event = Mould(rows.EVENT, rows.from_event(event), *EVENT_CHANGING)
    of_run = {}
    for state in ENDS:
        run = Run("", "", "", "1", event, 0.0, state, wake_at=None)
        run.output, run.failure = (output, None) if state is RunState.SUCCEEDED else (None, failure)
        of_run[state] = Mould(rows.RUN, rows.from_run(run), *RUN_CHANGING)
    of_step = []
    for n in range(1, STEPS + 1):
        step = Step(StepKey(f"step-{n}", 0), n, StepKind.CLOSURE, source="flow.py:12", output=output)
        step.state, step.attempt, step.fence, step.worker, step.sequence = StepState.SUCCEEDED, 1, 1 << 41, "one", n
        of_step.append(Mould(rows.STEP, rows.from_step("", step), *STEP_CHANGING))
    for low in range(1, count + 1, A_BATCH):
        events, runs, steps = [], [], []
        for number in range(low, min(low + A_BATCH, count + 1)):
            at = first + DAYS * DAY * number / count
            app, function = f"app-{dice.randrange(5)}", f"function-{dice.randrange(4)}"
            if number % 100_000 == 50_000:
                app, function = RARE
            (state,) = dice.choices(ENDS, (97, 2, 1))
            id_, mark = ids.run_id(b"", at, number), f"{dice.getrandbits(128):032x}"
            events.append(of_event.cast(number, mark, f"{app}/asked", at, at, mark, f'["{id_}"]'))
            runs.append(of_run[state].cast(id_, app, function, number, at, at, at + 1.0))
            steps += [mould.cast(id_, at, at, at + 0.5) for mould in of_step]
        yield [(kind, its) for kind, its in ((changes.EVENTS, events), (changes.RUNS, runs), (changes.STEPS, steps))]


def measure(progress: Progress, count: int = RUNS) -> Figures:
    """Measure beside an empty database, in fresh processes. Raises StepwireError if one does not start or fails."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as started:
        folder = Path(made)
        (folder / "full").mkdir()
        begun = time.monotonic()
        fill(folder / "full" / "stepwire.db", count, progress)
        size = (folder / "full" / "stepwire.db").stat().st_size
        progress(f"{size / 1e9:.2f} GB, filled in {time.monotonic() - begun:.0f} s")
        figures = {"finished runs": float(count), "database, MB": size / 1e6}
        full = ExecutorProcess(folder=folder / "full")
        empty = ExecutorProcess(folder=folder / "empty")
        for name, executor in (("full", full), ("empty", empty)):
            figures[f"start until ready, {name}, s"] = starts(executor)
            started.callback(executor.destroy)
        progress(f"start until ready: {figures['start until ready, full, s']:.2f} s")
        figures |= compared({"full": full, "empty": empty}, "", progress)
        figures |= asyncio.run(listed(full.address))
        full.stop()
        full.settings["retention"] = "1h"
        full.start()
        begun = time.monotonic()
        figures |= compared({"full": full, "empty": empty}, " while removing", progress, wait=FIRST_REST + 2.0)
        full.stop()
        seconds = time.monotonic() - begun - FIRST_REST
        figures["runs removed a second"] = (count - remaining(folder / "full" / "stepwire.db")) / seconds
        return figures


def remaining(path: Path) -> int:
    """Count the runs of a store that nobody has open."""
    connection = sqlite3.connect(path)
    ((count,),) = connection.execute("SELECT count(*) FROM runs WHERE app <> 'bench'").fetchall()
    connection.close()
    return int(count)


def starts(executor: ExecutorProcess) -> float:
    """Start an executor several times; gives the median of the seconds until it takes calls. It runs then."""
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        executor.start()
        seconds.append(time.monotonic() - begun)
        executor.stop()
    executor.start()
    return statistics.median(seconds)


def compared(executors: Mapping[str, ExecutorProcess], when: str, progress: Progress, wait: float = 0.0) -> Figures:
    """Measure a fan-out on each in turn, many times; the workers of the other one are idle meanwhile.

    By how much one is slower is the median over the pairs: what else the machine does weighs on both of a pair.
    """
    target = f"{flows.__name__}:app"
    with ExitStack() as started:
        for executor in executors.values():
            for _ in range(2):
                started.enter_context(WorkerProcess(target, executor, slots=100))
        time.sleep(wait)
        seconds = asyncio.run(_in_turn({name: executor.address for name, executor in executors.items()}))
    figures = {f"{WORKLOAD.name}, {name}{when}, ms": statistics.median(s) * 1e3 for name, s in seconds.items()}
    full, empty = figures.values()
    ratios = [one / other for one, other in zip(*seconds.values(), strict=True)]
    figures[f"{WORKLOAD.name}{when}, slower by, %"] = (statistics.median(ratios) - 1) * 100
    progress(f"{WORKLOAD.name}{when}: {full:.0f} ms, {empty:.0f} ms with an empty database")
    return figures


async def _in_turn(addresses: Mapping[str, str]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in addresses}
    for number in range(ROUNDS + 2):
        order = list(addresses.items())[:: 1 if number % 2 else -1]  # neither is to be the one that always comes first
        for name, address in order:
            async with Client(address, security=Security()) as client:
                taken = await WORKLOAD.measure(client)
                if number >= 2:  # the first ones only warm up
                    seconds[name].append(taken)
    return seconds


async def listed(address: str) -> Figures:
    """Time pages of runs: the first ones, deep ones, and those of filters that find much or little."""
    ago = {days: datetime.fromtimestamp(time.time() - days * DAY, UTC) for days in (1, 30, 55, 300)}
    lists: dict[str, dict[str, Any]] = {
        "newest": {},
        "of an app": {"app": "app-1"},
        "of an app's function": {"app": "app-1", "function_id": "function-1"},
        "of a function": {"function_id": "function-1"},
        "of a rare app": {"app": RARE[0]},
        "of a rare function": {"function_id": RARE[1]},
        "of no app": {"app": "none"},
        "failed": {"states": [4]},
        "failed, of an app": {"app": "app-1", "states": [4]},
        "failed, of a rare app": {"app": RARE[0], "states": [4]},
        "running": {"states": [2]},
        "running or failed": {"states": [2, 4]},
        "succeeded, of an app": {"app": "app-1", "states": [3]},
        "created 30 days ago": {"created_before": ago[30]},
        "created 55 to 30 days ago, failed": {"created_after": ago[55], "created_before": ago[30], "states": [4]},
        "created 300 days ago": {"created_before": ago[300]},
        "created 55 to 30 days ago, of a rare app": {
            "app": RARE[0],
            "created_after": ago[55],
            "created_before": ago[30],
        },
    }
    figures: Figures = {}
    async with grpc.aio.insecure_channel(address) as channel:
        stub = run_pb2_grpc.RunServiceStub(channel)
        for name, where in lists.items():
            seconds = [taken async for taken in pages(stub, where)]
            figures[f"list {name}, median page, ms"] = statistics.median(seconds) * 1e3
            figures[f"list {name}, slowest of {len(seconds)} pages, ms"] = max(seconds) * 1e3
    return figures


async def pages(stub: Any, where: Mapping[str, Any]) -> AsyncIterator[float]:
    """Give the seconds that each of the next pages takes."""
    request = run_pb2.ListRunsRequest(page_size=PAGE, **where)
    for _ in range(PAGES):
        begun = time.perf_counter()
        response = await stub.ListRuns(request)
        yield time.perf_counter() - begun
        request.page_token = response.next_page_token
        if not request.page_token:
            return
