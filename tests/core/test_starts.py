"""Steps that start runs: those for which there is no room wait, and go on as soon as there is."""

from __future__ import annotations

from typing import Any

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core import starts
from stepwire_core.causes import CauseKind
from stepwire_core.decide import pieces
from stepwire_core.model import (
    Event,
    Failure,
    Function,
    FunctionOptions,
    Limits,
    Now,
    RunState,
    Step,
    StepKey,
    StepKind,
    StepState,
)
from stepwire_core.state import State
from tests.core import world as worlds
from tests.core.world import START, World, closure, started

SEND, CALL = StepKey("send", 0), StepKey("call", 0)


class Crowd(World):
    """A core with a parent's function f and a child's g, that notes how many runs each decision begins."""

    def __init__(self, limit: int = 3, served: tuple[str, ...] = ("f",), **worker: Any) -> None:
        super().__init__(
            FunctionOptions("f", ("go",)), FunctionOptions("g", ("child",)), limits=Limits(max_queued_runs=limit)
        )
        self.begun: list[int] = []
        self.worker("w1", functions=served, **worker)

    def _note_writes(self, writes: c.Writes) -> None:
        self.begun.append(len(writes.new_runs))
        super()._note_writes(writes)

    def children(self) -> list[str]:
        """Give the runs of g."""
        return [run.id for run in self.stored.values() if run.function_id == "g"]

    def fill(self, count: int = 3) -> None:
        """Have so many runs of g wait for a worker."""
        for number in range(count):
            self.send("child", f"fill-{number}")
        assert len(self.state.queued) == count

    def step(self, run_id: str, key: StepKey = SEND) -> Step:
        """Give a step as it is in memory or stored."""
        return self.run(run_id).steps[key]


def sending(*names: str, key: StepKey = SEND, prefix: str = "s") -> i.StepPlanned:
    events = [Event(f"{prefix}-{at}", name, b"data", START, digest=name) for at, name in enumerate(names)]
    return i.StepPlanned(key, StepKind.SEND_EVENTS, events=events, output=b"ids")


def calling(index: int = 0) -> i.StepPlanned:
    return i.StepPlanned(StepKey("call", index), StepKind.INVOKE, target="/g")


def test_a_send_without_room_for_its_runs_waits_until_workers_have_taken_others() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    world.find(run_id, sending("child", "child"))
    assert world.step(run_id).state is StepState.WAITING
    assert len(world.children()) == 3
    world.worker("w2", functions=("g",))
    assert world.step(run_id).state is StepState.SUCCEEDED
    assert world.step(run_id).output == b"ids"
    assert len(world.children()) == 5


def test_an_invoke_without_room_waits_until_workers_have_taken_others() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    world.find(run_id, calling(), calling(1))
    assert [world.step(run_id, StepKey("call", n)).child_run_id for n in (0, 1)] == ["", ""]
    world.worker("w2", functions=("g",))
    for number in (0, 1):
        child = world.step(run_id, StepKey("call", number)).child_run_id
        assert world.run(child).state is RunState.RUNNING
        assert world.stored[run_id].steps[StepKey("call", number)].child_run_id == child, "it is written"
        lead = world.state.runs[child].lead
        assert lead is not None
        world.tell(i.RunFinished("w2", child, lead.fence, b"out", 3))
        assert world.step(run_id, StepKey("call", number)).output == b"out"


def test_what_starts_nothing_is_sent_at_once_though_others_wait() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    world.find(run_id, sending("child"), sending("other", key=StepKey("more", 0), prefix="o"))
    assert world.step(run_id).state is StepState.WAITING
    assert world.step(run_id, StepKey("more", 0)).state is StepState.SUCCEEDED


def test_events_that_were_taken_before_need_no_room() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    lead = world.state.runs[run_id].lead
    assert lead is not None
    new = sending("child")
    known = {event.key: event for event in new.events}
    world.tell(i.StepsFound("w1", run_id, lead.fence, 0, [new], True, known))
    assert world.step(run_id).state is StepState.SUCCEEDED
    assert len(world.children()) == 3


def test_a_decision_begins_so_many_runs_and_the_others_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "MOST_NEW_RUNS", 10)
    world = Crowd(limit=1_000)
    (run_id,) = world.send()
    world.begun.clear()
    world.find(run_id, *[calling(n) for n in range(55)])
    assert [count for count in world.begun if count] == [10, 10, 10, 10, 10, 5]
    world.begun.clear()
    steps = [sending(*["child"] * 4, key=StepKey("send", n), prefix=f"s{n}") for n in range(8)]
    world.find(run_id, *steps)
    assert max(world.begun) <= 10 + 4
    assert sum(world.begun) == 32
    assert not world.state.held.steps()


def test_a_step_whose_events_start_too_many_runs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "MOST_RUNS", 5)
    world = Crowd(limit=1_000)
    (run_id,) = world.send()
    world.find(run_id, sending(*["child"] * 6), sending(*["child"] * 5, key=StepKey("more", 0), prefix="m"))
    failure = world.step(run_id).failure
    assert failure is not None
    assert (failure.type, failure.retryable) == ("TooManyRunsError", False)
    assert "start 6 runs" in failure.message
    assert "at most 5" in failure.message
    assert world.step(run_id, StepKey("more", 0)).state is StepState.SUCCEEDED


def test_an_app_holds_so_many_bytes_of_events_that_wait() -> None:
    world = Crowd()
    object.__setattr__(world.limits, "max_queued_bytes", 250)
    world.fill(3)
    (run_id,) = world.send()
    steps = [sending("child", key=StepKey("send", n), prefix=f"s{n}") for n in range(3)]
    world.find(run_id, *steps)
    assert [world.step(run_id, StepKey("send", n)).state for n in range(2)] == [StepState.WAITING] * 2
    failure = world.step(run_id, StepKey("send", 2)).failure
    assert failure is not None
    assert failure.type == "TooManyEventsError"
    assert "--max-queued-bytes=250" in failure.message


def test_apps_have_their_share_of_the_bytes_of_events_that_wait_and_no_more_together() -> None:
    world = Crowd()
    object.__setattr__(world.limits, "max_queued_bytes", 400)
    world.fill(3)
    (run_id,) = world.send()
    options = FunctionOptions("h", ("off",))
    world.state.register(Function("other", options, "", START))
    hello = i.Hello("w2", "i-w2", "other", "", [options], (), 10, 100, eager=False, stream="stream-w2")
    world.tell(hello)
    (other,) = world.send("off", "e2")

    def send(run: str, *numbers: int) -> list[StepState]:
        world.find(run, *[sending("child", key=StepKey("send", n), prefix=f"{run}-{n}") for n in numbers])
        return [world.step(run, StepKey("send", n)).state for n in numbers]

    assert send(run_id, 0, 1, 2, 3) == [StepState.WAITING] * 4
    assert send(other, 0, 1, 2) == [StepState.WAITING, StepState.WAITING, StepState.FAILED], "half of it is its share"
    failure = world.step(other, StepKey("send", 2)).failure
    assert failure is not None
    assert "600 bytes of events of steps, 200 of them of app other" in failure.message
    for waiting in (run_id, other):
        assert CauseKind.NO_ROOM in [cause.kind for cause in world.why(waiting)]


@pytest.mark.parametrize("how", ["cancelled", "run", "timeout"])
def test_what_waits_and_is_given_up_is_never_sent(how: str) -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    lead = world.invocation(run_id)
    world.find(run_id, sending("child")._replace(step_timeout=5.0), calling()._replace(step_timeout=5.0), closure("c"))
    match how:
        case "cancelled":
            world.tell(i.StepCancelled("w1", run_id, lead, [SEND, CALL]))
        case "run":
            world.tell(i.RunCancelled(run_id, "enough"))
        case _:
            world.wait(6.0)
            failure = world.step(run_id).failure
            assert failure is not None
            assert failure.type == "StepTimeoutError"
    assert not world.state.held.steps()
    world.worker("w2", functions=("g",))
    assert len(world.children()) == 3


def test_what_is_given_up_after_it_was_granted_room_is_not_sent() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    world.find(run_id, sending("child"))
    held = world.state.held.get(run_id, SEND)
    assert held is not None
    due = i.SendDue(run_id, SEND, held.step.fence, held.events)
    world.state.held.grant(held)
    world.tell(i.StepCancelled("w1", run_id, world.invocation(run_id), [SEND]))
    world.tell(due)
    world.find(run_id, sending("child"))
    world.tell(due)
    assert world.step(run_id).state is StepState.WAITING, "it is planned anew, and waits again"
    assert len(world.children()) == 3


def test_who_waits_for_room_stays_in_memory_and_goes_on_after_its_worker_is_lost() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    world.find(run_id, sending("child"))
    world.wait(60.0)
    assert run_id in world.state.runs
    world.tell(i.StreamLost("w1", "stream-w1"))
    world.wait(60.0)
    assert world.step(run_id).state is StepState.WAITING
    world.worker("w2", functions=("f", "g"))
    assert world.step(run_id).state is StepState.SUCCEEDED
    assert len(world.children()) == 4


def test_begun_runs_whose_workers_have_gone_wait_for_room_as_new_ones_do() -> None:
    world = Crowd(limit=100, served=("f", "g"), max_invocations=100)
    asleep, ready, told, tried = (world.send(event_id=name)[0] for name in ("asleep", "ready", "told", "tried"))
    world.find(asleep, i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=3_600.0))
    world.find(ready, closure("a"))
    (start,) = started(world.find(told, closure("b")))
    world.succeed(start)
    world.tell(i.RunFailed("w1", tried, world.invocation(tried), Failure("ValueError", "again")))
    assert [run_id for run_id in (asleep, ready, told, tried) if run_id in world.state.queued] == [tried]
    world.tell(i.StreamLost("w1", world.state.sessions["w1"].stream))
    world.wait(world.state.limits.session_grace)
    world.wait(10.0)  # the backoffs
    waiting = [run_id for run_id in (asleep, ready, told, tried) if run_id in world.state.queued]
    assert waiting == [ready, told, tried], "one that sleeps waits for no worker"
    assert world.state.queued.bytes == sum(world.run(each).journal_bytes + len(b"data") for each in waiting) > 12
    world.worker("w2", functions=("f", "g"), max_invocations=100)
    world.wait(60.0)
    assert len(world.state.queued) == 0


def test_after_a_restart_an_invoke_goes_on_and_a_send_is_planned_again_by_its_body() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    world.find(run_id, sending("child"), calling())
    world.crash()
    assert world.step(run_id).state is StepState.CANCELLED
    assert world.step(run_id, CALL).state is StepState.WAITING
    assert len(world.children()) == 3
    world.worker("w1", functions=("f",))
    world.find(run_id, sending("child"))
    assert world.step(run_id).state is StepState.WAITING
    world.worker("w2", functions=("g",))
    assert world.step(run_id).state is StepState.SUCCEEDED
    assert world.step(run_id, CALL).child_run_id
    assert len(world.children()) == 5


def test_parents_that_fill_the_queue_make_room_for_their_children() -> None:
    world = Crowd(limit=2, served=("f", "g"), max_invocations=1)
    parents = [world.send(event_id=f"p-{n}")[0] for n in range(6)]
    for _ in range(100):
        for run_id, loaded in list(world.state.runs.items()):
            lead = loaded.lead
            if lead is None or lead.parked:
                continue
            if loaded.run.function_id == "g" or (loaded.run.steps and not loaded.run.open):
                world.tell(i.RunFinished("w1", run_id, lead.fence, b"out", 3))
            else:
                world.find(run_id, *([calling()] if not loaded.run.steps else []))
    assert [world.run(run_id).state for run_id in parents] == [RunState.SUCCEEDED] * 6


def test_a_queue_that_is_full_of_another_apps_runs_holds_up_nobody_with_less_than_its_share() -> None:
    world = Crowd(limit=4)
    state: State = world.state
    state.register(Function("other", FunctionOptions("h", ("flood",)), "", START))
    for number in range(4):
        world.send("flood", f"flood-{number}")
    assert len(state.queued) == 4
    (run_id,) = world.send()
    world.find(run_id, calling(), calling(1), calling(2))
    begun = [bool(world.step(run_id, StepKey("call", n)).child_run_id) for n in range(3)]
    assert begun == [True, True, False], "two of four are its share"


def test_who_waits_for_room_says_so_and_names_whom_nobody_serves() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    world.find(run_id, sending("child"), calling(), calling(1))
    causes = world.why(run_id)
    assert [cause.kind for cause in causes] == [CauseKind.NO_ROOM] * 2
    assert world.why_text(run_id)[0] == (
        "step send waits for room for the runs that it starts: 3 runs wait for workers, 3 of them of app app "
        "(--max-queued-runs=3)"
    )
    assert "step call and 1 more wait for room for the runs that they start" in world.why_text(run_id)[2]
    assert [cause.target for cause in causes[0].causes] == ["app/g"]


def test_a_result_of_a_run_that_a_step_has_given_up_is_not_taken_for_its_next_ones() -> None:
    world = Crowd(limit=1_000, served=("f", "g"))
    (run_id,) = world.send()
    lead = world.invocation(run_id)
    world.find(run_id, calling())
    first = world.step(run_id, CALL).child_run_id
    world.tell(
        i.StepCancelled("w1", run_id, lead, [CALL]), i.StepsFound("w1", run_id, lead, 0, [calling()], quiescent=True)
    )
    assert world.stored[first].state is RunState.CANCELLED
    assert world.step(run_id, CALL).state is StepState.WAITING
    assert world.step(run_id, CALL).child_run_id != first


def test_a_chain_of_closures_is_not_held_up() -> None:
    world = Crowd()
    world.fill()
    (run_id,) = world.send()
    assert len(started(world.find(run_id, closure("a"), sending("child")))) == 1


def test_events_that_start_very_many_runs_are_sent_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may have a turn after each event, though all runs are written in one commit."""
    sizes: list[int] = []
    monkeypatch.setattr(worlds, "decide", lambda *about: sizes.extend(pieces(*about)))
    functions = [FunctionOptions(f"f{number}", ("many",)) for number in range(200)]
    world = World(FunctionOptions("f", ("go",)), *functions, limits=Limits(max_queued_runs=10_000))
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, sending("many", "many", "many"))
    assert sum(run.id != run_id for run in world.stored.values()) == 600
    assert world.run(run_id).steps[SEND].state is StepState.SUCCEEDED
    assert [size for size in sizes if size > 100] == [201, 201, 201]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another app"])
def test_steps_that_start_very_many_runs_rest_beside_other_apps(beside: bool) -> None:
    functions = [FunctionOptions(f"f{number}", ("many",)) for number in range(starts.MANY_RUNS + 1)]
    world = World(FunctionOptions("f", ("go",)), *functions, limits=Limits(max_queued_runs=10_000))
    world.worker("w1")
    if beside:
        world.worker("theirs", functions=(), app="other")
    ids = [run_id for number in range(3) for run_id in world.send(event_id=f"e{number}")]
    for number, run_id in enumerate(ids):
        world.find(run_id, sending("many", prefix=f"s{number}"))

    def states() -> list[StepState]:
        return [world.run(run_id).steps[SEND].state for run_id in ids]

    assert states().count(StepState.SUCCEEDED) == (1 if beside else 3)
    rest = (starts.MANY_RUNS + 1) * starts.REST_SECONDS + 0.001
    for sent in (1, 2, 3) if beside else ():
        assert states().count(StepState.SUCCEEDED) == sent
        if sent < 3:
            due = world.state.next_delay(Now(world.wall, world.mono))
            assert due is not None
            assert due <= rest, "a decision is made then, whatever happens"
        world.wait(rest)
    assert states().count(StepState.SUCCEEDED) == 3
