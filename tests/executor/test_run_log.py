"""The executor's lines about runs: what has failed, by ids."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure
from stepwire_executor.logs import MOST_ALIKE, WINDOW_SECONDS
from stepwire_executor.run_log import RunLog
from tests.core.world import World, closure, of_type

Lines = list[tuple[int, str]]


def lines(world: World, caplog: pytest.LogCaptureFixture, *, log_runs: bool = False) -> Lines:
    with caplog.at_level(logging.INFO, "stepwire.executor"):
        RunLog(lambda seconds, call: None, log_runs=log_runs).observe(world.observations)
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def failed(world: World, failure: Failure) -> str:
    world.worker("w1")
    (run_id,) = world.send()
    (start,) = of_type(world.find(run_id, closure("look-up")), c.StartAttempt)
    world.fail(start, failure)
    return run_id


def test_an_attempt_that_is_tried_again_is_a_warning_with_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    run_id = failed(world, Failure("ValueError", "no such\ncustomer", retry_after=2.0))
    assert lines(world, caplog) == [
        (
            logging.WARNING,
            "attempt 1 of step 'look-up' failed in worker i-w1, the next comes in 2 s: ValueError: no such customer",
        )
    ]
    (record,) = caplog.records
    fields = {"app": "app", "function": "f", "run_id": run_id, "step": "look-up", "index": 0, "attempt": 1}
    assert fields.items() <= record.__dict__.items()


def test_a_step_and_a_run_that_fail_for_good_are_errors(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    run_id = failed(world, Failure("ValueError", "no", retryable=False))
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), Failure("StepError", "x" * 1000, retryable=False)))
    step, run = lines(world, caplog)
    assert step == (
        logging.ERROR,
        "step 'look-up' has failed for good after 1 attempt in worker i-w1: ValueError: no",
    )
    assert run[0] == logging.ERROR
    assert run[1].startswith("the run has failed after 0 s: StepError: xxx")
    assert len(run[1]) < 400


def test_a_body_that_is_tried_again_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    failure = Failure("KeyError", "a setting", retry_after=1.0)
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), failure))
    assert lines(world, caplog) == [
        (
            logging.WARNING,
            "attempt 1 of the body failed in worker i-w1, the next comes in 1 s: KeyError: a setting",
        )
    ]


def test_a_lost_worker_is_named_with_its_steps_and_bodies(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.worker("w1", slots=20)
    (idle,) = world.send()
    world.find(idle, *[closure("chunk", n) for n in range(12)])
    (busy,) = world.send(event_id="e2")
    world.tell(i.StreamLost("w1", "stream-w1"))
    world.wait(world.limits.session_grace)
    (lost,) = [text for _, text in lines(world, caplog) if "is lost" in text]
    assert (
        f"worker i-w1 is lost: it has not come back within its grace; it had in hand step 'chunk' of run {idle}" in lost
    )
    assert lost.endswith("and 3 more")
    assert busy in world.state.runs


def test_what_goes_well_leaves_a_line_only_if_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.tell(i.RunFinished("w1", run_id, world.invocation(run_id), b"done", 4))
    assert lines(world, caplog) == []
    assert lines(world, caplog, log_runs=True) == [
        (logging.INFO, "the run begins, by event 'go'"),
        (logging.INFO, "the run has succeeded after 0 s"),
    ]


def test_many_failures_of_a_kind_are_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.worker("w1", slots=1000)
    (run_id,) = world.send()
    for start in of_type(world.find(run_id, *[closure(f"page-{n}") for n in range(200)]), c.StartAttempt):
        world.fail(start, Failure("ValueError", "no", retryable=False))
    later: list[tuple[float, Callable[[], None]]] = []
    log = RunLog(lambda seconds, call: later.append((seconds, call)))
    log.observe(world.observations)
    assert len(caplog.records) == MOST_ALIKE
    ((seconds, sum_up),) = later
    assert seconds == WINDOW_SECONDS
    sum_up()
    assert caplog.records[-1].getMessage().startswith("… and 150 more like it within 10 s: step 'page-*' of app/f")
    log.close()
    assert len(caplog.records) == MOST_ALIKE + 1
