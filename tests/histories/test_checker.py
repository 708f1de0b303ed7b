"""The checker, with histories that are right and with ones that are broken on purpose, one way for each promise."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepwire_core.model import RunState, Step
from tests.histories.checker import check, differences
from tests.histories.database import Database
from tests.histories.records import read
from tests.histories.story import Story
from tests.simulation.cases import draw


def test_a_history_in_which_everything_went_well_has_no_breach(story: Story):
    assert story.check() == []
    told = {record["what"] for record in story.records}
    assert told >= {"acknowledged", "dispatched", "closed", "recorded", "told", "ended", "gone", "found"}


def test_the_newest_records_of_the_executor_may_be_missing(story: Story):
    executor = [record for record in story.records if record["process"] == "executor-1"]
    for lost in range(1, len(executor), 5):
        gone = {id(record) for record in executor[-lost:]}
        kept = [record for record in story.records if id(record) not in gone]
        assert check(kept, story.database, finished=False) == []


def test_workers_that_write_no_history_break_no_promise(story: Story):
    silent = story.find("finished", outcome="step_run")["process"]
    kept = [record for record in story.records if record["process"] != silent]
    assert {breach.promise for breach in check(kept, story.database)} == {"I4"}, "it began what nobody has started"
    sessions = {record["session"] for record in story.records if record["process"] == silent and "session" in record}
    for record in kept:
        if record["what"] == "welcomed" and record["session"] in sessions:
            record["sdk"] = "stepwire-typescript"
    assert check(kept, story.database) == []


def lost_event(story: Story) -> None:
    story.find("acknowledged", process="client")["run_ids"] = ["another run"]


def event_with_two_answers(story: Story) -> None:
    record = story.find("acknowledged", process="client")
    story.after(record, "acknowledged", run_ids=[*record["run_ids"], "one more"])


def changed_result(story: Story) -> None:
    story.find("recorded", kind="CLOSURE")["digest"] = "0123456789ab"


def result_seen_before_it_was_recorded(story: Story) -> None:
    record = story.find("delivered")
    story.after(record, "delivered", sequence=99)


def wrong_end_told(story: Story) -> None:
    story.find("ended", state="CANCELLED")["state"] = "SUCCEEDED"


def issued_after_its_result(story: Story) -> None:
    recorded = story.find("recorded", kind="CLOSURE", state="SUCCEEDED")
    issued = story.find("dispatched", run=recorded["run"], step=recorded["step"])
    story.after(recorded, "dispatched", **{key: issued[key] for key in ("number", "worker", "session", "timeout")})


def stale_result_recorded(story: Story) -> None:
    recorded = story.find("recorded", kind="CLOSURE", state="SUCCEEDED")
    issued = story.find("dispatched", fence=recorded["fence"])
    story.after(issued, "dispatched", fence=recorded["fence"] + 1)


def result_of_nobody(story: Story) -> None:
    recorded = story.find("recorded", kind="CLOSURE", state="SUCCEEDED")
    story.records.remove(story.find("started", fence=recorded["fence"]))


def retried_too_soon(story: Story) -> None:
    closed = story.find("closed", outcome="failed")
    closed["retry_in"] += 10


def retried_too_often(story: Story) -> None:
    story.find("closed", outcome="failed")["retry_in"] = None


def drain_that_counted(story: Story) -> None:
    story.find("dispatched", step="lone:0")["number"] = 2


def found_at_another_place(story: Story) -> None:
    found = story.find("found", sequence=0)
    story.after(found, "found", before=1, sequence=2, process="worker-other")


def found_as_another_kind(story: Story) -> None:
    found = story.find("found", sequence=0)
    steps = [[step, "SLEEP"] for step, _ in found["steps"]]
    story.after(found, "found", steps=steps, process="worker-other")


def run_without_an_end(story: Story) -> None:
    next(iter(story.database.runs.values())).state = RunState.RUNNING


def issued_after_the_cancellation(story: Story) -> None:
    ended = story.find("ended", state="CANCELLED")
    issued = story.find("dispatched", run=ended["run"])
    fields = {key: issued[key] for key in ("step", "fence", "number", "worker", "session", "timeout")}
    story.after(ended, "dispatched", **fields)


def not_told_of_the_cancellation(story: Story) -> None:
    ended = story.find("ended", state="CANCELLED")
    story.records[:] = [each for each in story.records if each["what"] != "told" or each["run"] != ended["run"]]


def more_attempts_than_slots(story: Story) -> None:
    story.find("connected")["slots"] = 0


def started_twice(story: Story) -> None:
    started = story.find("started", number=1)
    story.after(started, "started")


def bad_input_that_hit_another(story: Story) -> None:
    story.after(story.find("connected"), "refused_stream", worker="worker-0-1", code="INVALID_ARGUMENT", message="?")


def two_owners(story: Story) -> None:
    opened = story.find("opened")
    story.after(opened, "opened", process="executor-other")


def written_by_the_former_owner(story: Story) -> None:
    recorded = story.find("recorded")
    story.after(story.find("opened"), "opened", epoch=9, process="executor-other")
    assert recorded["epoch"] < 9


def given_up_too_soon(story: Story) -> None:
    lost = story.find("closed", outcome="lost")
    story.replace(lost, at=lost["at"] - 4)


def timed_out_too_soon(story: Story) -> None:
    closed = story.find("closed", outcome="succeeded")
    closed["outcome"] = "timed_out"
    story.find("dispatched", fence=closed["fence"])["timeout"] = 1_000.0


def closed_twice(story: Story) -> None:
    story.after(story.find("closed"), "closed", outcome="lost")


def never_closed(story: Story) -> None:
    story.records.remove(story.find("closed", outcome="succeeded"))


def waits_of(story: Story) -> list[Step]:
    steps = [step for of_run in story.database.steps.values() for step in of_run.values()]
    return [step for step in steps if step.key.id == "q-wait"]


def event_given_twice(story: Story) -> None:
    first, second, _ = waits_of(story)
    second.event_position = first.event_position


def event_passed_over(story: Story) -> None:
    first, second, _ = waits_of(story)
    first.event_position, second.event_position = second.event_position, first.event_position


def event_that_does_not_fit(story: Story) -> None:
    (wait, *_) = waits_of(story)
    wait.event_position = story.database.events["sim/crowd-7"][0].position


BROKEN: list[tuple[str, Callable[[Story], None]]] = [
    ("I1", lost_event),
    ("I1", event_with_two_answers),
    ("I2", changed_result),
    ("I2", result_seen_before_it_was_recorded),
    ("I2", wrong_end_told),
    ("I3", issued_after_its_result),
    ("I4", stale_result_recorded),
    ("I4", result_of_nobody),
    ("I5", retried_too_soon),
    ("I5", retried_too_often),
    ("I5", drain_that_counted),
    ("I6", found_at_another_place),
    ("I6", found_as_another_kind),
    ("I7", run_without_an_end),
    ("I8", issued_after_the_cancellation),
    ("I8", not_told_of_the_cancellation),
    ("I9", more_attempts_than_slots),
    ("I9", started_twice),
    ("I10", bad_input_that_hit_another),
    ("I11", two_owners),
    ("I11", written_by_the_former_owner),
    ("I12", given_up_too_soon),
    ("I12", timed_out_too_soon),
    ("I14", closed_twice),
    ("I14", never_closed),
    ("I15", event_given_twice),
    ("I15", event_passed_over),
    ("I15", event_that_does_not_fit),
]


@pytest.mark.parametrize(("promise", "break_it"), BROKEN, ids=lambda part: getattr(part, "__name__", part))
def test_a_broken_promise_is_found_and_said(story: Story, promise: str, break_it: Callable[[Story], None]):
    break_it(story)
    breaches = story.check()
    assert promise in {breach.promise for breach in breaches}, breaches
    assert all(len(breach.text) > 20 for breach in breaches)


def test_a_run_that_says_what_it_waits_for_need_not_end(story: Story):
    run_without_an_end(story)
    (run_id,) = [run.id for run in story.database.runs.values() if not run.state.ended]
    assert "I7" not in {breach.promise for breach in story.check(waiting={run_id})}


def test_a_worker_that_misbehaves_may_be_refused(story: Story):
    bad_input_that_hit_another(story)
    assert story.check(misbehaving={"worker-0-1"}) == []


def test_the_same_work_must_come_to_the_same(story: Story, original: Story):
    assert differences(story.database, original.database) == []
    run = next(run for run in story.database.runs.values() if run.state is RunState.SUCCEEDED)
    run.output = b"\x0a\x01\x31"
    (breach,) = differences(story.database, original.database)
    assert breach.promise == "I13"


def test_files_are_read_in_the_order_of_their_stamps_and_a_cut_line_is_left_out(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"at": 2, "what": "b"}\n{"at": 3, "wh')
    (tmp_path / "b.jsonl").write_text('{"at": 1, "what": "a"}\n')
    assert [record["what"] for record in read(tmp_path)] == ["a", "b"]


def test_a_line_in_the_middle_that_is_no_record_is_an_error(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('nonsense\n{"at": 3, "what": "b"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:1 is no record"):
        read(tmp_path)


@pytest.fixture
def stories() -> Iterator[list[Story]]:
    logging.disable(logging.CRITICAL)
    yield [Story(draw(random.Random(seed), seed)) for seed in range(5)]
    logging.disable(logging.NOTSET)


def test_histories_survive_being_written_as_json(stories: list[Story]):
    for story in stories:
        again = [json.loads(json.dumps(record)) for record in story.records]
        assert check(again, story.database) == []


def test_an_empty_history_of_an_empty_database_is_fine():
    assert check([], Database()) == []
