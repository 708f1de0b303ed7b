"""Lone steps that a lead began before their plans came: each goes on, or counts; none begins twice for free."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure, FunctionOptions, Retry, StepKey, StepKind, StepState
from tests.core.world import World, closure, of_type

A = StepKey("a", 0)


def started(commands: list[c.Command]) -> list[c.StartAttempt]:
    return of_type(commands, c.StartAttempt)


class Begun(World):
    """A world whose worker w1 has begun the lone step `a` of its run; its stream is lost, and with it the plan."""

    def __init__(self, retries: int = 4, slots: int = 1) -> None:
        super().__init__(FunctionOptions("f", ("go",), Retry(retries)))
        self.worker("w1", slots=slots, eager=True)
        (self.run_id,) = self.send()
        lead = self.state.runs[self.run_id].lead
        assert lead is not None
        self.fence, self.first = lead.eager_fence, lead.fence
        assert self.fence
        self.attempt = i.AttemptRef(self.run_id, A, self.fence)
        self.plan = i.StepsFound("w1", self.run_id, self.first, 0, [closure("a", eager_fence=self.fence)], True)

    def lose_stream(self) -> None:
        self.tell(i.StreamLost("w1", "stream-w1"))

    def come_back(
        self, *in_hand: i.AttemptRef, plans: tuple[i.StepsFound, ...] = (), slots: int = 1
    ) -> list[c.Command]:
        return self.worker(
            "n",
            slots,
            instance_id="i-w1",
            resume_session="w1",
            in_hand=in_hand,
            eager_plans=plans,
            stream="second",
            eager=True,
        )

    def report(self, session: str = "w1") -> list[c.Command]:
        return self.tell(i.StepRun(session, self.run_id, A, self.fence, b"out", 3, 0.0))


@pytest.mark.parametrize("retries", [0, 4])
@pytest.mark.parametrize("planned", ["within the grace", "after the grace"])
def test_a_lone_step_that_may_have_begun_counts_when_its_worker_is_lost(retries: int, planned: str) -> None:
    world = Begun(retries)
    world.lose_stream()
    if planned == "after the grace":
        world.wait(world.limits.session_grace)
    world.worker("w2", eager=True)
    assert started(world.find(world.run_id, closure("a"))) == []
    if planned == "within the grace":
        world.wait(world.limits.session_grace)
    step = world.run(world.run_id).steps[A]
    assert (step.state, step.attempt) == (StepState.RETRYING if retries else StepState.FAILED, 1)
    assert step.failure is not None
    assert step.failure.type == "WorkerLostError"
    assert [row.worker for row in world.failed_attempts] == ["i-w1"]
    if retries:
        assert [start.number for start in started(world.wait(1.0))] == [2]


@pytest.mark.parametrize("planned_meanwhile", [True, False])
def test_a_worker_that_is_back_in_time_goes_on_with_its_lone_step(planned_meanwhile: bool) -> None:
    world = Begun()
    world.lose_stream()
    if planned_meanwhile:
        world.worker("w2", eager=True)
        world.find(world.run_id, closure("a"))
    back = world.come_back(world.attempt, plans=(world.plan,))
    (welcome,) = of_type(back, c.Welcomed)
    assert (welcome.resumed, list(welcome.unwanted)) == (True, [])
    assert started(back) == []
    step = world.run(world.run_id).steps[A]
    assert (step.state, step.attempt, step.fence) == (StepState.RUNNING, 1, world.fence)
    assert len(of_type(world.report(), c.Recorded)) == 1
    assert world.run(world.run_id).journal[0].output == b"out"
    assert world.failed_attempts == []


def test_its_next_lead_may_still_find_the_lone_step_that_came_back_with_its_plan() -> None:
    world = Begun()
    world.lose_stream()
    world.worker("w2", eager=True)
    world.come_back(world.attempt, plans=(world.plan,))
    assert started(world.find(world.run_id, closure("a"))) == []
    assert len(of_type(world.report(), c.Recorded)) == 1


def test_the_lone_step_of_a_stream_that_was_replaced_before_its_end_was_seen_goes_on() -> None:
    world = Begun()
    (welcome,) = of_type(world.come_back(world.attempt, plans=(world.plan,)), c.Welcomed)
    assert list(welcome.unwanted) == []
    assert len(of_type(world.report(), c.Recorded)) == 1


def test_a_worker_that_is_back_without_the_step_has_not_begun_it() -> None:
    world = Begun(retries=0)
    world.lose_stream()
    world.come_back()
    (start,) = started(world.find(world.run_id, closure("a")))
    assert (start.number, world.failed_attempts) == (1, [])


def test_a_worker_that_is_back_without_the_step_gives_back_what_was_planned_meanwhile() -> None:
    world = Begun(retries=0)
    world.lose_stream()
    world.worker("w2", eager=True)
    assert started(world.find(world.run_id, closure("a"))) == []
    (start,) = started(world.come_back())
    assert (start.number, world.failed_attempts) == (1, [])


def test_an_attempt_that_comes_back_without_its_plan_is_unwanted_and_counts() -> None:
    world = Begun(retries=0)
    world.lose_stream()
    assert list(of_type(world.come_back(world.attempt), c.Welcomed)[0].unwanted) == [world.attempt]
    assert started(world.find(world.run_id, closure("a"))) == []
    assert world.run(world.run_id).steps[A].state is StepState.FAILED


@pytest.mark.parametrize(
    "found",
    [
        [closure("a"), closure("b")],
        [i.StepPlanned(A, StepKind.SLEEP, delay=60.0)],
        [],
    ],
    ids=["two-steps", "a-sleep", "nothing"],
)
def test_a_body_that_finds_no_lone_closure_there_can_not_have_begun_one(found: list[i.StepPlanned]) -> None:
    world = Begun(retries=0)
    world.lose_stream()
    world.worker("w2", eager=True)
    starts = started(world.find(world.run_id, *found))
    assert [start.number for start in starts] == [1] * sum(step.kind is StepKind.CLOSURE for step in found)
    world.wait(world.limits.session_grace)
    assert world.failed_attempts == []


def test_a_body_that_raises_first_still_owes_the_lone_step_that_may_have_begun() -> None:
    world = Begun(retries=2)
    world.lose_stream()
    world.worker("w2", eager=True)
    world.tell(i.RunFailed("w2", world.run_id, world.invocation(world.run_id), Failure("ValueError", "bad")))
    world.wait(world.limits.session_grace)
    assert started(world.find(world.run_id, closure("a"))) == []
    assert [row.failure.type for row in world.failed_attempts] == ["WorkerLostError"]


def test_a_drain_leaves_no_lone_step_in_doubt() -> None:
    """A worker tells the plan of what it has begun before it says Draining."""
    world = Begun(retries=0)
    world.tell(i.Draining("w1", done=True))
    world.lose_stream()
    world.worker("w2", eager=True)
    (start,) = started(world.find(world.run_id, closure("a")))
    assert (start.number, world.failed_attempts) == (1, [])


def test_no_other_lone_step_runs_unasked_while_one_is_in_doubt() -> None:
    world = Begun()
    world.lose_stream()
    (invoke,) = of_type(world.worker("w2", eager=True), c.Invoke)
    assert invoke.eager_fence == 0


def test_a_lone_step_outlives_its_executor_with_the_plan_that_its_worker_brings() -> None:
    world = Begun()
    world.crash()
    back = world.come_back(world.attempt, plans=(world.plan,))
    assert list(of_type(back, c.Welcomed)[0].unwanted) == []
    assert world.run(world.run_id).steps[A].fence == world.fence
    assert len(of_type(world.report("n"), c.Recorded)) == 1


def test_a_lone_step_of_an_earlier_life_is_not_taken_over_once_its_step_was_planned() -> None:
    world = Begun()
    world.crash()
    world.worker("w2", eager=True)
    world.find(world.run_id, closure("a"))
    back = world.come_back(world.attempt, plans=(world.plan,))
    assert list(of_type(back, c.Welcomed)[0].unwanted) == [world.attempt]


@pytest.mark.parametrize("told_first", [True, False])
def test_what_a_lead_has_begun_of_a_step_that_another_worker_brings_is_stopped(told_first: bool) -> None:
    """The executor's next life gives a new lead a leave, and then gets the plan from the worker of the old one."""
    world = Begun()
    world.crash()
    (invoke,) = of_type(world.worker("w2", slots=1, eager=True), c.Invoke)
    assert invoke.eager_fence  # which the new lead uses for `a`, though it has not told so yet
    world.come_back(world.attempt, plans=(world.plan,))
    found = i.StepsFound("w2", world.run_id, invoke.invocation, 0, [closure("a", eager_fence=invoke.eager_fence)], True)
    if told_first:
        cancels = of_type(world.tell(found), c.CancelAttempt)
    (resume,) = of_type(world.report("n"), c.Resume)
    if not told_first:
        assert resume.eager_fence == 0
        cancels = of_type(world.tell(found), c.CancelAttempt)
    assert [cancel.attempt for cancel in cancels] == [i.AttemptRef(world.run_id, A, invoke.eager_fence)]
    assert len(world.state.sessions["w2"].permitted) == (resume.eager_fence != 0)
    assert resume.eager_fence != invoke.eager_fence
    assert world.run(world.run_id).journal[0].output == b"out"
    found = i.StepsFound("w2", world.run_id, invoke.invocation, 1, [closure("b"), closure("c")], True)
    assert sorted(start.session_id for start in started(world.tell(found))) == ["n", "w2"]


@pytest.mark.parametrize("wrong", ["fence", "sequence", "run", "kind", "not in hand"])
def test_a_plan_that_was_not_permitted_is_not_taken(wrong: str) -> None:
    world = Begun(slots=5)
    world.lose_stream()
    attempt, plan = world.attempt, world.plan
    match wrong:
        case "fence":
            attempt = attempt._replace(fence=world.fence + 1)
            plan = replace(plan, steps=[closure("a", eager_fence=world.fence + 1)])
        case "sequence":
            plan = replace(plan, sequence=1)
        case "run":
            plan = replace(plan, run_id="another")
        case "kind":
            plan = replace(plan, steps=[i.StepPlanned(A, StepKind.TASK, "t", eager_fence=world.fence)])
        case "not in hand":
            attempt = attempt._replace(fence=world.fence + 2)
    back = world.come_back(attempt, plans=(plan,), slots=5)
    assert list(of_type(back, c.Welcomed)[0].unwanted) == [attempt]
    assert A not in world.run(world.run_id).steps
    session = world.state.sessions["w1"]
    lead = world.state.runs[world.run_id].lead
    assert len(session.permitted) == (lead is not None and lead.eager_fence != 0)


def test_a_plan_that_is_no_good_fails_its_run_and_keeps_no_slot() -> None:
    world = Begun()
    world.lose_stream()
    world.plan = replace(world.plan, steps=[closure("", eager_fence=world.fence)])
    attempt = i.AttemptRef(world.run_id, StepKey("", 0), world.fence)
    assert list(of_type(world.come_back(attempt, plans=(world.plan,)), c.Welcomed)[0].unwanted) == [attempt]
    assert len(world.state.sessions["w1"].permitted) == 0
    failure = world.stored[world.run_id].failure
    assert failure is not None
    assert failure.type == "InvalidStepError"
