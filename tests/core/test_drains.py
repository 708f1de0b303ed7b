"""What a draining worker has in hand: it goes on over lost streams and restarts, and is lost only with its worker."""

from __future__ import annotations

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.causes import CauseKind
from stepwire_core.model import FunctionOptions, Retry, StepState
from stepwire_core.state import SessionState
from tests.core.world import World, closure, of_type


def started(commands: list[c.Command]) -> list[c.StartAttempt]:
    return of_type(commands, c.StartAttempt)


def draining_world(retries: int = 4) -> tuple[World, c.StartAttempt, i.AttemptRef]:
    """A world whose worker w1 drains with an attempt in hand, beside an idle worker w2."""
    world = World(FunctionOptions("f", ("go",), Retry(retries)))
    world.worker("w1")
    (run_id,) = world.send()
    (start,) = started(world.find(run_id, closure("a")))
    world.worker("w2")
    world.tell(i.Draining("w1"))
    return world, start, i.AttemptRef(run_id, start.key, start.fence)


def comes_back(world: World, *in_hand: i.AttemptRef, says_so: bool = True) -> c.Welcomed:
    (welcome,) = of_type(
        world.worker("n", instance_id="i-w1", resume_session="w1", in_hand=in_hand, stream="second", draining=says_so),
        c.Welcomed,
    )
    return welcome  # type: ignore[no-any-return]


@pytest.mark.parametrize("says_so", [True, False], ids=["says-so-in-hello", "older-sdk"])
def test_a_draining_worker_whose_stream_is_cut_comes_back_and_its_result_is_recorded(says_so: bool) -> None:
    world, start, attempt = draining_world()
    assert started(world.tell(i.StreamLost("w1", "stream-w1"))) == []
    assert world.state.sessions["w1"].state is SessionState.LOST
    assert comes_back(world, attempt, says_so=says_so).unwanted == []
    assert world.state.sessions["w1"].state is SessionState.DRAINING
    world.tell(i.Draining("w1"))
    assert len(of_type(world.succeed(start), c.Recorded)) == 1
    assert world.failed_attempts == []


def test_a_session_ends_with_its_stream_once_its_drain_has_nothing_in_hand() -> None:
    world, start, _ = draining_world()
    world.succeed(start)
    world.tell(i.StreamLost("w1", "stream-w1"))
    assert "w1" not in world.state.sessions


def test_a_worker_whose_recorded_was_lost_in_its_drain_is_told_that_the_attempt_is_over() -> None:
    world, start, attempt = draining_world()
    world.succeed(start)
    world.tell(i.StreamLost("w1", "stream-w1"))
    assert list(comes_back(world, attempt).unwanted) == [attempt]


def test_attempts_that_crossed_with_a_drain_are_given_back_with_the_last_word() -> None:
    world, start, _ = draining_world()
    (again,) = started(world.tell(i.Draining("w1", (), done=True)))
    assert (again.session_id, again.number) == ("w2", 1)
    assert again.fence > start.fence
    assert world.failed_attempts == []
    world.tell(i.StreamLost("w1", "stream-w1"))
    assert "w1" not in world.state.sessions


def test_attempts_in_hand_are_lost_and_count_when_a_draining_worker_does_not_come_back() -> None:
    world, start, _ = draining_world(retries=0)
    world.tell(i.StreamLost("w1", "stream-w1"))
    assert started(world.wait(world.limits.session_grace)) == []
    step = world.run(start.run.id).steps[start.key]
    assert step.state is StepState.FAILED
    assert step.failure is not None
    assert step.failure.message == "worker i-w1 was lost in its drain with attempt 1 of step a"
    assert "w1" not in world.state.sessions


@pytest.mark.parametrize("was_away", [True, False], ids=["stream-was-lost", "executor-was-restarted"])
def test_a_worker_that_comes_back_draining_gets_no_work(was_away: bool) -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    (start,) = started(world.find(run_id, closure("a")))
    if was_away:
        world.tell(i.StreamLost("w1", "stream-w1"))
    else:
        world.crash()
    assert comes_back(world, i.AttemptRef(run_id, start.key, start.fence)).unwanted == []
    (other,) = world.send(event_id="e2")
    assert of_type(world.commands, c.Invoke)[-1].run.id == run_id
    assert world.state.runs[other].lead is None
    session = next(iter(world.state.sessions.values()))
    report = i.StepRun(session.id, run_id, start.key, start.fence, b"out", 3, 0.0)
    assert len(of_type(world.tell(report), c.Recorded)) == 1
    (invoke, _) = of_type(world.worker("w2"), c.Invoke)
    assert invoke.session_id == "w2"


def test_a_draining_worker_may_come_back_after_the_deployment_that_replaces_it_has_changed_a_function() -> None:
    world, _, attempt = draining_world()
    world.tell(i.StreamLost("w1", "stream-w1"))
    world.tell(i.StreamLost("w2", "stream-w2"))
    changed = i.Hello("w3", "i-w3", "app", "", [FunctionOptions("f", ("go",), Retry(9))], (), 5, 5, stream="s3")
    assert of_type(world.tell(changed), c.Rejected) == []
    assert comes_back(world, attempt).unwanted == []
    assert world.state.functions[("app", "f")].options.retry == Retry(9)


def test_a_worker_lost_in_its_drain_is_explained_so() -> None:
    world, start, _ = draining_world()
    world.tell(i.StreamLost("w1", "stream-w1"))
    (running,) = [each for each in world.why(start.run.id) if each.kind is CauseKind.STEP_RUNNING]
    assert [each.kind for each in running.causes] == [CauseKind.WORKER_LOST, CauseKind.WORKER_DRAINING]
