"""The tree, drawn as text and compared with reviewed pictures; `--regenerate` draws them anew."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stepwire.cli import bars
from stepwire.cli.tree import LINES, RunView, views_lines
from stepwire.errors import Failure
from stepwire.payload import Payload
from stepwire.records import Run, RunState, RunUpdate, Step, StepKind, StepState
from stepwire.replay.model import StepKey

START = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
PICTURES = Path(__file__).parent / "trees"
NO_ANSWER = Failure("ConnectionError", "the summary service did not answer\nat all")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


NOW = at(9.5)


def run(state: RunState = RunState.RUNNING, **fields: Any) -> Run:
    values = {"created_at": START, "started_at": at(0.01), "ended_at": at(9) if state.ended else None}
    return Run("01J8ZK3E5V2QW4T6Y8A0B1C2D3", "demo", "summarize-text", state, **(values | fields))


def step(key: str, state: StepState, number: int, index: int = 0, **fields: Any) -> Step:
    values: dict[str, Any] = {"kind": StepKind.CLOSURE, "planned_at": at(1.2)}
    if state not in (StepState.READY, StepState.WAITING):
        values |= {"started_at": at(2), "attempt": 1, "worker": f"box-{101 + index % 4}-{'abcd'[index % 4]}"}
    if state.ended:
        values["ended_at"] = at(7)
    return Step(StepKey(key, index), state=state, number=number, **(values | fields))


def fan_out(size: int, first: int = 2, key: str = "summarize-chunk") -> list[Step]:
    """Make a fan-out in full swing: 40 % done, some of that at the second attempt, one failed for good."""
    steps = []
    done = size * 4 // 10
    for index in range(size):
        fields: dict[str, Any] = {}
        match index - done:
            case below if below < 0:
                state = StepState.SUCCEEDED
                fields = {"attempt": 2, "failure": NO_ANSWER} if index % 100 == 5 else {}
            case below if below < 8:
                state = StepState.RUNNING
            case below if below < 11:
                state = StepState.RETRYING
                fields = {"attempt": 2, "failure": NO_ANSWER, "due_at": at(12)}
            case 11:
                state = StepState.FAILED
                fields = {"attempt": 5, "failure": NO_ANSWER}
            case _:
                state = StepState.READY
        steps.append(step(key, state, first + index, index, **fields))
    return steps


def of_every_kind(first: int) -> list[Step]:
    """Make single steps of every kind and state."""
    waiting = {"started_at": at(1.2)}
    return [
        step("wait-for-approval", StepState.WAITING, first, kind=StepKind.WAIT_FOR_EVENT, target="demo/approved"),
        step("nap", StepState.WAITING, first + 1, kind=StepKind.SLEEP, due_at=at(3600), **waiting),
        step(
            "charge-card",
            StepState.FAILED,
            first + 2,
            kind=StepKind.TASK,
            target="charge",
            attempt=5,
            failure=NO_ANSWER,
        ),
        step("publish", StepState.RUNNING, first + 3, planned_at=at(4), started_at=at(6)),
        step(
            "child",
            StepState.WAITING,
            first + 4,
            kind=StepKind.INVOKE,
            target="other",
            child_run_id="01J8ZK3E5V2QW4T6Y8A0B1C2D4",
        ),
        step("later", StepState.READY, first + 5, planned_at=at(9)),
        step("again", StepState.RETRYING, first + 6, attempt=2, failure=NO_ANSWER, due_at=at(11)),
        step("given-up", StepState.CANCELLED, first + 7, started_at=None, worker="", attempt=0),
        step("a-step-whose-id-is-far-too-long-for-any-terminal-of-the-world", StepState.SUCCEEDED, first + 8),
    ]


def view(record: Run, steps: Iterable[Step]) -> RunView:
    made = RunView()
    made.update(RunUpdate(record, tuple(steps)))
    return made


def picture(made: RunView, width: int, lines: int | None = LINES) -> str:
    """Print as a terminal without colours of that width does."""
    console = Console(width=width, color_system=None, force_terminal=True, legacy_windows=False)
    with console.capture() as capture:
        console.print(made.render(width, NOW, lines))
    return capture.get()


Same = Callable[[str, str], None]


@pytest.fixture
def same(request: pytest.FixtureRequest) -> Same:
    """Compare with a reviewed picture."""

    def compare(name: str, drawn: str) -> None:
        path = PICTURES / f"{name}.txt"
        if request.config.getoption("--regenerate"):
            path.write_text(drawn)
        assert drawn == path.read_text()

    return compare


@pytest.mark.parametrize("width", [80, 120])
def test_a_fan_out_of_a_thousand_is_one_fold(same: Same, width: int) -> None:
    made = view(
        run(),
        [
            step("split", StepState.SUCCEEDED, 1, planned_at=at(0.1), started_at=at(0.2), ended_at=at(1.2)),
            *fan_out(1000),
        ],
    )
    same(f"fan_out_{width}", picture(made, width))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_steps_of_every_kind(same: Same, width: int) -> None:
    same(f"every_kind_{width}", picture(view(run(), of_every_kind(1)), width))


def test_a_run_that_succeeded(same: Same) -> None:
    steps = [step("split", StepState.SUCCEEDED, 1), *(step("chunk", StepState.SUCCEEDED, 2 + n, n) for n in range(12))]
    same("succeeded_80", picture(view(run(RunState.SUCCEEDED), steps), 80))


def test_a_body_that_is_tried_again_says_why(same: Same) -> None:
    record = run(attempt=2, failure=NO_ANSWER, lost_invocations=1)
    same("body_tried_again_80", picture(view(record, [step("split", StepState.SUCCEEDED, 1)]), 80))


def test_many_different_steps_leave_room_for_the_busy_ones(same: Same) -> None:
    """Ids without anything in common, as urls or hashes make them."""
    words = [f"{a}{b}{c}" for a in "abcdef" for b in "ghijklmn" for c in "opqrst"]
    steps = [step(word, StepState.SUCCEEDED, number) for number, word in enumerate(words, 1)]
    steps[40] = step(words[40], StepState.FAILED, 41, failure=NO_ANSWER, attempt=5)
    steps[50] = step(words[50], StepState.RUNNING, 51)
    same("many_ids_80", picture(view(run(), steps), 80))


def test_ids_that_differ_in_a_number_are_one_fold() -> None:
    drawn = picture(view(run(), [step(f"page-{n}", StepState.SUCCEEDED, n) for n in range(1, 1001)]), 80)
    assert "page-*" in drawn
    assert "1000/1000" in drawn


def test_a_few_repetitions_are_listed_each() -> None:
    drawn = picture(view(run(), [step("poll", StepState.SUCCEEDED, n + 1, n) for n in range(3)]), 80)
    assert [line.split()[2] for line in drawn.splitlines()[2:]] == ["poll", "poll:1", "poll:2"]


def test_fan_outs_of_two_stages_stay_apart() -> None:
    steps = fan_out(100, key="stage-1") + fan_out(100, first=200, key="stage-2")
    drawn = picture(view(run(), steps), 80)
    assert "stage-1" in drawn
    assert "stage-2" in drawn


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("size", [10, 1000, 10_000])
def test_it_fits(size: int, width: int) -> None:
    steps = [*fan_out(size), *fan_out(size, size + 2, "other"), *of_every_kind(2 * size + 2)]
    drawn = picture(view(run(), steps), width).splitlines()
    assert len(drawn) <= LINES
    assert max(map(len, drawn)) <= width


def test_every_step_has_its_line_if_asked() -> None:
    drawn = picture(view(run(), fan_out(100)), 80, lines=None)
    assert "summarize-chunk:99" in drawn


def test_the_progress_of_invoked_runs_is_summed() -> None:
    steps = [
        step(f"bill-{n}", StepState.WAITING, n, kind=StepKind.INVOKE, child_run_id=f"child-{n}", target="bill")
        for n in range(3)
    ]
    drawn = view(run(), steps)
    assert "invoked" not in picture(drawn, 80)
    done, running = StepState.SUCCEEDED, StepState.RUNNING
    drawn.invoked["child-0"] = run(step_counts=Counter({done: 400, running: 4}))
    drawn.invoked["child-2"] = run(RunState.SUCCEEDED, step_counts=Counter({done: 12}))
    assert "3 invoked runs: 412 done · 4 running" in picture(drawn, 80)


def test_outputs_are_shown_where_every_step_has_its_line() -> None:
    outputs = (Payload(b'{"page": 1}', "json"), Payload(b"\x00" * 2000, "binary"), None)
    steps = [step("read", StepState.SUCCEEDED, n, n, output=output) for n, output in enumerate(outputs)]
    drawn = picture(view(run(), steps), 80, lines=None)
    assert '→ {"page": 1}' in drawn
    assert "→ 2,000 bytes, binary" in drawn
    assert drawn.count("→") == 2
    assert "→" not in picture(view(run(), steps), 80)


def test_updates_add_up_to_the_same_tree_as_the_whole() -> None:
    steps = [*fan_out(300), *of_every_kind(302)]
    grown = RunView()
    for one in steps:
        grown.update(RunUpdate(run(), (step(one.key.id, StepState.READY, one.number, one.key.index),)))
        grown.update(
            RunUpdate(run(), (step(one.key.id, StepState.RUNNING, one.number, one.key.index, worker="box-109"),))
        )
    for one in reversed(steps):
        grown.update(RunUpdate(run(), (one,)))
    whole = view(run(), steps)
    assert grown.steps.states == whole.steps.states
    grown._workers = whole._workers  # a worker that was seen once still counts for the short names
    assert picture(grown, 120) == picture(whole, 120)


def test_a_thousand_changes_in_a_fan_out_of_ten_thousand_cost_little() -> None:
    """Eight pictures a second must leave most of a core alone; the bound is far above what is needed."""
    steps = fan_out(10_000)
    made = view(run(), steps)
    begun = time.process_time()
    for _ in range(8):
        made.update(RunUpdate(run(), tuple(steps[:125])))
        made.render(80, NOW)
    assert time.process_time() - begun < 1


def test_nothing_known_yet() -> None:
    assert picture(RunView(), 80) == "waiting for the executor …\n"
    assert picture(view(run(RunState.PENDING, started_at=None), ()), 80).startswith("○ summarize-text  pending 9.5 s")


def test_what_users_name_can_not_move_the_cursor() -> None:
    evil = step("a\x1b[2J\nb", StepState.FAILED, 1, failure=Failure("E\x1b[1m", "x\ny"), worker="w\x1b[0m")
    drawn = picture(view(run(), [evil]), 80)
    assert "\x1b" not in drawn
    assert len(drawn.splitlines()) == 4


def test_markup_of_users_is_text() -> None:
    assert "[red]x[/red]" in picture(view(run(), [step("[red]x[/red]", StepState.RUNNING, 1)]), 80)


def test_several_runs_share_the_screen() -> None:
    lines = views_lines([view(run(), fan_out(1000)) for _ in range(3)], 80, NOW)
    assert len(lines) <= LINES + 3


@pytest.mark.parametrize("width", [7, 20, 44])
def test_a_bar_is_as_wide_as_it_should_be_and_shows_what_there_is(width: int) -> None:
    states = {state: 1 for state in StepState if state is not StepState.UNKNOWN} | {StepState.SUCCEEDED: 99_993}
    bar = bars.progress(states, width)
    assert len(bar.plain) == width
    assert len({span.style for span in bar.spans}) >= 6
    assert bars.progress({}, width).plain == ""


def test_a_time_line_shows_waiting_and_running() -> None:
    assert bars.timeline(0.1, 0.5, 1.0, StepState.RUNNING, 10).plain == " ╌╌╌╌━━━━━"
    assert bars.timeline(0.1, None, 0.5, StepState.READY, 10).plain == " ╌╌╌╌     "
    assert bars.timeline(0.5, 0.5, 0.5, StepState.SUCCEEDED, 10).plain == "     ━    "
    assert bars.timeline(1.0, 1.0, 1.0, StepState.SUCCEEDED, 10).plain == "         ━"
