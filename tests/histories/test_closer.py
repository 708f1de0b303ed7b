"""Each of the closer laws finds what breaks it, and names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from stepwire_core.model import Retry
from tests.histories import closer
from tests.histories.records import Index, Record
from tests.histories.story import Story

Law = Callable[..., Iterator[str]]


def result(story: Story) -> Record:
    """The first result of a step's code."""
    return story.find("recorded", kind="CLOSURE", state="SUCCEEDED")


def tear_the_journal(story: Story) -> str:
    run_id = result(story)["run"]
    journal = story.database.journals[run_id]
    journal[99] = journal.pop(1)
    return run_id


def record_twice(story: Story) -> str:
    recorded = result(story)
    story.after(recorded, "recorded")
    return f"entry {recorded['sequence']} of run {recorded['run']}"


def issue_after_a_lost_note(story: Story) -> str:
    recorded = result(story)
    issued = story.find("dispatched", fence=recorded["fence"])
    story.records.remove(recorded)
    story.after(story.records[-1], **{**issued, "fence": issued["fence"] + (9 << 40), "at": story.records[-1]["at"]})
    return f"fence {recorded['fence']} was recorded"


def refuse_the_newest(story: Story) -> str:
    issued = story.find("dispatched")
    story.after(issued, "refused", current=0)
    return f"fence {issued['fence']}"


def close_what_runs_on(story: Story) -> str:
    closed = story.find("closed", outcome="failed")
    story.records = [
        each for each in story.records if (each["what"], each.get("fence")) != ("finished", closed["fence"])
    ]
    return f"fence {closed['fence']}"


def skip_a_number(story: Story) -> str:
    run_id, steps = next((run_id, steps) for run_id, steps in story.database.failed.items() if steps)
    step, rows = next(iter(steps.items()))
    rows[0] = replace(rows[0], number=3)
    return f"{step} of run {run_id} are [3"


def try_the_body_too_often(story: Story) -> str:
    run = next(iter(story.database.runs.values()))
    story.database.retries[run.function_key] = Retry(retries=1)
    run.attempt = 3
    return f"the body of run {run.id} was tried 3 times"


def skip_an_entry(story: Story) -> str:
    delivered = next(each for each in story.records if each["what"] == "delivered" and each["sequence"] == 2)
    delivered["sequence"] = 3
    return f"entry 3 to a body of run {delivered['run']} after entry 1"


def issue_after_success(story: Story) -> str:
    begun = {each["run"] for each in story.records if each["what"] == "dispatched"}
    ends = (each for each in story.records if each["what"] == "ended" and each["state"] == "SUCCEEDED")
    ended = next(each for each in ends if each["run"] in begun)
    issued = story.find("dispatched", run=ended["run"])
    story.after(ended, **{**issued, "at": ended["at"]})
    return f"fence {issued['fence']}"


def have_no_slots(story: Story) -> str:
    issued = story.find("dispatched")
    story.find("connected", session=issued["session"])["slots"] = 0
    return "has 0 slots"


def lose_without_a_cause(story: Story) -> str:
    lost = story.find("closed", outcome="lost")
    story.records = [each for each in story.records if each["what"] != "gone"]
    return f"fence {lost['fence']}"


def close_what_was_not_issued(story: Story) -> str:
    issued = story.find("dispatched")
    story.records.remove(issued)
    return f"fence {issued['fence']}"


def leave_open_when_recorded(story: Story) -> str:
    recorded = result(story)
    story.records.remove(story.find("closed", fence=recorded["fence"]))
    return f"fence {recorded['fence']}"


def leave_open_when_tried_again(story: Story) -> str:
    closed = story.find("closed", outcome="failed")
    story.records.remove(closed)
    return f"(fence {closed['fence']})"


def begin_before_what_was_issued(story: Story) -> str:
    started = next(each for each in story.records if each["what"] == "started" and each["number"] == 1)
    story.after(story.records[0], **{**started, "fence": started["fence"] - 1})
    return f"but fence {started['fence'] - 1} had begun in {started['process']}"


def begin_more_often_than_its_policy_says(story: Story) -> str:
    run_id, steps = next(iter(story.database.steps.items()))
    step_name, step = next((name, step) for name, step in steps.items() if step.kind in closer.CODE)
    step.retry = Retry(retries=0)
    started = story.find("started", run=run_id, step=step_name)
    for number in range(1, 9):
        story.after(started, **{**started, "fence": started["fence"] + number})
    return f"{step_name} of run {run_id} was begun"


def take_back_what_goes_on(story: Story) -> str:
    closed = story.find("closed", outcome="succeeded")
    closed["outcome"] = "returned"
    story.records = [each for each in story.records if each["what"] != "told"]
    return f"(fence {closed['fence']})"


@pytest.mark.parametrize(
    ("law", "break_it"),
    [
        (closer.the_journal_is_whole, tear_the_journal),
        (closer.the_journal_is_whole, record_twice),
        (closer.no_fence_is_newer_than_the_recorded_one, issue_after_a_lost_note),
        (closer.the_newest_attempt_is_not_refused, refuse_the_newest),
        (closer.only_what_its_worker_finished_is_closed, close_what_runs_on),
        (closer.failures_are_counted_one_by_one, skip_a_number),
        (closer.failures_are_counted_one_by_one, try_the_body_too_often),
        (closer.code_that_begins_is_counted, begin_before_what_was_issued),
        (closer.no_code_begins_more_often_than_its_policy_says, begin_more_often_than_its_policy_says),
        (closer.what_is_in_hand_is_not_taken_back, take_back_what_goes_on),
        (closer.the_journal_is_given_in_order, skip_an_entry),
        (closer.nothing_is_issued_after_the_end, issue_after_success),
        (closer.no_worker_is_given_more_than_its_slots, have_no_slots),
        (closer.nobody_is_given_up_whose_stream_is_there, lose_without_a_cause),
        (closer.attempts_are_closed_in_time, close_what_was_not_issued),
        (closer.attempts_are_closed_in_time, leave_open_when_recorded),
        (closer.attempts_are_closed_in_time, leave_open_when_tried_again),
    ],
    ids=lambda part: part.__name__,
)
def test_what_breaks_a_law_is_named(story: Story, law: Law, break_it: Callable[[Story], str]) -> None:
    assert list(law(Index(story.records), story.database)) == []
    named = break_it(story)
    texts = list(law(Index(story.records), story.database))
    assert any(named in text for text in texts), texts
    (promise,) = [promise for promise, each in closer.LAWS if each is law]
    assert promise in {breach.promise for breach in story.check()}
