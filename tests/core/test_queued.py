"""Room for runs and turns of the steps that wait for it: apps get it evenly, whatever others have."""

from __future__ import annotations

from stepwire_core.model import Event, Limits, Run, Step, StepKey, StepKind
from stepwire_core.queued import Held, HeldSteps, Queued

LIMITS = Limits(max_queued_runs=10, max_queued_bytes=1_000)


def run_of(app: str, number: int = 0, size: int = 0) -> Run:
    return Run(f"{app}-{number}", app, "f", "", Event("e", "go", b"x" * size, 1.0), 1.0)


def held(app: str, number: int, starts: int = 1, size: int = 0) -> Held:
    step = Step(StepKey("s", number), number, StepKind.SEND_EVENTS, fence=number)
    return Held(run_of(app), step, starts, {app}, (Event(str(number), "go", b"x" * size, 1.0),))


def queue(**counts: int) -> Queued:
    queued = Queued()
    for app, count in counts.items():
        for number in range(count):
            queued.add(run_of(app, number, 10))
    return queued


def test_an_app_that_fills_the_queue_leaves_others_their_share() -> None:
    queued = queue(many=10)
    assert queued.has_too_many("many", LIMITS)
    assert not queued.has_too_many("few", LIMITS)
    assert not queued.has_too_many("few", LIMITS, 5)
    assert queued.has_too_many("few", LIMITS, 6), "half of the room is each one's"
    for number in range(5):
        queued.add(run_of("few", number))
    assert queued.has_too_many("few", LIMITS)
    assert not queued.has_too_many("third", LIMITS, 3)
    assert queued.has_too_many("third", LIMITS, 4)


def test_very_many_apps_find_twice_the_room_and_no_more() -> None:
    queued = queue(many=10)
    for number in range(50):
        app = f"app-{number}"
        while not queued.has_too_many(app, LIMITS):
            queued.add(run_of(app, queued.of(app)[0]))
    assert len(queued) == 20


def test_a_lone_call_finds_room_whatever_its_size() -> None:
    queued = queue()
    assert not queued.has_too_many("a", LIMITS, 10_000)
    assert not queued.has_too_much("a", LIMITS, 10_000)
    queued.add(run_of("a", 1, 10))
    assert queued.has_too_many("a", LIMITS, 10_000)
    assert queued.has_too_much("a", LIMITS, 10_000)


def test_bytes_are_shared_as_runs_are() -> None:
    queued = Queued()
    queued.add(run_of("many", 1, 1_000))
    assert queued.has_too_much("many", LIMITS)
    assert not queued.has_too_much("few", LIMITS, 500)
    assert queued.has_too_much("few", LIMITS, 501)
    queued.drop(run_of("many", 1).id)
    assert (queued.bytes, queued.of("many"), len(queued)) == (0, (0, 0), 0)


def granted(steps: HeldSteps, count: int) -> list[str]:
    """Grant room to so many steps; gives their apps."""
    found: list[str] = []
    for each in steps.in_turn():
        if len(found) == count:
            break
        steps.grant(each)
        steps.drop(*each.key)
        found.append(each.run.app)
    return found


def test_apps_get_room_evenly_by_the_runs_that_they_start() -> None:
    steps = HeldSteps()
    for number in range(3):
        steps.add(held("large", number, starts=100))
    for number in range(250):
        steps.add(held("small", number))
    order = granted(steps, 253)
    assert order.count("large") == 3
    places = [at for at, app in enumerate(order) if app == "large"]
    assert [order[: place + 1].count("small") // 90 for place in places] == [0, 1, 2]


def test_who_comes_late_has_no_turns_saved_up_and_who_was_served_owes_them() -> None:
    steps = HeldSteps()
    for number in range(200):
        steps.add(held("early", number))
    granted(steps, 150)
    for number in range(50):
        steps.add(held("late", number))
    assert granted(steps, 10).count("late") in (5, 6)
    steps = HeldSteps()
    steps.add(held("large", 1, starts=100))
    steps.add(held("small", 1))
    granted(steps, 1)
    granted(steps, 1)
    steps.add(held("large", 2, starts=100))
    for number in range(2, 50):
        steps.add(held("small", number))
    assert granted(steps, 40) == ["small"] * 40


def test_who_was_away_has_no_turns_saved_up() -> None:
    steps = HeldSteps()
    steps.add(held("away", 0))
    for number in range(1_100):
        steps.add(held("there", number))
    granted(steps, 1_000)  # the one of "away" among them
    assert not steps.has_waiting("away")
    for number in range(50):
        steps.add(held("away", 1 + number))
    assert granted(steps, 10).count("away") in (5, 6)


def test_a_run_that_leaves_the_memory_takes_its_steps_along() -> None:
    steps = HeldSteps()
    for number in range(3):
        steps.add(held("a", number))
    steps.add(held("b", 1))
    steps.grant(next(steps.in_turn()))
    steps.drop_run("a-0")
    assert [run_id for run_id, _ in steps.steps()] == ["b-0"]
    assert (steps.granted_runs, steps.bytes_of("a"), "a-0" in steps) == (0, 0, False)


def test_bytes_of_steps_that_wait_are_shared_as_those_of_runs_are() -> None:
    steps = HeldSteps()
    assert not steps.has_too_much(held("many", 0, size=9_000), LIMITS), "a lone step finds room whatever its size"
    steps.add(held("many", 0, size=1_000))
    assert steps.has_too_much(held("many", 1), LIMITS)
    assert not steps.has_too_much(held("few", 0, size=500), LIMITS)
    assert steps.has_too_much(held("few", 0, size=501), LIMITS)
    for app in (f"app-{number}" for number in range(50)):
        while not steps.has_too_much(each := held(app, len(steps.steps())), LIMITS):
            steps.add(each)
    assert steps.bytes == 2 * LIMITS.max_queued_bytes
    steps.drop_run("many-0")
    assert steps.bytes == LIMITS.max_queued_bytes


def test_an_app_that_gets_no_room_is_left_out() -> None:
    steps = HeldSteps()
    for app in ("a", "b"):
        for number in range(3):
            steps.add(held(app, number))
    seen = []
    for each in steps.in_turn():
        seen.append(each.run.app)
        if each.run.app == "b":
            steps.grant(each)
    assert sorted(seen) == ["a", "b", "b", "b"]
    assert steps.has_waiting("a")
    assert not steps.has_waiting("b")
    assert steps.granted_runs == 3
