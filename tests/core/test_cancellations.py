"""What was cancelled or given up: who is told, what is kept, what may be wanted anew."""

from __future__ import annotations

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure, FunctionOptions, Retry, RunState, StepKey, StepKind, StepState, WaitSpec
from tests.core.world import World, closure, of_type, started, world_with_run


def test_no_attempt_follows_a_cancellation_and_running_ones_are_told() -> None:
    world, run_id = world_with_run(slots=1)
    world.find(run_id, closure("a"), closure("b"))
    commands = world.tell(i.RunCancelled(run_id, "enough", "reply"))
    assert [(cancel.session_id, cancel.run_id) for cancel in of_type(commands, c.CancelRun)] == [("w1", run_id)]
    assert of_type(commands, c.Answer) == [c.Answer("reply", True)]
    assert started(world.wait(1000)) == []
    assert world.state.sessions["w1"].free == 1


def test_cancelling_a_run_cancels_the_runs_that_it_invoked() -> None:
    world = World(FunctionOptions("f", ("go",)), FunctionOptions("g"))
    world.worker("w1", functions=("f", "g"))
    (run_id,) = world.send()
    world.find(run_id, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="/g"))
    (child_id,) = [each for each in world.state.runs if each != run_id]
    world.tell(i.RunCancelled(run_id, "enough"))
    assert world.stored[child_id].state is RunState.CANCELLED


def test_a_cancelled_step_is_not_run_and_a_recorded_one_keeps_its_result() -> None:
    world, run_id = world_with_run(slots=1)
    (start,) = started(world.find(run_id, closure("a"), closure("b")))
    invocation = world.invocation(run_id)
    commands = world.tell(
        i.StepRun("w1", run_id, start.key, start.fence, b"kept", 4, 0.0),
        i.StepCancelled("w1", run_id, invocation, [StepKey("a", 0), StepKey("b", 0)]),
    )
    steps = world.run(run_id).steps
    assert steps[StepKey("a", 0)].state is StepState.SUCCEEDED
    assert steps[StepKey("b", 0)].state is StepState.CANCELLED
    assert started(commands) == []


@pytest.mark.parametrize("rounds", [1, 2, 50])
def test_what_is_invoked_and_given_up_again_and_again_in_one_frame_is_counted_once(rounds: int) -> None:
    world = World(FunctionOptions("f", ("go",)), FunctionOptions("g"))
    world.worker("w1", functions=("f", "g"), max_invocations=1)
    (run_id,) = world.send()
    lead, call = world.invocation(run_id), i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="/g")
    batch: list[i.Input] = []
    for _ in range(rounds):
        batch.append(i.StepsFound("w1", run_id, lead, 0, [call], False))
        batch.append(i.StepCancelled("w1", run_id, lead, [call.key]))
    world.tell(*batch)
    assert (len(world.state.queued), world.state.queued.bytes) == (0, 0)
    children = [run for run in world.stored.values() if run.parent_run_id == run_id]
    assert len(children) == rounds
    assert {run.state for run in children} == {RunState.CANCELLED}
    world.tell(*batch[:-1])
    assert len(world.state.queued) == 1


def test_a_step_that_is_planned_anew_is_not_ended_by_a_timer_of_the_time_before() -> None:
    world, run_id = world_with_run()
    steps = [
        i.StepPlanned(StepKey("wait", 0), StepKind.WAIT_FOR_EVENT, target="n", wait=WaitSpec(), delay=4.0),
        i.StepPlanned(StepKey("sleep", 0), StepKind.SLEEP, delay=4.0),
        closure("slow", step_timeout=4.0),
    ]
    world.find(run_id, *steps)
    world.wait(3)
    world.tell(i.StepCancelled("w1", run_id, world.invocation(run_id), [step.key for step in steps]))
    world.find(run_id, *steps)
    world.wait(2)
    assert world.run(run_id).journal == []
    world.wait(3)
    assert {step.key.id for step in world.run(run_id).journal} == {"sleep", "slow"}


def test_an_attempt_that_was_cancelled_is_not_taken_over_for_the_step_planned_anew() -> None:
    world, run_id = world_with_run(slots=1)
    (cancelled,) = started(world.find(run_id, closure("a")))
    world.tell(i.StepCancelled("w1", run_id, world.invocation(run_id), [StepKey("a", 0)]))
    world.crash()
    world.worker("w2", slots=1)
    (other,) = world.send(event_id="e2")
    world.find(other, closure("b"))
    world.find(run_id, closure("a"))
    assert world.run(run_id).steps[StepKey("a", 0)].state is StepState.READY
    in_hand = i.AttemptRef(run_id, StepKey("a", 0), cancelled.fence)
    (welcomed,) = of_type(world.worker("w1", slots=1, in_hand=[in_hand]), c.Welcomed)
    assert welcomed.unwanted == [in_hand]


def test_a_worker_is_told_to_stop_an_attempt_before_it_is_given_another_in_its_slot() -> None:
    world, run_id = world_with_run(slots=1)
    world.find(run_id, closure("a"), closure("b"))
    cancelled = i.StepCancelled("w1", run_id, world.invocation(run_id), [StepKey("a", 0)])
    commands = [each for each in world.tell(cancelled) if isinstance(each, c.CancelAttempt | c.StartAttempt)]
    assert [type(each) for each in commands] == [c.CancelAttempt, c.StartAttempt]


def test_a_worker_is_told_to_stop_a_run_before_it_is_given_another_in_its_slot() -> None:
    world, run_id = world_with_run(slots=1)
    world.find(run_id, closure("a"))
    (other,) = world.send(event_id="e2")
    world.find(other, closure("b"))
    ended = world.tell(i.RunCancelled(run_id, "enough"))
    commands = [each for each in ended if isinstance(each, c.CancelRun | c.StartAttempt)]
    assert [type(each) for each in commands] == [c.CancelRun, c.StartAttempt]


def test_a_body_that_is_tried_again_may_want_what_it_gave_up_the_time_before() -> None:
    world, run_id = world_with_run(retry=Retry(retries=3, initial_interval=0.1))
    (first,) = started(world.find(run_id, closure("a")))
    world.tell(i.StepCancelled("w1", run_id, world.invocation(run_id), [first.key]))
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), Failure("ValueError", "oh")))
    world.wait(0.2)
    (again,) = started(world.find(run_id, closure("a")))
    assert again.fence > first.fence
    assert len(of_type(world.succeed(first), c.Refused)) == 1
    world.succeed(again)
    assert world.run(run_id).journal[0].key == first.key


def test_an_attempt_that_a_failed_run_s_body_will_not_begin_is_taken_back() -> None:
    world = World()
    world.worker("w1", slots=1)
    world.worker("w2", slots=1)
    (run_id,) = world.send()
    lead = world.state.runs[run_id].lead
    assert lead is not None
    starts = of_type(world.find(run_id, closure("a"), closure("b")), c.StartAttempt)
    (there,) = [start for start in starts if start.session_id != lead.session_id]
    world.tell(i.RunFailed(lead.session_id, run_id, lead.fence, Failure("ValueError", "bad")))
    told = world.tell(i.StepCancelled(there.session_id, run_id, there.invocation, [there.key]))
    assert [command.attempt.fence for command in of_type(told, c.CancelAttempt)] == [there.fence]
    (again,) = [start for start in of_type(world.wait(60.0), c.StartAttempt) if start.key == there.key]
    assert (again.number, again.fence > there.fence) == (1, True)
