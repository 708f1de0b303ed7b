"""What a run says it waits for, state by state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core import why
from stepwire_core.causes import Cause, CauseKind
from stepwire_core.model import Failure, FunctionOptions, Limits, Now, Retry, RunState, StepKey, StepKind, WaitSpec
from stepwire_core.quarantine import LOST
from stepwire_core.state import IDLE_SECONDS
from tests.core.world import START, World, closure, of_type

BAD = Failure("ValueError", "bad")


def one(world: World, run_id: str, kind: CauseKind) -> Cause:
    """Give the only cause, which must be of this kind."""
    (cause,) = world.why(run_id)
    assert cause.kind is kind, world.why_text(run_id)
    return cause


def text(world: World, run_id: str) -> str:
    """Give the first sentence."""
    return world.why_text(run_id)[0]


def task(step_id: str, name: str = "t", **more: Any) -> i.StepPlanned:
    return i.StepPlanned(StepKey(step_id, 0), StepKind.TASK, target=name, **more)


def starts(commands: list[c.Command]) -> list[c.StartAttempt]:
    return of_type(commands, c.StartAttempt)


# The body has no worker.


def test_a_run_that_no_worker_has_served_yet_says_since_when_the_executor_runs() -> None:
    world = World()
    world.wait(12)
    (run_id,) = world.send()
    cause = one(world, run_id, CauseKind.NO_WORKER)
    assert (cause.target, cause.since) == ("app/f", START)
    assert text(world, run_id) == (
        "the body waits for a worker: none serves function app/f; none has since the executor started 12 s ago"
    )


@pytest.mark.parametrize("goes", ["lost", "drains", "comes back without it", "is replaced"])
def test_a_run_whose_last_worker_went_away_says_when(goes: str) -> None:
    world = World(FunctionOptions("f", ("go",)), FunctionOptions("g"))
    world.worker("w1")
    world.wait(10)
    match goes:
        case "lost":
            world.tell(i.StreamLost("w1", "stream-w1"))
            world.wait(world.limits.session_grace)
        case "drains":
            world.tell(i.Draining("w1"))
        case "comes back without it":
            world.worker("w1", functions=("g",), resume_session="w1")
        case "is replaced":
            world.worker("w2", functions=("g",), instance_id="i-w1")
    world.wait(30)
    (run_id,) = world.send()
    cause = one(world, run_id, CauseKind.NO_WORKER)
    assert cause.since == START + 10
    ago = "35 s" if goes == "lost" else "30 s"
    assert text(world, run_id).endswith(f"none serves function app/f; the last one went away {ago} ago")


def test_a_function_that_another_worker_still_serves_is_no_cause() -> None:
    world = World()
    world.worker("w1", slots=1)
    world.worker("w2", slots=1)
    world.tell(i.Draining("w1"))
    (run_id,) = world.send()
    assert one(world, run_id, CauseKind.BODY_RUNNING).worker == "i-w2"


def test_a_worker_within_its_grace_is_named_with_the_end_of_the_grace() -> None:
    world = World(limits=Limits(session_grace=5))
    world.worker("w1")
    world.tell(i.StreamLost("w1", "stream-w1"))
    world.wait(2)
    (run_id,) = world.send()
    cause = one(world, run_id, CauseKind.NO_WORKER)
    (lost,) = cause.causes
    assert (lost.kind, lost.worker, lost.due_at) == (CauseKind.WORKER_LOST, "i-w1", START + 5)
    assert world.why_text(run_id)[1] == "the stream of worker i-w1 has been lost for 2.0 s; its grace ends in 3.0 s"


def test_a_draining_worker_is_named() -> None:
    world = World()
    world.worker("w1")
    world.tell(i.Draining("w1"))
    (run_id,) = world.send()
    assert [each.kind for each in one(world, run_id, CauseKind.NO_WORKER).causes] == [CauseKind.WORKER_DRAINING]


def test_a_run_that_finds_no_place_says_how_full_the_workers_are_and_whose_turn_is_before() -> None:
    world = World()
    world.worker("w1", max_invocations=2)
    for number in range(2):
        world.send(event_id=f"busy-{number}")
    world.send(event_id="before")
    (run_id,) = world.send(event_id="mine")
    cause = one(world, run_id, CauseKind.WORKERS_FULL)
    assert (cause.workers, cause.slots, cause.slots_taken, cause.runs_ahead) == (1, 2, 2, 1)
    assert text(world, run_id) == (
        "the body waits for a place: 1 worker serves it, full of live runs (2 of 2); 1 other run has its turn before"
    )


def test_a_run_waits_for_a_worker_of_its_own_version_while_there_is_one() -> None:
    world = World()
    world.worker("w1", max_invocations=1)
    world.worker("w2", app_version="v2")
    world.state.functions["app", "f"] = world.state.functions["app", "f"].__class__(
        "app", FunctionOptions("f", ("go",)), "", START
    )
    world.send(event_id="busy")
    (run_id,) = world.send(event_id="mine")
    cause = one(world, run_id, CauseKind.WORKERS_FULL)
    assert (cause.workers, cause.slots) == (1, 1)


def test_an_executor_that_stops_is_a_cause() -> None:
    world = World()
    world.worker("w1")
    world.tell(i.ExecutorDraining())
    (run_id,) = world.send()
    one(world, run_id, CauseKind.EXECUTOR_DRAINING)
    assert text(world, run_id).startswith("the body waits for the executor, which is stopping")


def test_ready_steps_wait_for_an_executor_that_stops() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.tell(i.ExecutorDraining())
    world.find(run_id, closure("a"), closure("b"))
    assert one(world, run_id, CauseKind.EXECUTOR_DRAINING).step_count == 2


# The body is at work, or is to be tried again.


def test_a_body_at_work_says_where_and_since_when() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.wait(1)
    cause = one(world, run_id, CauseKind.BODY_RUNNING)
    assert (cause.worker, cause.since) == ("i-w1", START)
    (step,) = starts(world.find(run_id, closure("a")))
    world.wait(1)
    world.succeed(step)
    world.wait(1)
    cause = one(world, run_id, CauseKind.BODY_RUNNING)
    assert cause.since == START + 2
    assert text(world, run_id) == "the body has been at work in worker i-w1 for 1.0 s"


def test_a_blocked_loop_is_named_with_its_place() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.wait(4)
    outer, inner = ('  File "/app/base.py", line 3, in run', '  File "/app/flow.py", line 7, in flow')
    stack = f"{outer}\n    go()\n{inner}\n    sleep(9)\n"
    world.tell(i.Heartbeat("w1", 4.0, stack))
    cause = one(world, run_id, CauseKind.BODY_RUNNING)
    (blocked,) = cause.causes
    assert (blocked.kind, blocked.since) == (CauseKind.WORKER_BLOCKED, START)
    assert world.why_text(run_id)[1] == (
        'the loop of worker i-w1 has been blocked for 4.0 s at File "/app/flow.py", line 7, in flow'
    )


def test_a_silent_worker_is_named() -> None:
    world = World(limits=Limits(heartbeat_interval=3))
    world.worker("w1")
    (run_id,) = world.send()
    world.wait(4)
    (silent,) = one(world, run_id, CauseKind.BODY_RUNNING).causes
    assert (silent.kind, silent.since) == (CauseKind.WORKER_SILENT, START)


def test_a_body_that_waits_for_no_step_is_about_to_end() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id)
    one(world, run_id, CauseKind.BODY_RUNNING)
    assert text(world, run_id) == "the body waits for nothing more: worker i-w1 is about to report its end"


def test_a_body_that_failed_says_when_it_is_tried_again_and_after_what() -> None:
    world = World(FunctionOptions("f", ("go",), retry=Retry(3)))
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, *[closure("s", n) for n in range(12)])  # two find no slot, and wait for the body too
    failure = Failure("KeyError", "'x'", "a stack", retry_after=18.0)
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), failure))
    retry, running = world.why(run_id)
    assert (retry.kind, retry.attempt, retry.max_attempts, retry.due_at) == (CauseKind.BODY_RETRY, 2, 4, START + 18)
    assert retry.failure == Failure("KeyError", "'x'"), "a stack does not belong into an explanation"
    assert text(world, run_id) == "the body is tried again in 18 s (attempt 2 of 4), after KeyError: 'x'"
    assert (running.kind, running.step_count) == (CauseKind.STEP_RUNNING, 10)


def test_the_runs_timeout_comes_last_and_never_alone() -> None:
    world = World(FunctionOptions("f", ("go",), run_timeout=60.0))
    (run_id,) = world.send()
    world.wait(20)
    no_worker, timeout = world.why(run_id)
    assert no_worker.kind is CauseKind.NO_WORKER
    assert (timeout.kind, timeout.due_at) == (CauseKind.RUN_TIMEOUT, START + 60)
    assert world.why_text(run_id)[-1] == "the run's timeout ends it in 40 s"


# Steps that are ready.


def test_steps_of_a_fan_out_share_one_cause_and_say_what_fills_the_slots() -> None:
    world = World()
    world.worker("w1", slots=1)
    world.worker("w2", slots=1)
    (other,) = world.send(event_id="other")
    world.find(other, closure("long", 0), closure("long", 1), closure("long", 2))
    (run_id,) = world.send(event_id="mine")
    world.wait(2)
    world.find(run_id, *[closure("chunk", n) for n in range(41, 10_000)])
    world.wait(1)
    world.tell(i.Heartbeat("w1"), i.Heartbeat("w2"))
    cause = one(world, run_id, CauseKind.NO_SLOT)
    assert (cause.step, cause.step_count, cause.runs_ahead) == (StepKey("chunk", 41), 9_959, 1)
    assert (cause.workers, cause.slots, cause.slots_taken) == (2, 2, 2)
    assert world.why_text(run_id) == [
        "step chunk:41 and 9,958 more wait for a slot: 2 workers serve it, all full (2 of 2 slots are taken); "
        "1 other run has its turn before",
        f"worker i-w1 has 1 of 1 slots taken, the longest by step long of run {other} for 3.0 s",
        f"worker i-w2 has 1 of 1 slots taken, the longest by step long:1 of run {other} for 3.0 s",
    ]


def test_a_step_that_was_lost_with_its_workers_waits_for_one_that_runs_nothing_else() -> None:
    world = World(FunctionOptions("f", ("go",), Retry(1, initial_interval=0.1)))
    world.worker("w1", slots=1)
    (run_id,) = world.send(event_id="mine")
    world.find(run_id, closure("poison"), closure("next"))
    world.worker("w2", slots=1, functions=("f",))
    world.tell(i.StreamLost("w1", "stream-w1"))
    world.wait(5.1)
    world.wait(5)
    alone, running = world.why(run_id)[:2]
    assert (alone.kind, alone.step, alone.step_count) == (CauseKind.NO_SLOT, StepKey("poison", 0), 1)
    assert alone.failure is not None
    assert alone.failure.type == "WorkerLostError"
    assert text(world, run_id) == (
        "step poison waits for a worker that runs nothing else, as its workers were lost: 1 worker serves it"
    )
    assert running.kind is CauseKind.STEP_RUNNING


def test_a_slot_that_is_kept_for_an_eager_step_counts_as_taken() -> None:
    world = World()
    world.worker("w1", slots=1, eager=True)
    (leader,) = world.send(event_id="eager")
    assert len(world.state.sessions["w1"].permitted) == 1
    (run_id,) = world.send(event_id="mine")
    world.find(run_id, closure("a"))
    cause = one(world, run_id, CauseKind.NO_SLOT)
    assert (cause.slots, cause.slots_taken) == (1, 1)
    assert cause.causes[0].step is None
    assert text(world, leader).startswith("the body, or the lone step that it may run at once, has been at work in")


def test_a_step_whose_workers_have_gone_names_the_function() -> None:
    world = World()
    world.worker("w1", slots=1)
    (run_id,) = world.send()
    world.find(run_id, closure("a"), closure("b"))
    world.tell(i.Draining("w1"))
    no_worker, running = world.why(run_id)
    assert (no_worker.kind, no_worker.step, no_worker.step_count) == (CauseKind.NO_WORKER, StepKey("b", 0), 1)
    assert running.kind is CauseKind.STEP_RUNNING
    assert [each.kind for each in running.causes] == [CauseKind.WORKER_DRAINING]


@pytest.mark.parametrize("seen", [False, True])
def test_a_task_that_no_worker_has_says_so(seen: bool) -> None:
    world = World()
    world.worker("w1")
    if seen:
        world.worker("other", functions=(), tasks=("resize",))
        world.wait(5)
        world.tell(i.Draining("other"))
        world.tell(i.StreamLost("other", "stream-other"))
    (run_id,) = world.send()
    world.find(run_id, task("picture", "resize"), task("picture-2", "t"))
    world.wait(3)
    world.tell(i.Heartbeat("w1"))
    missing, _ = world.why(run_id)
    assert (missing.kind, missing.target) == (CauseKind.NO_TASK_WORKER, "resize")
    assert missing.since == (START + 5 if seen else START)
    assert text(world, run_id) == "step picture waits for a worker: none has task 'resize'; " + (
        "the last one went away 3.0 s ago" if seen else "none has since the executor started 3.0 s ago"
    )


# Steps that run, or are to be tried again.


def test_a_running_step_says_where_for_how_long_and_when_its_timeout_strikes() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, closure("a", attempt_timeout=20.0))
    world.wait(2)
    cause = one(world, run_id, CauseKind.STEP_RUNNING)
    assert (cause.worker, cause.attempt, cause.since, cause.due_at) == ("i-w1", 1, START, START + 20)
    assert text(world, run_id) == "attempt 1 of step a has run in worker i-w1 for 2.0 s; its timeout strikes in 18 s"


def test_the_steps_own_timeout_counts_if_it_comes_first() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, closure("a", attempt_timeout=20.0, step_timeout=5.0))
    assert one(world, run_id, CauseKind.STEP_RUNNING).due_at == START + 5


def test_a_running_step_whose_worker_lost_its_stream_says_when_its_grace_ends() -> None:
    world = World(limits=Limits(session_grace=5))
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, closure("a"), closure("b"))
    world.tell(i.StreamLost("w1", "stream-w1"))
    world.wait(2)
    cause = one(world, run_id, CauseKind.STEP_RUNNING)
    assert cause.step_count == 2
    assert world.why_text(run_id) == [
        "step a and 1 more run in worker i-w1, the longest for 2.0 s",
        "the stream of worker i-w1 has been lost for 2.0 s; its grace ends in 3.0 s",
    ]


def test_running_steps_are_grouped_by_worker() -> None:
    world = World()
    for name in ("w1", "w2"):
        world.worker(name, slots=3)
    (run_id,) = world.send()
    world.find(run_id, *[closure("s", n) for n in range(6)])
    assert [(each.kind, each.step_count) for each in world.why(run_id)] == [(CauseKind.STEP_RUNNING, 3)] * 2


def test_a_retry_says_when_it_is_due_and_after_what() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    (a,) = starts(world.find(run_id, closure("a", retry=Retry(4))))
    world.fail(a, Failure("ValueError", "bad\nthing", retry_after=18.0))
    cause = one(world, run_id, CauseKind.STEP_RETRY)
    assert (cause.attempt, cause.max_attempts, cause.due_at) == (2, 5, START + 18)
    assert text(world, run_id) == "the retry of step a is due in 18 s (attempt 2 of 5), after ValueError: bad thing"


def test_retries_after_the_same_failure_share_a_cause_that_names_the_next() -> None:
    world = World()
    world.worker("w1", slots=40)
    (run_id,) = world.send()
    begun = starts(world.find(run_id, *[closure("s", n) for n in range(40)]))
    for number, start in enumerate(begun):
        world.fail(start, Failure("ValueError", "bad", retry_after=60.0 - number))
    cause = one(world, run_id, CauseKind.STEP_RETRY)
    assert (cause.step, cause.step_count, cause.due_at) == (begun[-1].key, 40, START + 21)
    assert text(world, run_id) == (
        f"step {begun[-1].key} and 39 more wait for their retries, the next in 21 s (attempt 2 of 5), "
        "after ValueError: bad"
    )


# Steps that wait; their runs leave the memory.


@pytest.mark.parametrize("seconds", [5.0, 3600.0], ids=["in memory", "asleep"])
def test_a_sleep_says_when_it_ends(seconds: float) -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=seconds))
    assert one(world, run_id, CauseKind.SLEEP).due_at == START + seconds
    world.wait(IDLE_SECONDS if seconds > IDLE_SECONDS else 0.0)
    assert (run_id in world.state.runs) == (seconds < 10)
    cause = one(world, run_id, CauseKind.SLEEP)
    assert (cause.step, cause.due_at) == (StepKey("nap", 0), START + seconds)
    assert text(world, run_id) == f"step nap sleeps; its end is due in {'5.0 s' if seconds < 10 else '59 m 50 s'}"


def test_a_wait_for_an_event_names_it_with_its_match_and_its_end() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    spec = WaitSpec('["order.id","paid"]', "[17,true]")
    wait = i.StepPlanned(StepKey("paid", 0), StepKind.WAIT_FOR_EVENT, "shop/paid", wait=spec, delay=86400.0)
    (look_up,) = of_type(world.find(run_id, wait), c.FindEvents)
    world.tell(i.EventsLookedUp(run_id, "shop/paid", look_up.number, [], 0, more=False))
    assert one(world, run_id, CauseKind.EVENT).detail == '{"order.id": 17, "paid": true}'
    world.wait(IDLE_SECONDS)
    assert run_id not in world.state.runs
    cause = one(world, run_id, CauseKind.EVENT)
    assert (cause.target, cause.detail) == ("shop/paid", '{"order.id": 17, "paid": true}')
    assert text(world, run_id) == (
        'step paid waits for an event \'shop/paid\' with {"order.id": 17, "paid": true}, at most 23 h 59 m more'
    )


def test_waits_for_events_of_one_name_share_a_cause() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    waits = [
        i.StepPlanned(
            StepKey("w", n), StepKind.WAIT_FOR_EVENT, "paid", wait=WaitSpec('["id"]', f"[{n}]"), delay=100.0 - n
        )
        for n in range(3)
    ]
    world.find(run_id, *waits)
    cause = one(world, run_id, CauseKind.EVENT)
    assert (cause.step, cause.step_count, cause.detail) == (StepKey("w", 2), 3, "")


def test_an_invoke_names_the_run() -> None:
    world = World(FunctionOptions("f", ("go",)), FunctionOptions("g"))
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="app/g"))
    cause = one(world, run_id, CauseKind.CHILD_RUN)
    child = world.run(run_id).steps[StepKey("call", 0)].child_run_id
    assert (cause.run_id, cause.target) == (child, "app/g")
    assert text(world, run_id) == f"step call waits for run {child} of app/g"
    one(world, child, CauseKind.NO_WORKER)


def test_a_fan_out_of_invokes_names_some_runs_and_counts_the_rest() -> None:
    world = World(FunctionOptions("f", ("go",)), FunctionOptions("g"))
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, *[i.StepPlanned(StepKey("call", n), StepKind.INVOKE, target="app/g") for n in range(12)])
    causes = world.why(run_id)
    assert [each.step_count for each in causes] == [1] * why.MOST_NAMED + [12 - why.MOST_NAMED]
    assert causes[-1].run_id == ""


def test_times_are_by_the_time_of_day_even_after_somebody_set_it() -> None:
    world = World(FunctionOptions("f", ("go",), run_timeout=600.0))
    world.worker("w1")
    (run_id,) = world.send()
    nap = i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=7_200.0)
    paid = i.StepPlanned(StepKey("paid", 0), StepKind.WAIT_FOR_EVENT, "paid", wait=WaitSpec(), delay=60.0)
    (a,) = starts(world.find(run_id, closure("a"), nap, paid))
    world.fail(a, Failure("ValueError", "bad", retry_after=5.0))
    an_hour_later = Now(START + 3600, world.mono, 3600.0)
    causes = {cause.kind: cause for cause in why.explain(world.state, world.run(run_id), an_hour_later)}
    assert {kind: cause.due_at and cause.due_at - START for kind, cause in causes.items()} == {
        CauseKind.STEP_RETRY: 3605,
        CauseKind.EVENT: 3660,
        CauseKind.SLEEP: 7200,
        CauseKind.RUN_TIMEOUT: 4200,
    }


# A run that is not in memory, or has ended.


def test_a_run_that_is_due_but_not_in_memory_yet_says_so() -> None:
    world = World()
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=60.0))
    world.wait(IDLE_SECONDS)
    run = world.run(run_id)
    (cause,) = why.explain(world.state, run, Now(START + 60, 0.0))
    assert cause.kind is CauseKind.LOADING


@pytest.mark.parametrize("how", list(RunState)[2:])
def test_an_ended_run_says_how_it_ended(how: RunState) -> None:
    world = World(FunctionOptions("f", ("go",), run_timeout=60.0))
    world.worker("w1")
    (run_id,) = world.send()
    match how:
        case RunState.SUCCEEDED:
            world.tell(i.RunFinished("w1", run_id, world.invocation(run_id), b"out", 3))
        case RunState.FAILED:
            failure = Failure("NonRetriableError", "no", retryable=False)
            world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), failure))
        case _:
            world.tell(i.RunCancelled(run_id, "not wanted"))
    world.wait(60)
    cause = one(world, run_id, CauseKind.ENDED)
    assert cause.since == START
    assert (
        text(world, run_id)
        == f"run {run_id} "
        + {
            RunState.SUCCEEDED: "has succeeded 1 m 00 s ago",
            RunState.FAILED: "has failed 1 m 00 s ago: NonRetriableError: no",
            RunState.CANCELLED: "was cancelled 1 m 00 s ago: not wanted",
        }[how]
    )


# Nothing is left without an explanation. (`World` asks every run after every decision of every test of the core.)


KINDS = st.sampled_from(["worker", "lose", "drain", "send", "find", "succeed", "fail", "body fails", "cancel", "wait"])
MOVES = st.lists(st.tuples(KINDS, st.integers(0, 7)), max_size=40)


TWO_SUSPECTS = [("worker", 0), ("send", 0), ("send", 0), ("worker", 0), ("worker", 0)]


@settings(max_examples=150, deadline=None)
@given(MOVES)
@example(TWO_SUSPECTS)
def test_whatever_happens_every_unfinished_run_has_a_cause(moves: list[tuple[str, int]]) -> None:
    world = World(FunctionOptions("f", ("go",), retry=Retry(2)), FunctionOptions("g"), limits=Limits(max_sleep=1e6))
    for number, (move, draw) in enumerate(moves):
        play(world, move, draw, number)
    suspects = 0  # each wants a worker for itself, and all together get half of the workers
    for run in world.stored.values():
        suspects += bool(run.lost_invocations)
        suspects += sum(step.failure is not None and step.failure.type == LOST for step in run.open.values())
    for number in range(1 + 2 * suspects):
        world.worker(f"healthy{number}", slots=1_000, functions=("f", "g"), max_invocations=1_000)
    world.wait(3600.0)
    kinds = {cause.kind for run_id in world.stored for cause in world.why(run_id)}
    assert not kinds & {CauseKind.NO_WORKER, CauseKind.WORKERS_FULL, CauseKind.NO_SLOT}, "nothing was overlooked"


def play(world: World, move: str, draw: int, number: int) -> None:
    """Make one move of a peer or a client, if it is possible now. `World.tell` asks for explanations."""
    state = world.state
    sessions = [each for each in state.sessions.values() if each.stream is not None]
    led = [loaded for loaded in state.runs.values() if loaded.lead is not None]
    running = [
        (session, fence, run_id, key) for session in sessions for fence, (run_id, key) in session.attempts.items()
    ]
    match move:
        case "worker":
            names = ("f",) if draw % 2 else ("f", "g")
            world.worker(f"w{draw % 3}", slots=1 + draw % 3, functions=names, max_invocations=2, eager=draw > 5)
        case "lose" if sessions:
            session = sessions[draw % len(sessions)]
            world.tell(i.StreamLost(session.id, session.stream))
        case "drain" if sessions:
            world.tell(i.Draining(sessions[draw % len(sessions)].id))
        case "send":
            world.send(event_id=f"e{number}")
        case "find" if led:
            loaded = led[draw % len(led)]
            world.find(loaded.run.id, *some_steps(draw, number))
        case "succeed" if running:
            session, fence, run_id, key = running[draw % len(running)]
            world.tell(i.StepRun(session.id, run_id, key, fence, b"out", 3, 0.0))
        case "fail" if running:
            session, fence, run_id, key = running[draw % len(running)]
            world.tell(i.StepFailed(session.id, run_id, key, fence, BAD, 0.0))
        case "body fails" if led:
            lead = led[draw % len(led)].lead
            assert lead is not None
            world.tell(i.RunFailed(lead.session_id, lead.run_id, lead.fence, BAD))
        case "cancel" if state.runs:
            world.tell(i.RunCancelled(list(state.runs)[draw % len(state.runs)], ""))
        case "wait":
            world.wait((0.1, 1.0, 5.0, 3600.0)[draw % 4])


def some_steps(draw: int, number: int) -> list[i.StepPlanned]:
    """Give steps of a kind that `draw` chooses, with new keys."""
    key = StepKey(f"s{number}", 0)
    steps = [
        [],
        [closure(f"s{number}", index) for index in range(4)],
        [task(f"s{number}")],
        [task(f"s{number}", "unknown")],
        [i.StepPlanned(key, StepKind.SLEEP, delay=3.0)],
        [i.StepPlanned(key, StepKind.SLEEP, delay=1800.0), closure("beside", number)],
        [i.StepPlanned(key, StepKind.WAIT_FOR_EVENT, "go", wait=WaitSpec(), delay=600.0)],
        [i.StepPlanned(key, StepKind.INVOKE, target="app/g")],
    ]
    return steps[draw]
