"""What time brings: sleeps, timeouts, backoffs."""

from __future__ import annotations

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure, RunState, StepKey, StepKind, StepState, WaitSpec
from stepwire_core.state import IDLE_SECONDS
from tests.core.world import closure, of_type, started, world_with_run


def test_a_sleeping_run_leaves_the_memory_and_wakes_at_its_time() -> None:
    world, run_id = world_with_run()
    world.find(run_id, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=60.0))
    due = world.wall + 60.0
    world.wait(IDLE_SECONDS)
    assert run_id not in world.state.runs
    assert world.stored[run_id].wake_at == due
    (invoke,) = of_type(world.wait(60.0 - IDLE_SECONDS), c.Invoke)
    assert [step.key.id for step in invoke.journal] == ["nap"]


def test_a_sleep_until_the_past_ends_at_once() -> None:
    world, run_id = world_with_run()
    commands = world.find(run_id, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, due_at=world.wall - 5))
    assert len(of_type(commands, c.Resume)) == 1


def test_backoff_and_timeouts_do_not_depend_on_the_wall_clock() -> None:
    world, run_id = world_with_run()
    starts = started(world.find(run_id, closure("a"), closure("b", attempt_timeout=10.0)))
    world.fail(starts[0], Failure("X", "", retry_after=2.0))
    world.wall += 7200
    assert started(world.tell(i.Tick())) == []
    assert world.run(run_id).steps[StepKey("b", 0)].state is StepState.RUNNING
    world.wall -= 4 * 3600
    assert len(started(world.wait(2.0))) == 1


def test_an_attempt_that_takes_too_long_is_cancelled_and_retried() -> None:
    world, run_id = world_with_run()
    (start,) = started(world.find(run_id, closure("a", attempt_timeout=5.0)))
    commands = world.wait(5.0)
    assert [cancel.attempt.fence for cancel in of_type(commands, c.CancelAttempt)] == [start.fence]
    step = world.run(run_id).steps[start.key]
    assert step.state is StepState.RETRYING
    assert len(of_type(world.succeed(start), c.Refused)) == 1


def test_a_step_that_takes_too_long_fails_for_good() -> None:
    world, run_id = world_with_run()
    (start,) = started(world.find(run_id, closure("a", step_timeout=5.0)))
    world.fail(start, Failure("X", "", retry_after=100.0))
    world.wait(5.0)
    failure = world.run(run_id).journal[0].failure
    assert failure is not None
    assert failure.type == "StepTimeoutError"


def test_a_run_that_takes_too_long_fails() -> None:
    world, run_id = world_with_run(run_timeout=30.0)
    world.find(run_id, closure("a"))
    world.wait(30.0)
    assert world.stored[run_id].state is RunState.FAILED
    failure = world.stored[run_id].failure
    assert failure is not None
    assert failure.type == "RunTimeoutError"
    assert "of 30 s (timeout=…)" in failure.message


def test_a_wait_ends_with_its_event_or_its_timeout() -> None:
    world, run_id = world_with_run()
    waits = [
        i.StepPlanned(StepKey("w", n), StepKind.WAIT_FOR_EVENT, target="paid", wait=WaitSpec(), delay=2.0)
        for n in range(2)
    ]
    (look_up,) = of_type(world.find(run_id, *waits), c.FindEvents)
    assert look_up.wanted == [c.Wanted("[]", "[]", world.state.position, 2)]
    world.tell(i.EventsLookedUp(run_id, "paid", look_up.number, [], 0, more=False))
    world.tell(i.EventMatched(run_id, "paid", i.FoundEvent(9, b"event", {"[]": "[]"})))
    world.wait(2.0)
    journal = world.run(run_id).journal
    assert [(step.output, step.timed_out) for step in journal] == [(b"event", False), (None, True)]
