"""The kit can fail: each bug that is put into a worker or an executor is found by its own cases, and by no others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance.kit import HERE, broken, outcomes, run_kit

FOUND_BY = {
    "forgets_results": "lost_recorded_of_a_failure",
    "takes_a_reset_for_a_shutdown": "peer_stream_cancel",
    "ignores_refusals": "drain_with_a_refused_result",
    "waits_for_ever": "silent_executor",
    "drops_work_in_a_drain": "drain_with_a_kept_result",
    "delivers_in_the_order_of_steps": "race_replayed_second",
    "makes_frames_of_any_size": "small_frames",
    "keeps_bodies": "eviction",
    "comes_again_when_refused": "refused_permission_denied",
    "beats_too_rarely": "heartbeats_obey_the_interval",
}
EXECUTOR_FOUND_BY = {
    "leaves_heartbeats_unanswered": {"heartbeat_is_answered"},
    "knows_no_sessions": {
        "draining_over_a_reset",
        "eager_plan_comes_with_hello",
        "result_after_resume",
        "result_is_sent_again_after_resume",
        "session_of_another",
    },
    "counts_slots_double": {"slots", "replica_whose_body_raises"},
    "gives_an_event_twice": {"events_one_after_the_other"},
    "takes_two_events_under_one_id": {"event_id_given_twice", "event_id_given_twice_by_a_step"},
}


@pytest.mark.parametrize("bug", FOUND_BY)
def test_a_worker_with_a_bug_fails_its_own_case_and_no_other(tmp_path: Path, bug: str) -> None:
    cases, place = list(FOUND_BY.values()), list(FOUND_BY).index(bug)
    neighbours = (cases + cases)[place : place + 4]  # its own, and three that it must not fail
    options = [part for case in neighbours for part in ("--case", case)]
    code, report, output = run_kit(tmp_path, "worker", *options, "--", *broken(bug))
    assert report, output
    failed = {case for case, outcome in outcomes(report).items() if outcome == "failed"}
    assert failed == {FOUND_BY[bug]}, output
    assert code == 1


@pytest.mark.parametrize("bug", EXECUTOR_FOUND_BY)
def test_an_executor_with_a_bug_fails_its_own_cases_and_no_other(tmp_path: Path, bug: str) -> None:
    code, report, output = run_kit(tmp_path, "executor", "--", sys.executable, str(HERE / "broken_executor.py"), bug)
    assert report, output
    assert {case for case, outcome in outcomes(report).items() if outcome == "failed"} == EXECUTOR_FOUND_BY[bug], output
    assert code == 1


def test_a_failure_shows_what_was_awaited_what_came_and_the_conversation(tmp_path: Path) -> None:
    _, _, output = run_kit(
        tmp_path, "worker", "--case", "race_replayed_second", "--", *broken("delivers_in_the_order_of_steps")
    )
    assert "0 of 1 cases passed" in output
    assert "failed      race_replayed_second" in output
    assert 'steps[0].key.id: awaited "won-two", came "won-one"' in output
    assert 'executor ▸ invoke { run_id: "run-1"' in output
    assert 'worker   ▸ steps_found { run_id: "run-1"' in output


def test_a_worker_of_tasks_only_is_not_held_against_functions(tmp_path: Path) -> None:
    cases = ["--case", "task", "--case", "one_step", "--case", "drain_while_idle"]
    code, report, output = run_kit(tmp_path, "worker", *cases, "--", *broken("has_tasks_only"))
    assert outcomes(report) == {"task": "passed", "one_step": "not offered", "drain_while_idle": "passed"}, output
    assert "the worker has no function one-step" in output
    assert "2 of 2 cases passed, 1 not offered" in output
    assert code == 0
