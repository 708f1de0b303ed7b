"""Workers that are lost, come back, or take over what others had."""

from __future__ import annotations

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import (
    RunState,
    StepKey,
    StepState,
)
from tests.core.world import World, closure, of_type, started, world_with_run


def test_a_lost_worker_counts_as_a_failed_attempt_but_a_drain_does_not() -> None:
    world, run_id = world_with_run()
    (start,) = started(world.find(run_id, closure("a")))
    world.tell(i.Draining("w1", [i.AttemptRef(run_id, start.key, start.fence)]))
    (again,) = started(world.worker("w2"))
    assert again.number == 1
    world.tell(i.StreamLost("w2", "stream-w2"))
    world.wait(world.limits.session_grace)
    step = world.run(run_id).steps[start.key]
    assert (step.state, step.attempt) == (StepState.RETRYING, 1)
    assert world.failed_attempts[0].failure.type == "WorkerLostError"


def test_a_worker_that_comes_back_in_time_keeps_its_attempts() -> None:
    world, run_id = world_with_run()
    (kept, dropped) = started(world.find(run_id, closure("a"), closure("b")))
    world.tell(i.StreamLost("w1", "stream-w1"))
    in_hand = [i.AttemptRef(run_id, kept.key, kept.fence)]
    commands = world.worker("new", instance_id="i-w1", resume_session="w1", in_hand=in_hand, stream="second")
    (welcome,) = of_type(commands, c.Welcomed)
    assert welcome.resumed
    assert welcome.unwanted == []
    assert len(of_type(world.succeed(kept), c.Recorded)) == 1
    step = world.run(run_id).steps[dropped.key]
    assert step.attempt == 1, "what never arrived is sent again and not counted"
    assert step.fence > dropped.fence


def test_attempts_of_an_earlier_life_are_taken_over_unless_newer_ones_exist() -> None:
    world, run_id = world_with_run()
    starts = started(world.find(run_id, closure("a"), closure("b")))
    world.crash()
    in_hand = [i.AttemptRef(run_id, start.key, start.fence) for start in starts[:1]]
    commands = world.worker("w9", slots=5, in_hand=in_hand)
    assert of_type(commands, c.Welcomed)[0].unwanted == []
    assert [start.key.id for start in started(commands)] == ["b"]
    report = i.StepRun("w9", run_id, starts[0].key, starts[0].fence, b"late", 4, 0.0)
    assert len(of_type(world.tell(report), c.Recorded)) == 1
    stale = world.worker("w10", in_hand=[i.AttemptRef(run_id, starts[1].key, starts[1].fence)])
    assert len(of_type(stale, c.Welcomed)[0].unwanted) == 1


def test_a_worker_of_another_app_takes_over_nothing() -> None:
    world, run_id = world_with_run()
    starts = started(world.find(run_id, closure("a")))
    world.crash()
    in_hand = [i.AttemptRef(run_id, start.key, start.fence) for start in starts]
    hello = i.Hello("thief", "i-thief", "other", "", [], (), 5, 5, in_hand=in_hand, stream="stream-thief")
    (welcomed,) = of_type(world.tell(hello), c.Welcomed)
    assert list(welcomed.unwanted) == in_hand
    assert world.run(run_id).steps[starts[0].key].state is StepState.READY


def test_a_session_and_a_name_belong_to_the_identity_that_had_them_first() -> None:
    world, _ = world_with_run("w1")
    for name, claims in (
        ("w2", {"instance_id": "i-w1", "resume_session": "w1", "identity": "other"}),
        ("w3", {"instance_id": "i-w3", "resume_session": "w1"}),
        ("w4", {"instance_id": "i-w1", "identity": "other"}),
    ):
        (rejected,) = of_type(world.worker(name, **claims), c.Rejected)
        assert (rejected.code, rejected.stream) == ("PERMISSION_DENIED", f"stream-{name}")
    assert set(world.state.sessions) == {"w1"}


def test_a_body_whose_workers_die_again_and_again_fails_at_the_cap() -> None:
    world, run_id = world_with_run()
    for n in range(2, world.limits.max_lost_invocations + 3):
        last = next(reversed(world.state.sessions))
        world.tell(i.StreamLost(last, f"stream-{last}"))
        world.worker(f"w{n}", eager=True)
        world.wait(1.0)  # from the third on it was alone, and others come in between
    assert world.stored[run_id].state is RunState.FAILED
    failure = world.stored[run_id].failure
    assert failure is not None
    assert failure.type == "WorkerLostError"


def test_after_a_lost_lead_a_lone_step_is_planned_before_it_runs() -> None:
    world = World()
    world.worker("w1", eager=True)
    (run_id,) = world.send()
    world.tell(i.StreamLost("w1", "stream-w1"))
    (invoke,) = of_type(world.worker("w2", eager=True), c.Invoke)
    assert invoke.run.id == run_id
    assert invoke.eager_fence == 0


def test_a_replica_takes_the_lead_when_the_lead_is_lost() -> None:
    world, run_id = world_with_run("w1", "w2", slots=1)
    starts = started(world.find(run_id, closure("a"), closure("b")))
    lead = world.state.runs[run_id].lead
    assert lead is not None
    survivor = next(start for start in starts if start.session_id != lead.session_id)
    world.tell(i.StreamLost(lead.session_id, f"stream-{lead.session_id}"))
    (resume,) = of_type(world.succeed(survivor), c.Resume)
    assert resume.lead
    assert resume.session_id == survivor.session_id


@pytest.mark.parametrize("loss", ["stream", "evicted", "to make room"])
def test_a_run_whose_body_waits_for_nothing_gets_a_new_lead_when_it_loses_its_own(loss: str) -> None:
    world = World()
    world.worker("w1", max_invocations=1)
    (run_id,) = world.send()
    fence = world.invocation(run_id)
    world.find(run_id)
    match loss:
        case "stream":
            world.tell(i.StreamLost("w1", "stream-w1"))
        case "evicted":
            world.tell(i.Draining("w1"))
            world.tell(i.Evicted("w1", run_id, fence))
        case "to make room":
            world.send(event_id="another")
            assert world.invocation(run_id) == fence, "a body that is about to end is not thrown out"
            return
    world.worker("w2")
    assert world.invocation(run_id, "w2") > fence


def test_a_run_whose_last_step_is_given_up_by_a_replica_gets_a_new_lead() -> None:
    world, run_id = world_with_run("w1", "w2", slots=1)
    world.find(run_id, closure("a"), closure("b"))
    lead = world.state.runs[run_id].lead
    assert lead is not None
    (replica,) = world.state.runs[run_id].replicas.values()
    world.tell(i.Draining(lead.session_id))
    assert world.state.runs[run_id].lead is None
    keys = [StepKey("a", 0), StepKey("b", 0)]
    world.tell(i.StepCancelled(replica.session_id, run_id, replica.fence, keys))
    assert world.invocation(run_id) == replica.fence
