"""A page of a list costs what is on it, however many runs the database holds that are not meant."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import TypeVar

import pytest

from stepwire_core.commands import Writes
from stepwire_core.model import Run, RunState
from stepwire_executor.store import RunFilter, questions, sqlite_open
from stepwire_executor.store.changes import changes
from stepwire_executor.store.questions import Question
from stepwire_executor.store.sqlite import execute
from tests.contract.store_rows import MUCH, START, event, new, run

T = TypeVar("T")

RUNS = 4_000
RARE = RUNS // 2
UNSUCCEEDED = (RunState.PENDING, RunState.RUNNING, RunState.FAILED, RunState.CANCELLED)


def made(number: int) -> Run:
    rare = {"app": "rare", "function_id": "seldom", "state": RunState.FAILED} if number == RARE else {}
    return run(number, **{"state": RunState.SUCCEEDED, "wake_at": None, **rare})


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("lists") / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        sqlite_open.prepare(opened, path)
        execute(opened, changes(new(*map(made, range(1, RUNS)))))
        yield opened


@pytest.mark.parametrize(
    ("where", "before", "expected"),
    [
        (RunFilter(), "", [RUNS - 1, RUNS - 2]),
        (RunFilter(), made(100).id, [99, 98]),
        (RunFilter(app="rare"), "", [RARE]),
        (RunFilter(app="none"), "", []),
        (RunFilter(function_id="seldom"), "", [RARE]),
        (RunFilter(app="rare", function_id="seldom"), "", [RARE]),
        (RunFilter(states=(RunState.FAILED,)), "", [RARE]),
        (RunFilter(states=UNSUCCEEDED), "", [RARE]),
        (RunFilter(app="rare", states=UNSUCCEEDED), "", [RARE]),
        (RunFilter(app="shop", states=UNSUCCEEDED), "", []),
        (RunFilter(created_before=START + 3), "", [2, 1]),
        (RunFilter(created_after=START + RUNS - 2), "", [RUNS - 1, RUNS - 2]),
        (RunFilter(app="shop", created_before=START), "", []),
        (RunFilter(function_id="bill", created_after=START + RUNS), "", []),
    ],
)
def test_a_page_costs_what_is_on_it(
    connection: sqlite3.Connection, where: RunFilter, before: str, expected: list[int]
) -> None:
    page = cheap(connection, questions.list_runs(where, before, 2, MUCH))
    assert [found.id for found in page] == [made(number).id for number in expected]


def test_events_of_an_app_cost_what_is_found_however_many_reach_others_only(connection: sqlite3.Connection) -> None:
    ours = {RUNS + 1: (), 2 * RUNS: ("shop",), 2 * RUNS + 1: ("rare", "shop")}
    events = [event(at, name="sold", apps=ours.get(at, ("rare",))) for at in range(RUNS + 1, 2 * RUNS + 3)]
    execute(connection, changes(Writes(events=events)))
    scopes = cheap(connection, questions.event_scopes())
    assert scopes == {(), ("rare",), ("shop",), ("rare", "shop")}
    reaching = [apps for apps in scopes if not apps or "shop" in apps]
    assert cheap(connection, questions.find_positions(reaching, "sold", 0, 500)) == list(ours)
    page = cheap(connection, questions.find_events(reaching, "sold", 0, 500, MUCH))
    assert [found.position for found in page] == list(ours)


def cheap(connection: sqlite3.Connection, question: Question[T]) -> T:
    """Ask a question, and see that it costs little."""
    hundreds = 0

    def count() -> None:
        """Count hundreds of operations of SQLite's machine."""
        nonlocal hundreds
        hundreds += 1

    connection.set_progress_handler(count, 100)
    answer = sqlite_open.ask(connection, question)
    connection.set_progress_handler(None, 100)
    assert hundreds < 6
    return answer
