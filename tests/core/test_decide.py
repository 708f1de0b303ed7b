"""What the core decides, promise by promise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import (
    Event,
    Failure,
    FunctionOptions,
    Limits,
    Retry,
    RunState,
    StepKey,
    StepKind,
    StepState,
)
from tests.core.world import World, closure, of_type, started, world_with_run


def test_an_event_creates_one_run_for_each_function_that_it_triggers() -> None:
    world = World(
        FunctionOptions("f", ("go",)), FunctionOptions("g", ("go", "other")), FunctionOptions("h", ("other",))
    )
    run_ids = world.send()
    assert [world.run(run_id).function_id for run_id in run_ids] == ["f", "g"]


def test_the_same_event_id_creates_no_second_run() -> None:
    world = World()
    first = world.send()
    event = next(iter(world.recent.values()))
    assert world.send(known={event.key: event}) == first
    assert len(world.state.runs) == 1


def test_the_same_event_id_twice_in_one_call_creates_one_run() -> None:
    world = World()
    (run_id,) = world.send()
    event = world.recent[(), "e1"]
    commands = world.tell(i.EventsSent([event, event], "again", {}))
    receipts = of_type(commands, c.Answer)[0].value
    assert receipts[0].run_ids == receipts[1].run_ids
    assert [receipt.duplicate for receipt in receipts] == [False, True]
    assert len(world.state.runs) == 2, "the 24 h look-up is the engine's: the core was told of no earlier event"
    assert run_id in world.state.runs


def test_an_event_id_used_again_for_another_event_takes_nothing() -> None:
    world = World()
    world.send()
    known = dict(world.recent)
    changed = replace(known[(), "e1"], digest="another")
    fresh = replace(changed, id="e2")
    commands = world.tell(i.EventsSent([fresh, changed], "r", known))
    assert of_type(commands, c.Answer)[0].value == c.EventConflict(1, "e1", among=False)
    assert len(world.state.runs) == 1


def test_a_fan_out_is_spread_over_free_slots() -> None:
    world, run_id = world_with_run("w1", "w2", slots=4)
    starts = started(world.find(run_id, *[closure("s", index) for index in range(20)]))
    assert sorted(start.session_id for start in starts) == ["w1"] * 4 + ["w2"] * 4
    assert len({start.fence for start in starts}) == 8


def test_a_worker_gets_nothing_before_its_welcome() -> None:
    world, run_id = world_with_run("w1", slots=1)
    world.find(run_id, *[closure("t", index)._replace(kind=StepKind.TASK, target="t") for index in range(3)])
    commands = [command for command in world.worker("w2") if getattr(command, "session_id", "") == "w2"]
    assert [type(command) for command in commands] == [c.Welcomed, c.StartAttempt, c.StartAttempt]


def test_a_worker_never_gets_more_attempts_than_slots() -> None:
    world, run_id = world_with_run("w1", slots=3)
    starts = started(world.find(run_id, *[closure("s", index) for index in range(10)]))
    assert len(starts) == 3
    more = started(world.succeed(starts[0]))
    assert len(more) == 1
    assert len(world.state.sessions["w1"].attempts) == 3


def test_a_replica_is_invoked_once_for_a_fan_out() -> None:
    world, run_id = world_with_run("w1", "w2", slots=5)
    commands = world.find(run_id, *[closure("s", index) for index in range(10)])
    invokes = of_type(commands, c.Invoke)
    assert [(invoke.session_id, invoke.lead) for invoke in invokes] in ([("w1", False)], [("w2", False)])


def test_a_replica_is_given_the_results_before_the_steps_that_were_found_after_them() -> None:
    world, run_id = world_with_run("w1", "w2", slots=2)
    starts = started(world.find(run_id, closure("a"), closure("b"), closure("c"), closure("d")))
    for start in starts:
        world.succeed(start)
    commands = world.find(run_id, closure("e"), closure("f"), closure("g"), closure("h"))
    lead = world.state.runs[run_id].lead
    assert lead is not None
    replica = [command for command in commands if getattr(command, "session_id", "") not in ("", lead.session_id)]
    assert [type(command) for command in replica] == [c.Resume, c.StartAttempt, c.StartAttempt]


def test_results_reach_the_lead_in_the_order_of_their_recording() -> None:
    world, run_id = world_with_run()
    starts = started(world.find(run_id, closure("a"), closure("b"), closure("c")))
    reports = [i.StepRun("w1", run_id, start.key, start.fence, b"", 0, 0.0) for start in (starts[2], starts[0])]
    (resume,) = of_type(world.tell(*reports), c.Resume)
    assert [(step.key.id, step.sequence) for step in resume.entries] == [("c", 1), ("a", 2)]


def test_a_lone_step_may_run_in_the_lead_and_holds_a_slot() -> None:
    world = World()
    world.worker("w1", slots=1, eager=True)
    (run_id,) = world.send()
    lead = world.state.runs[run_id].lead
    assert lead is not None
    assert lead.eager_fence
    assert world.state.sessions["w1"].free == 0
    fence = lead.eager_fence
    planned = closure("only", eager_fence=fence)
    commands = world.tell(
        i.StepsFound("w1", run_id, lead.fence, 0, [planned], quiescent=True),
        i.StepRun("w1", run_id, StepKey("only", 0), fence, b"x", 1, 0.0),
    )
    assert of_type(commands, c.StartAttempt) == []
    assert len(of_type(commands, c.Recorded)) == 1
    (resume,) = of_type(commands, c.Resume)
    assert resume.eager_fence > fence


def test_an_unused_leave_to_run_eagerly_frees_its_slot() -> None:
    world = World()
    world.worker("w1", slots=2, eager=True)
    (run_id,) = world.send()
    starts = started(world.find(run_id, closure("a"), closure("b")))
    assert len(starts) == 2
    assert world.state.sessions["w1"].free == 0


def test_a_failed_attempt_is_retried_no_sooner_than_its_backoff_and_no_more_often_than_its_policy() -> None:
    world, run_id = world_with_run(retry=Retry(retries=2, initial_interval=8.0))
    (start,) = started(world.find(run_id, closure("a")))
    numbers = [start.number]
    for _ in range(2):
        world.fail(start)
        step = world.run(run_id).steps[StepKey("a", 0)]
        assert step.state is StepState.RETRYING
        assert step.due_at is not None
        delay = step.due_at - world.wall
        assert started(world.wait(delay * 0.9)) == []
        (start,) = started(world.wait(delay * 0.1 + 0.001))
        numbers.append(start.number)
    (resume,) = of_type(world.fail(start), c.Resume)
    assert numbers == [1, 2, 3]
    assert resume.entries[0].failure is not None
    assert started(world.wait(10_000)) == []


def test_retry_after_replaces_the_backoff() -> None:
    world, run_id = world_with_run()
    (start,) = started(world.find(run_id, closure("a")))
    world.fail(start, Failure("RetryAfterError", "", retry_after=2.0))
    assert started(world.wait(1.99)) == []
    assert len(started(world.wait(0.02))) == 1


def test_a_failure_that_is_not_retryable_is_recorded_at_once() -> None:
    world, run_id = world_with_run()
    (start,) = started(world.find(run_id, closure("a")))
    (resume,) = of_type(world.fail(start, Failure("X", "", retryable=False)), c.Resume)
    assert resume.entries[0].failure.type == "X"


def test_a_stale_report_is_refused_and_answered() -> None:
    world, run_id = world_with_run("w1", "w2", slots=1)
    (first, _) = started(world.find(run_id, closure("a"), closure("b")))
    world.tell(i.StreamLost(first.session_id, f"stream-{first.session_id}"))
    world.wait(world.limits.session_grace)
    world.worker(first.session_id)
    world.wait(2.0)
    refused = of_type(world.succeed(first), c.Refused)
    assert len(refused) == 1
    assert refused[0].current_fence > first.fence


def test_a_result_is_taken_once() -> None:
    world, run_id = world_with_run()
    (start,) = started(world.find(run_id, closure("a")))
    assert len(of_type(world.succeed(start, b"one"), c.Recorded)) == 1
    (refused,) = of_type(world.succeed(start, b"two"), c.Refused)
    assert refused.current_fence == 0
    assert world.run(run_id).journal[0].output == b"one"


def test_an_attempt_that_crossed_with_the_end_of_its_body_is_run_again_after_the_body_backoff() -> None:
    world, run_id = world_with_run("w1", slots=5)
    fence = world.invocation(run_id)
    (start,) = started(world.find(run_id, closure("a")))
    world.tell(i.RunFailed("w1", run_id, fence, Failure("ValueError", "bad")))
    returned = [i.AttemptRef(run_id, start.key, start.fence)]
    assert started(world.tell(i.Evicted("w1", run_id, fence, returned))) == []
    commands = world.wait(1.0)
    assert len(of_type(commands, c.Invoke)) == 1
    (again,) = started([*commands, *world.tell(i.Tick())])
    assert (again.key, again.number) == (start.key, 1)
    assert started(world.tell(i.Evicted("w1", run_id, fence, returned))) == []


def test_a_body_is_not_tried_again_before_its_backoff_for_the_sake_of_its_steps() -> None:
    world, run_id = world_with_run("w1", slots=1)
    first, *rest = started(world.find(run_id, closure("a"), closure("b")))
    assert rest == []
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), Failure("ValueError", "bad", retry_after=10.0)))
    assert of_type(world.succeed(first), c.Invoke) == []
    commands = world.wait(10.0)
    assert [invoke.lead for invoke in of_type(commands, c.Invoke)] == [True]
    assert [start.key.id for start in started(commands)] == ["b"]


def test_an_invoked_run_ends_its_step_with_its_output_or_failure() -> None:
    world = World(FunctionOptions("f", ("go",)), FunctionOptions("g", retry=Retry(retries=0)))
    world.worker("w1", functions=("f", "g"))
    (run_id,) = world.send()
    world.find(run_id, *[i.StepPlanned(StepKey("call", n), StepKind.INVOKE, target="app/g") for n in range(2)])
    run = world.run(run_id)
    good, bad = (run.steps[StepKey("call", n)].child_run_id for n in range(2))
    world.tell(i.RunFinished("w1", good, world.invocation(good), b"fine", 4))
    world.tell(i.RunFailed("w1", bad, world.invocation(bad), Failure("ValueError", "oh")))
    journal = world.run(run_id).journal
    assert journal[0].output == b"fine"
    assert journal[1].failure is not None
    assert journal[1].failure.type == "ValueError"


def test_invoking_an_unknown_function_fails_the_step() -> None:
    world, run_id = world_with_run()
    world.find(run_id, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="/nowhere"))
    failure = world.run(run_id).journal[0].failure
    assert failure is not None
    assert failure.type == "FunctionNotFoundError"


def test_functions_that_invoke_each_other_in_a_circle_are_stopped() -> None:
    world = World(FunctionOptions("f", ("go",)), limits=Limits(max_invoke_depth=3))
    world.worker("w1")
    world.send()
    for _ in range(4):
        run_id = max(world.state.runs, key=lambda each: world.state.runs[each].run.depth)
        world.find(run_id, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="/f"))
    failure = world.run(run_id).journal[0].failure
    assert failure is not None
    assert failure.type == "InvokeDepthError"


def test_a_body_that_raises_is_retried_by_its_functions_policy() -> None:
    world, run_id = world_with_run(retry=Retry(retries=1, initial_interval=1.0))
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), Failure("ValueError", "oh")))
    assert world.state.runs[run_id].lead is None
    (invoke,) = of_type(world.wait(1.0), c.Invoke)
    assert invoke.run.attempt == 2
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), Failure("ValueError", "oh")))
    assert world.stored[run_id].state is RunState.FAILED


def test_two_workers_that_disagree_on_a_functions_options_are_told() -> None:
    world = World()
    world.worker("w1")
    other = [FunctionOptions("f", ("go",), Retry(retries=9))]
    hello = i.Hello("w2", "i-w2", "app", "", other, (), 1, 10, stream="s2")
    (rejected,) = of_type(world.tell(hello), c.Rejected)
    assert rejected.code == "FAILED_PRECONDITION"
    assert "app/f" in rejected.message
    assert "i-w1" in rejected.message


def test_a_function_is_served_by_one_language_in_each_version() -> None:
    world = World()
    python = [FunctionOptions("f"), FunctionOptions("g")]
    world.tell(i.Hello("w1", "i-w1", "app", "1", python, (), 1, 10, sdk_name="stepwire-python", stream="s1"))
    for version, function, refused in (("1", "g", True), ("1", "h", False), ("2", "g", False)):
        hello = i.Hello(
            f"w-{version}-{function}",
            f"i-{version}-{function}",
            "app",
            version,
            [FunctionOptions(function)],
            (),
            1,
            10,
            sdk_name="stepwire-typescript",
            stream=f"s-{version}-{function}",
        )
        decision = world.tell(hello)
        assert bool(of_type(decision, c.Rejected)) is refused
        for rejected in of_type(decision, c.Rejected):
            assert rejected.code == "FAILED_PRECONDITION"
            for part in ("app/g", "stepwire-python", "stepwire-typescript", "i-w1", "another id"):
                assert part in rejected.message


def test_another_version_may_have_other_options_and_keeps_its_runs() -> None:
    world, run_id = world_with_run()
    other = [FunctionOptions("f", ("go",), Retry(retries=9))]
    world.tell(i.Hello("w2", "i-w2", "app", "v2", other, (), 10, 10, stream="s2"))
    starts = started(world.find(run_id, *[closure("s", n) for n in range(6)]))
    assert {start.session_id for start in starts} == {"w1"}
    (new_run,) = world.send(event_id="e2")
    lead = world.state.runs[new_run].lead
    assert lead is not None
    assert lead.session_id == "w2"


def test_tasks_go_to_any_worker_that_has_them_without_an_invocation() -> None:
    world, run_id = world_with_run()
    world.tell(i.Hello("go", "i-go", "app", "", (), ("hash",), 2, 1, stream="s"))
    (start,) = started(world.find(run_id, i.StepPlanned(StepKey("hash", 0), StepKind.TASK, target="hash", input=b"in")))
    assert (start.session_id, start.task, start.input, start.invocation) == ("go", "hash", b"in", 0)


def test_one_run_of_one_step_is_not_starved_by_a_great_fan_out() -> None:
    world, run_id = world_with_run(slots=2)
    running = started(world.find(run_id, *[closure("s", n) for n in range(1000)]))
    (small,) = world.send(event_id="e2")
    world.find(small, closure("only"))
    order = []
    for _ in range(4):
        (start,) = started(world.succeed(running.pop(0)))
        running.append(start)
        order.append(start.run.id)
    assert small in order[:2]


def test_too_many_steps_fail_the_run() -> None:
    world = World(limits=Limits(max_steps=3))
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, *[closure("s", n) for n in range(4)])
    failure = world.stored[run_id].failure
    assert failure is not None
    assert failure.type == "TooManyStepsError"
    assert "--max-steps=3" in failure.message


@pytest.mark.parametrize("step_id", ["", "x" * 1025])
def test_a_bad_step_id_fails_the_run(step_id: str) -> None:
    world, run_id = world_with_run()
    world.find(run_id, closure(step_id))
    failure = world.stored[run_id].failure
    assert failure is not None
    assert failure.type == "InvalidStepError"


def test_an_output_over_the_limit_fails_the_step_and_is_not_retried() -> None:
    world, run_id = world_with_run()
    (start,) = started(world.find(run_id, closure("a")))
    commands = world.succeed(start, b"x", size=(4 << 20) + 1)
    assert len(of_type(commands, c.Recorded)) == 1
    failure = world.run(run_id).journal[0].failure
    assert failure is not None
    assert failure.type == "OutputTooLargeError"
    assert "--max-output-bytes=3000000" in failure.message


def test_a_journal_over_the_limit_fails_the_run() -> None:
    world = World(limits=Limits(max_journal_bytes=10))
    world.worker("w1")
    (run_id,) = world.send()
    (start,) = started(world.find(run_id, closure("a")))
    world.succeed(start, b"0123456789abc")
    failure = world.stored[run_id].failure
    assert failure is not None
    assert failure.type == "JournalTooLargeError"


def test_the_same_key_with_another_kind_is_a_divergence() -> None:
    world, run_id = world_with_run()
    world.find(run_id, closure("a"))
    world.find(run_id, i.StepPlanned(StepKey("a", 0), StepKind.SLEEP, delay=1.0, source="f.py:9"))
    failure = world.stored[run_id].failure
    assert failure is not None
    assert failure.type == "NonDeterminismError"
    assert "f.py:1" in failure.message
    assert "f.py:9" in failure.message


def test_an_event_id_given_twice_to_different_events_takes_nothing_of_the_call() -> None:
    world = World()
    first = Event("e1", "go", b"1", world.wall, digest="one")
    for other in (replace(first, data=b"2", digest="two"), replace(first, name="more", digest="three")):
        commands = world.tell(i.EventsSent([first, replace(first, id="e2"), other], "r", {}))
        assert of_type(commands, c.Answer)[0].value == c.EventConflict(2, "e1", among=True)
    assert world.state.runs == {}
    (answer,) = of_type(world.tell(i.EventsSent([first, first], "r", {})), c.Answer)
    assert [receipt.duplicate for receipt in answer.value] == [False, True]  # type: ignore[attr-defined]
    assert len(world.state.runs) == 1


def test_a_step_that_gives_one_id_to_different_events_fails_and_sends_nothing() -> None:
    world, run_id = world_with_run()
    events = [Event("x1", "go", b"%d" % n, world.wall, digest=f"{n}") for n in range(2)]
    world.find(run_id, i.StepPlanned(StepKey("send", 0), StepKind.SEND_EVENTS, events=events, output=b"ids"))
    failure = world.run(run_id).journal[0].failure
    assert failure is not None
    assert (failure.type, failure.retryable) == ("EventConflictError", False)
    assert "'x1' is given twice" in failure.message
    assert len(world.stored) == 1


def test_a_draining_executor_hands_out_nothing_but_still_records() -> None:
    world, run_id = world_with_run(slots=1)
    (start,) = started(world.find(run_id, closure("a"), closure("b")))
    world.tell(i.ExecutorDraining())
    commands = world.succeed(start)
    assert len(of_type(commands, c.Recorded)) == 1
    assert started(commands) == []


def test_each_closed_attempt_is_observed_once() -> None:
    world, run_id = world_with_run()
    (start,) = started(world.find(run_id, closure("a")))
    world.fail(start, Failure("X", "", retry_after=1.0))
    (again,) = started(world.wait(1.0))
    world.succeed(again)
    world.succeed(again)
    closed = [each for each in world.observations if isinstance(each, c.AttemptClosed)]
    assert [(each.number, each.outcome) for each in closed] == [(1, "failed"), (2, "succeeded")]
    assert len({each.fence for each in closed}) == 2


def test_events_sent_by_a_step_start_runs_once() -> None:
    world = World(FunctionOptions("f", ("go",)), FunctionOptions("g", ("more",)))
    world.worker("w1", functions=("f", "g"))
    (run_id,) = world.send()
    events = [Event("x1", "more", b"1", world.wall), Event("x2", "more", b"2", world.wall)]
    step = i.StepPlanned(StepKey("send", 0), StepKind.SEND_EVENTS, events=events, output=b"ids")
    world.find(run_id, step)
    world.find(run_id, step)
    assert sorted(each.function_id for each in world.stored.values()) == ["f", "g", "g"]
    assert world.run(run_id).journal[0].output == b"ids"


def test_a_worker_full_of_idle_invocations_makes_room() -> None:
    world = World()
    world.worker("w1", max_invocations=2, slots=5)
    for n in range(3):
        (run_id,) = world.send(event_id=f"e{n}")
        world.find(run_id, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=2.0))
    session = world.state.sessions["w1"]
    assert len(session.invocations) == 2
    assert len(world.state.runs) == 3
