"""`stepwire why`, and where other commands say what a run waits for."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from stepwire.cli import live, words
from stepwire.cli import why as cli_why
from stepwire.client import Client
from stepwire.errors import ExecutorError
from stepwire.records import Cause, CauseKind, RunState, RunUpdate
from stepwire_proto.v1 import run_pb2, value_pb2
from tests.sdk_python.cli.scripted import RUN_ID, Scripted, refuse, run_message, step_message
from tests.sdk_python.cli.test_commands import Command, command, scripted
from tests.sdk_python.cli.test_tree import run

__all__ = ["command", "scripted"]


def cause(kind: str, text: str, *causes: run_pb2.Cause, **fields: Any) -> run_pb2.Cause:
    return run_pb2.Cause(kind=run_pb2.CauseKind.Value(f"CAUSE_KIND_{kind}"), text=text, causes=causes, **fields)


def answer(*causes: run_pb2.Cause, state: str = "RUNNING") -> run_pb2.ExplainRunResponse:
    return run_pb2.ExplainRunResponse(state=run_pb2.RunState.Value(f"RUN_STATE_{state}"), causes=causes)


def stamp(seconds: float) -> tuple[Timestamp, str]:
    """Give a time so far from now, and how the local clock shows it."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    message = Timestamp()
    message.FromDatetime(moment.replace(tzinfo=None))
    return message, words.time_of_day(moment, datetime.now(UTC))


ENDED = cause("ENDED", f"run {RUN_ID} has succeeded 2.0 s ago")


def test_causes_are_a_tree_with_times_by_the_local_clock(scripted: Scripted, command: Command) -> None:
    since, since_text = stamp(-2)
    due, due_text = stamp(18)
    full = cause("WORKER_FULL", "worker w1 has 1 of 1 slots taken", since=since)
    scripted.answers["ExplainRun"] = answer(
        cause("NO_SLOT", "step chunk:41 and 9,958 more wait for a slot", full),
        cause("STEP_RETRY", "the retry of step 7 is due in 18 s", due_at=due),
    )
    result = command("why", RUN_ID)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        RUN_ID,
        "├── step chunk:41 and 9,958 more wait for a slot",
        f"│   └── worker w1 has 1 of 1 slots taken  since {since_text}",
        f"└── the retry of step 7 is due in 18 s  until {due_text}",
    ]
    assert result.stderr == "start more workers, or raise --slots of stepwire worker\n"
    assert scripted.asked(run_pb2.ExplainRunRequest) == [run_pb2.ExplainRunRequest(run_id=RUN_ID)]


def test_a_long_cause_is_one_line_without_a_terminal(scripted: Scripted, command: Command) -> None:
    text = "the retry of step 7 is due in 18 s, after ValueError: " + "long " * 60
    scripted.answers["ExplainRun"] = answer(cause("STEP_RETRY", text.strip()))
    assert text.strip() in command("why", RUN_ID).stdout


def test_an_ended_run_says_how_and_there_is_no_advice(scripted: Scripted, command: Command) -> None:
    scripted.answers["ExplainRun"] = answer(ENDED, state="SUCCEEDED")
    result = command("why", RUN_ID)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "has succeeded" in result.stdout


def test_why_in_json_is_one_object(scripted: Scripted, command: Command) -> None:
    scripted.answers["ExplainRun"] = answer(
        cause("EVENT", "step paid waits", step=value_pb2.StepKey(id="paid"), step_count=1, target="shop/paid")
    )
    said = json.loads(command("why", RUN_ID, "--json").stdout)
    assert said["run_id"] == RUN_ID
    (one,) = said["causes"]
    assert (one["kind"], one["step"], one["target"]) == ("event", {"id": "paid", "index": 0}, "shop/paid")


def test_a_cause_of_a_newer_executor_is_shown_by_its_text(scripted: Scripted, command: Command) -> None:
    newer = run_pb2.Cause(kind=99, text="the moon is not full")  # type: ignore[arg-type]
    scripted.answers["ExplainRun"] = answer(newer)
    assert "the moon is not full" in command("why", RUN_ID).stdout


def test_follow_prints_each_change_until_the_end(
    scripted: Scripted, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_why, "FOLLOW_SECONDS", 0.01)
    answers = iter(
        [
            answer(cause("STEP_RETRY", "due in 2.0 s")),
            answer(cause("STEP_RETRY", "due in 1.0 s")),
            refuse(grpc.StatusCode.UNAVAILABLE, "the executor drains"),
            refuse(grpc.StatusCode.UNAVAILABLE, "the executor drains"),
            answer(cause("STEP_RUNNING", "runs", worker="w1")),
            answer(ENDED, state="SUCCEEDED"),
        ]
    )

    def next_answer(request: Any, context: Any) -> Any:
        one = next(answers)
        return one(request, context) if callable(one) else one

    scripted.answers["ExplainRun"] = next_answer
    result = command("why", RUN_ID, "--follow")
    assert result.exit_code == 0, result.stderr
    assert [line[4:] for line in result.stdout.splitlines() if line.startswith("└")] == [
        "due in 2.0 s",
        "runs",
        f"run {RUN_ID} has succeeded 2.0 s ago",
    ]


def test_follow_of_a_run_that_does_not_exist_ends_at_once(scripted: Scripted, command: Command) -> None:
    scripted.answers["ExplainRun"] = refuse(grpc.StatusCode.NOT_FOUND, "run 'x' does not exist")
    result = command("why", "x", "--follow")
    assert (result.exit_code, result.stderr) == (3, "stepwire: run 'x' does not exist\n")


def test_why_without_a_run_is_wrong_usage(command: Command) -> None:
    result = command("why")
    assert (result.exit_code, result.stderr) == (2, "stepwire: missing argument 'RUN'; see `stepwire why --help`\n")


def test_unfinished_runs_are_shown_with_where_to_ask(scripted: Scripted, command: Command) -> None:
    running, done = run_message("RUNNING"), run_message()
    for record, hinted in ((running, True), (done, False)):
        scripted.answers["ListRuns"] = run_pb2.ListRunsResponse(runs=[done, record])
        scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=record, steps=[step_message("split")])
        assert ("stepwire why RUN" in command("runs", "list").stderr) is hinted
        assert (f"stepwire why {RUN_ID}" in command("runs", "show", RUN_ID).stderr) is hinted


# A watch that sees nothing move.


class StillSource:
    """A client whose run moves when it is told to."""

    def __init__(self, *causes: Cause) -> None:
        self.go_on = asyncio.Event()
        self.asked = asyncio.Event()
        self.answers = list(causes)

    async def watch(self, run_id: str) -> AsyncIterator[RunUpdate]:
        yield RunUpdate(run(), ())
        await self.go_on.wait()
        yield RunUpdate(run(RunState.SUCCEEDED), ())

    async def why(self, run_id: str) -> list[Cause]:
        if not self.answers:
            self.asked.set()
            raise ExecutorError("UNIMPLEMENTED", "an older executor")
        return [self.answers.pop(0)]


SLOT = Cause(CauseKind.NO_SLOT, "step a waits for a slot")
RETRY = Cause(CauseKind.STEP_RETRY, "the retry of step a is due in 2 s")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STILL_SECONDS", 0.01)


async def follow(source: StillSource, watcher: live.Watcher) -> None:
    """Follow the run until all answers have been asked for."""
    following = asyncio.create_task(live.follow(cast(Client, source), [run().id], watcher))
    await asyncio.wait_for(source.asked.wait(), 10)
    source.go_on.set()
    (ended,) = await following
    assert ended.state is RunState.SUCCEEDED


@pytest.mark.usefixtures("impatient")
async def test_a_log_says_once_what_a_run_waits_for_until_it_is_something_else() -> None:
    console = Console(file=io.StringIO(), width=200)
    await follow(StillSource(SLOT, SLOT, RETRY), live.Lines(console, [run().id]))
    lines = cast(io.StringIO, console.file).getvalue().splitlines()
    assert [line for line in lines if "still waiting" in line] == [
        f"{run().id}  still waiting: step a waits for a slot; see `stepwire why {run().id}`",
        f"{run().id}  still waiting: the retry of step a is due in 2 s; see `stepwire why {run().id}`",
    ]


@pytest.mark.usefixtures("impatient")
async def test_a_terminal_shows_what_a_run_waits_for_until_it_moves() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80, height=40)
    tree = live.Tree(console, [run().id])
    source = StillSource(SLOT)
    await follow(source, tree)
    assert tree.views[run().id].waits_for == "", "the run has moved"
    tree.explain(run().id, SLOT)
    tree.views[run().id].update(RunUpdate(run(), ()))
    tree.explain(run().id, SLOT)
    drawn = [line.plain for line in tree.views[run().id].lines(80, datetime.now(UTC))]
    assert "  step a waits for a slot" in drawn


@pytest.mark.usefixtures("impatient")
async def test_a_script_that_waits_is_not_told() -> None:
    begun = time.monotonic()
    await follow(StillSource(SLOT), live.Silence())
    assert time.monotonic() - begun < 5


async def test_follow_on_a_terminal_draws_over_what_it_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_why, "FOLLOW_SECONDS", 0.01)
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80, height=40)
    source = StillSource(SLOT, RETRY, Cause(CauseKind.ENDED, "the run has succeeded"))
    await cli_why.follow_causes(cast(Client, source), RUN_ID, console, as_json=False)
    drawn = cast(io.StringIO, console.file).getvalue()
    assert drawn.index(SLOT.text) < drawn.index(RETRY.text) < drawn.index("the run has succeeded")
    assert "\x1b[1A" in drawn, "the cursor went up again"
    assert source.answers == []


async def test_a_run_that_moves_is_not_asked_about() -> None:
    source = StillSource(SLOT)
    source.go_on.set()
    await live.follow(cast(Client, source), [run().id], live.Silence())
    assert len(source.answers) == 1


def test_a_time_of_another_day_is_shown_with_its_date() -> None:
    now = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
    assert words.time_of_day(now + timedelta(seconds=4), now) == (now + timedelta(seconds=4)).astimezone().strftime(
        "%H:%M:%S"
    )
    assert words.time_of_day(now + timedelta(days=3), now).startswith("2030-02-03 ")


def test_causes_that_differ_in_ids_and_numbers_only_are_one_line() -> None:
    now = datetime.now(UTC)
    below = [Cause(CauseKind.NO_WORKER, "none serves function texts/bill")]
    many = [
        Cause(
            CauseKind.CHILD_RUN,
            f"step bill:{n} waits for run 01M84B02S9R2JH7CN4G7VKEN{n:02} of texts/bill",
            causes=tuple(below),
        )
        for n in range(1, 31)
    ]
    other = Cause(CauseKind.NO_SLOT, "step a waits for a slot")
    console = Console(width=200, file=io.StringIO())
    console.print(cli_why.tree("run", [*many, other], now))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 4
    assert lines[1].rstrip().endswith("and 29 more like it")
    assert "none serves function" in lines[2]
    assert "a slot" in lines[3]
