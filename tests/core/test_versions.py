"""Two versions of an app at once: new runs are of the version that was started last, others stay where they began."""

from __future__ import annotations

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import StepKey, StepKind
from tests.core.world import World, closure, of_type


def led_by(world: World, run_id: str) -> str:
    lead = world.state.runs[run_id].lead
    assert lead is not None
    return lead.session_id


def two_versions() -> tuple[World, str, str]:
    """A world with a worker of each version, and a run that began under each."""
    world = World()
    world.worker("old", app_version="1")
    (first,) = world.send(event_id="first")
    world.worker("new", app_version="2")
    (second,) = world.send(event_id="second")
    return world, first, second


def test_runs_stay_with_the_version_that_began_them() -> None:
    world, first, second = two_versions()
    assert (led_by(world, first), led_by(world, second)) == ("old", "new")
    for run_id, session in ((first, "old"), (second, "new")):
        starts = of_type(world.find(run_id, closure("a"), closure("b"), closure("c")), c.StartAttempt)
        assert {start.session_id for start in starts} == {session}


def test_a_worker_of_an_older_version_that_comes_back_does_not_make_it_the_current_one() -> None:
    world, first, _ = two_versions()
    world.tell(i.StreamLost("old", "stream-old"))
    assert "waits for a worker of version '1'" in world.why_text(first)[0]
    world.worker("again", instance_id="i-old", resume_session="old", app_version="1", stream="second")
    (third,) = world.send(event_id="third")
    assert (led_by(world, first), led_by(world, third)) == ("old", "new")


def test_that_holds_after_a_restart_of_the_executor_too() -> None:
    world, first, _ = two_versions()
    world.crash()
    world.worker("new-2", instance_id="i-new", resume_session="new", app_version="2")
    assert "waits for a worker of version '1'" in world.why_text(first)[0]
    world.worker("old-2", instance_id="i-old", resume_session="old", app_version="1")
    (third,) = world.send(event_id="third")
    assert (led_by(world, first), led_by(world, third)) == ("old-2", "new-2")


def test_a_worker_that_is_started_with_an_older_version_brings_it_back() -> None:
    world, _, _ = two_versions()
    world.worker("rolled-back", app_version="1")
    (third,) = world.send(event_id="third")
    assert world.run(third).app_version == "1"


def test_another_version_goes_on_at_once_when_the_last_worker_of_the_own_one_has_drained() -> None:
    world, first, _ = two_versions()
    world.find(first, closure("a"))
    world.tell(i.Draining("old", (), done=True))
    world.tell(i.StreamLost("old", "stream-old"))
    assert led_by(world, first) == "new"


def test_a_worker_that_was_lost_in_its_drain_is_not_waited_for_since_it_takes_nothing_new() -> None:
    world, first, _ = two_versions()
    world.find(first, closure("a"), i.StepPlanned(StepKey("b", 0), StepKind.SLEEP, delay=1.0))
    world.tell(i.Draining("old"))
    world.tell(i.StreamLost("old", "stream-old"))
    world.wait(1.0)
    assert led_by(world, first) == "new"
    assert world.run(first).open[StepKey("a", 0)].session == "old"


def test_another_version_goes_on_when_the_own_one_does_not_come_back_in_time() -> None:
    world, first, _ = two_versions()
    world.find(first, closure("a"))
    world.tell(i.StreamLost("old", "stream-old"))
    assert world.state.runs[first].lead is None
    world.wait(world.limits.session_grace)
    world.wait(1.0)  # the step that was lost with it is tried again
    assert led_by(world, first) == "new"
