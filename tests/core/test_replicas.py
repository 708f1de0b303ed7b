"""What becomes of a run when a replica's body fails."""

from __future__ import annotations

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure, RunState, StepKey, StepKind
from tests.core.world import World, closure, of_type

MISSING = Failure("KeyError", "'BUCKET'", "in a replay, after entry 0 of 0")


def started(commands: list[c.Command]) -> list[c.StartAttempt]:
    return of_type(commands, c.StartAttempt)


def world_with_replica() -> tuple[World, str, list[c.StartAttempt]]:
    """Give a run whose lead is in w1, and whose second step was placed in a replica in w2."""
    world = World()
    world.worker("w1", slots=1)
    (run_id,) = world.send()
    world.worker("w2", slots=1)
    starts = started(world.find(run_id, closure("a"), closure("b")))
    assert [start.session_id for start in starts] == ["w1", "w2"]
    return world, run_id, starts


def body_raises(world: World, run_id: str, failure: Failure = MISSING, *returned: c.StartAttempt) -> list[c.Command]:
    """Have the body in w2 raise; what was to run in it is given back."""
    fence = world.invocation(run_id, "w2")
    attempts = [i.AttemptRef(run_id, start.key, start.fence) for start in returned]
    return [
        *world.tell(i.RunFailed("w2", run_id, fence, failure)),
        *world.tell(i.Evicted("w2", run_id, fence, attempts)),
    ]


@pytest.mark.parametrize("retryable", [True, False])
def test_a_replica_whose_body_raises_leaves_the_run_to_its_lead(retryable: bool) -> None:
    world, run_id, (first, second) = world_with_replica()
    failure = Failure("KeyError", "'BUCKET'", retryable=retryable)
    assert started(body_raises(world, run_id, failure, second)) == []
    assert world.run(run_id).attempt == 1
    (again,) = started(world.succeed(first))
    assert (again.session_id, again.key, again.number) == ("w1", second.key, 1)
    world.succeed(again)
    world.tell(i.RunFinished("w1", run_id, world.invocation(run_id), b"out", 3))
    assert world.stored[run_id].state is RunState.SUCCEEDED


def test_a_run_whose_replica_raised_says_what_keeps_its_steps_from_running_there() -> None:
    world, run_id, (_, second) = world_with_replica()
    body_raises(world, run_id, MISSING, second)
    assert any("'BUCKET'" in text for text in world.why_text(run_id))


def test_steps_that_were_queued_go_to_the_lead_as_well() -> None:
    world, run_id, (first, second) = world_with_replica()
    world.find(run_id, closure("c"), closure("d"))
    assert started(body_raises(world, run_id, MISSING, second)) == []
    for _ in range(3):
        (again,) = started(world.succeed(first))
        assert again.session_id == "w1"
        first = again


def test_tasks_of_the_run_go_on_anywhere() -> None:
    world, run_id, (_, second) = world_with_replica()
    body_raises(world, run_id, MISSING, second)
    (task,) = started(world.find(run_id, i.StepPlanned(StepKey("t", 0), StepKind.TASK, target="t")))
    assert task.session_id == "w2"


def test_a_suspect_is_not_tried_where_the_body_raises() -> None:
    world, run_id, (first, second) = world_with_replica()
    body_raises(world, run_id, MISSING, second)
    (again,) = started(world.succeed(first))
    lost = Failure("WorkerLostError", "lost", retry_after=0.0)
    for _ in range(2):
        (again,) = started([*world.fail(again, lost), *world.wait(1.0)])
    assert again.session_id == "w1"


def test_another_lead_may_run_where_the_body_raised_and_is_then_tried_again_by_its_policy() -> None:
    world, run_id, (first, second) = world_with_replica()
    body_raises(world, run_id, MISSING, second)
    world.succeed(first)
    commands = world.tell(i.Draining("w1", [], done=True), i.StreamLost("w1", "stream-w1"))
    assert [start.session_id for start in started(commands)] == ["w2"]
    world.tell(i.RunFailed("w2", run_id, world.invocation(run_id), MISSING))
    assert world.run(run_id).attempt == 2
    assert world.run(run_id).failure == MISSING


def test_a_body_that_is_tried_again_is_tried_everywhere() -> None:
    world, run_id, (_, second) = world_with_replica()
    body_raises(world, run_id, MISSING, second)
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), MISSING))
    world.wait(1.0)
    assert world.state.runs[run_id].bound is None


def test_a_step_that_a_replica_has_not_found_fails_the_run_with_the_lines_of_both() -> None:
    world, run_id, (_, second) = world_with_replica()
    message = "in this worker the body has not found step 'b', and awaits the closure step 'x' at g.py:7"
    failure = Failure("NonDeterminismError", message, retryable=False)
    world.tell(i.RunFailed("w2", run_id, world.invocation(run_id, "w2"), failure, second.key))
    ended = world.stored[run_id]
    assert ended.state is RunState.FAILED
    assert ended.failure is not None
    assert "another worker found the closure step 'b' at f.py:1" in ended.failure.message
    assert "g.py:7" in ended.failure.message


def test_another_target_under_a_known_key_is_shown_with_both_sides_cut() -> None:
    world, run_id, _ = world_with_replica()
    key = StepKey("i" * 900, 0)
    world.find(run_id, i.StepPlanned(key, StepKind.TASK, target="old" * 99, source="f.py:1"))
    world.find(run_id, i.StepPlanned(key, StepKind.TASK, target="new" * 99, source="f.py:9"))
    failure = world.stored[run_id].failure
    assert failure is not None
    assert failure.type == "NonDeterminismError"
    for part in ("oldold", "newnew", "f.py:1", "f.py:9", "iiii"):
        assert part in failure.message
    assert len(failure.message) < 1_000
