"""A decision that raises costs the input that it was about, and the runs in its hands; nobody else notices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import stepwire_core
from stepwire_core import commands as c
from stepwire_core import containment, placement, plans, runs, steps, workers
from stepwire_core import inputs as i
from stepwire_core.containment import MOST_FAULTS, DecisionError
from stepwire_core.decide import decide
from stepwire_core.model import Event, Failure, FunctionOptions, RunState, StepKey, StepKind, WaitSpec
from stepwire_core.state import SessionState
from tests.core.world import START, World, closure, of_type, put_in, started, world_with_run

CORE = str(Path(stepwire_core.__file__).parent)
TRUSTED = {
    *("containment.py", "state.py", "timer_queue.py", "queued.py"),
    *("commands.py", "model.py", "ids.py", "why.py", "causes.py"),
}
"""Files where nothing is made to raise: what takes the harm back, what it does that with, and what decides nothing."""
AROUND = {"decide", "pieces", "touched_runs", "sent_events", "mark", "Turn.__post_init__"}
"""Functions that only lead to the handlers, or are there for the engine."""


class _FaultError(Exception):
    """A bug that a test has put in."""


def decides(frame: FrameType) -> bool:
    """Whether a frame is one of the core's handlers, called by `decide`."""
    file = Path(frame.f_code.co_filename)
    name = frame.f_code.co_qualname
    if str(file.parent) != CORE or file.name in TRUSTED or {name, name.split(".")[0]} & AROUND:
        return False
    above: FrameType | None = frame
    while above is not None and above.f_code is not decide.__code__:
        above = above.f_back
    return above is not None


@contextmanager
def fault_at(line: int) -> Iterator[list[str]]:
    """Have the core raise at its n-th line from here on, once; gives where that was."""
    left, where = line, []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if where or not decides(frame):
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                where.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
                raise _FaultError(where[0])
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield where
    finally:
        sys.settrace(before)


class Scene:
    """A world with a worker of ours, and another app's, whose run is under way and is to notice nothing."""

    def __init__(self) -> None:
        ours = [FunctionOptions("f", ("go",)), FunctionOptions("g")]
        self.world = World(*ours)
        self.world.may_fault = True
        self.worker()
        self.world.worker("theirs", functions=("f",), tasks=("other",))
        theirs = FunctionOptions("v", ("victim",))
        self.world.tell(
            i.Hello("victim", "i-victim", "shop", "", [theirs], (), 10, 10, stream="stream-victim"),
            i.EventsSent([Event("v1", "victim", b"", START, digest="v1")], "v"),
        )
        (self.victim,) = [run_id for run_id, loaded in self.world.state.runs.items() if loaded.run.app == "shop"]
        (self.attempt,) = started(self.world.find(self.victim, closure("slow")))

    def worker(self) -> None:
        """Connect our worker, or connect it again."""
        self.world.worker("ours", functions=("f", "g"))

    def conversation(self) -> Iterator[Callable[[], object]]:
        """Give what happens to a run of ours, one thing after the other; each as the peers would have it then."""
        world = self.world
        yield lambda: world.send()
        yield lambda: self.say(
            closure("one"), closure("two"), i.StepPlanned(StepKey("task", 0), StepKind.TASK, target="t")
        )
        yield lambda: self.say(
            i.StepPlanned(StepKey("nap", 0), StepKind.SLEEP, delay=1.0),
            i.StepPlanned(StepKey("child", 0), StepKind.INVOKE, target="/g"),
            i.StepPlanned(StepKey("wait", 0), StepKind.WAIT_FOR_EVENT, target="paid", wait=WaitSpec(), delay=60.0),
            i.StepPlanned(
                StepKey("tell", 0), StepKind.SEND_EVENTS, events=[Event("told", "go2", b"", START, digest="told")]
            ),
        )
        yield self.fail
        yield self.report
        yield lambda: world.wait(2)
        yield self.match
        yield self.end_children
        yield lambda: self.say(closure("last"), closure("never"))
        yield lambda: world.tell(i.StepCancelled("ours", *self.body(), [StepKey("never", 0)]))
        yield lambda: world.tell(i.StreamLost("ours", "stream-ours"))
        yield self.come_back
        yield self.report
        yield lambda: self.say(closure("more"))
        yield lambda: world.tell(i.RunFailed("ours", *self.body(), Failure("ValueError", "odd")))
        yield lambda: world.wait(2)
        yield lambda: world.tell(i.Evicted("ours", *self.body(), self.held("ours")))
        yield lambda: world.tell(i.StreamLost("ours", "stream-ours"), i.StreamLost("theirs", "stream-theirs"))
        yield lambda: world.wait(6)
        yield self.worker
        yield lambda: world.wait(3)
        yield lambda: self.say(closure("most"))
        yield lambda: world.tell(i.Draining("ours", self.held("ours"), done=True))
        yield lambda: world.tell(i.RunCancelled(self.mine() or "", "enough", "cancel"))

    def mine(self) -> str | None:
        """Give our run, if it goes on."""
        return next((id_ for id_, loaded in self.world.state.runs.items() if loaded.run.function_id == "f"), None)

    def body(self) -> tuple[str, int]:
        """Name our run's body."""
        loaded = self.world.state.runs.get(self.mine() or "")
        return (loaded.run.id, loaded.lead.fence) if loaded is not None and loaded.lead is not None else ("none", 0)

    def say(self, *found: i.StepPlanned) -> None:
        """Report steps as our body; it reports what it finds anew after a fault as well."""
        loaded = self.world.state.runs.get(self.mine() or "")
        if loaded is not None and loaded.lead is not None:
            self.world.find(loaded.run.id, *found)

    def held(self, session_id: str) -> list[i.AttemptRef]:
        """Name what runs in one of our sessions."""
        session = self.world.state.sessions.get(session_id)
        attempts = session.attempts.items() if session is not None else ()
        return [i.AttemptRef(run_id, key, fence) for fence, (run_id, key) in attempts]

    def come_back(self) -> None:
        """Connect our worker again, with its session and what it has in hand."""
        self.world.worker("ours", functions=("f", "g"), resume_session="ours", in_hand=self.held("ours"))

    def fail(self) -> None:
        """Report a failure of what runs in our sessions."""
        for attempt in [*self.held("ours")[:1], *self.held("theirs")[:1]]:
            session_id = "ours" if attempt in self.held("ours") else "theirs"
            self.world.tell(i.StepFailed(session_id, *attempt, Failure("ValueError", "bad"), 0.0))

    def report(self) -> None:
        """Report what runs of ours in workers, one by one."""
        for session in list(self.world.state.sessions.values()):
            for fence, (run_id, key) in list(session.attempts.items()):
                if session.app == "app" and fence in session.attempts:
                    self.world.tell(i.StepRun(session.id, run_id, key, fence, b"out", 3, 0.0))

    def match(self) -> None:
        """Give our run's waits what they wait for, as look-ups and as news."""
        for command in of_type(self.world.commands, c.FindEvents):
            self.world.tell(i.EventsLookedUp(command.run_id, "paid", command.number, [], 0, more=False))
        run_id = self.mine()
        if run_id is not None:
            self.world.tell(i.EventMatched(run_id, "paid", i.FoundEvent(99, b"{}", {"[]": "[]"})))

    def end_children(self) -> None:
        """Have the bodies of invoked runs return."""
        for loaded in list(self.world.state.runs.values()):
            if loaded.run.function_id == "g" and loaded.lead is not None:
                self.world.tell(i.RunFinished(loaded.lead.session_id, loaded.run.id, loaded.lead.fence, b"done", 4))

    def go_on(self) -> None:
        """Have everybody do what is left to do, as their workers would, until our runs have ended."""
        world = self.world
        if "ours" not in world.state.sessions or world.state.sessions["ours"].state is not SessionState.CONNECTED:
            self.worker()
        for _ in range(30):
            self.report()
            self.match()
            self.end_children()
            world.wait(1)
            loaded = world.state.runs.get(self.mine() or "")
            if loaded is None:
                break
            if loaded.lead is not None and not loaded.run.open:
                world.tell(i.RunFinished(loaded.lead.session_id, loaded.run.id, loaded.lead.fence, b"end", 3))

    def check_victim(self) -> None:
        """The other app's attempt runs where it ran, and its run ends."""
        world = self.world
        stopped = [each for each in world.commands if getattr(each, "session_id", "") == "victim"]
        assert not of_type(stopped, c.Rejected)
        assert not of_type(stopped, c.CancelRun)
        assert of_type(stopped, c.StartAttempt) == [self.attempt]
        world.succeed(self.attempt)
        world.tell(i.RunFinished("victim", self.victim, world.invocation(self.victim), b"sold", 4))
        assert world.stored[self.victim].output == b"sold"


def lines_of(scene: Scene) -> list[int]:
    """Count the lines of the core that each part of the conversation runs."""
    counts: list[int] = []

    def count(frame: FrameType, event: str, _: Any) -> Any:
        if not decides(frame):
            return None
        counts[-1] += event == "line"
        return count

    before = sys.gettrace()
    for part in scene.conversation():
        counts.append(0)
        sys.settrace(count)
        part()
        sys.settrace(before)
    return counts


LINES = lines_of(Scene())
EVERY = 3
"""Lines from one that is made to raise to the next."""


@pytest.mark.parametrize("part", range(len(LINES)))
def test_a_fault_anywhere_costs_the_run_that_it_is_about_and_no_other(part: int) -> None:
    assert LINES[part] > 0, "it is about something"
    for line in range(1, LINES[part] + 1, EVERY):
        scene = Scene()
        for number, happens in enumerate(scene.conversation()):
            if number == part:
                with fault_at(line) as where:
                    happens()
                assert scene.world.state.faults or where
            else:
                happens()
        try:
            scene.go_on()
            scene.check_victim()
            assert scene.mine() is None, "our run, too, goes on to its end"
        except AssertionError as error:
            raise AssertionError(f"after a fault at {where}, line {line}: {error}") from error


def raise_for(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, concerns: Callable[..., bool]) -> None:
    """Have a handler raise whenever it is about something."""
    handler = getattr(module, name)

    def broken(*arguments: Any) -> Any:
        if concerns(*arguments):
            raise _FaultError("always")
        return handler(*arguments)

    put_in(monkeypatch, module, name, broken)


def test_events_that_cannot_be_decided_are_refused_whole_and_others_of_the_batch_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.may_fault = True
    world.worker("w1")
    raise_for(monkeypatch, runs, "create", lambda turn, run, *_: run.event.id == "bad")
    events = {name: Event(name, "go", b"data", START, digest=name) for name in ("good", "bad", "other")}
    told = world.tell(
        i.EventsSent([events["good"], events["bad"]], "poison"), i.EventsSent([events["other"]], "neighbour")
    )
    answers = {answer.reply: answer.value for answer in of_type(told, c.Answer)}
    assert isinstance(answers["poison"], DecisionError)
    assert "EventsSent" in str(answers["poison"])
    assert [run.event.id for run in world.stored.values()] == ["other"]
    assert [command.event.id for command in of_type(told, c.FindWaits)] == ["other"]
    assert [receipt.event_id for receipt in answers["neighbour"]] == ["other"]


def test_a_report_that_cannot_be_decided_ends_its_senders_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    raise_for(monkeypatch, plans, "on_steps_found", lambda turn, report, *_: report.run_id != scene.victim)
    (run_id,) = scene.world.send()
    told = scene.world.find(run_id, closure("one"))
    assert [(each.session_id, each.code) for each in of_type(told, c.Rejected)] == [("ours", "INTERNAL")]
    scene.check_victim()


def test_one_apps_report_does_not_stop_another_apps_run_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    raise_for(monkeypatch, plans, "on_steps_found", lambda turn, report, *_: report.session_id == "ours")
    told = scene.world.tell(i.StepsFound("ours", scene.victim, 1, 0, [], quiescent=True))
    assert [(each.session_id, each.code) for each in of_type(told, c.Rejected)] == [("ours", "INTERNAL")]
    assert not scene.world.state.faults
    scene.check_victim()


def test_what_a_fault_takes_back_is_not_called_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, run_id = world_with_run("w1")
    world.may_fault = True
    first, second = started(world.find(run_id, closure("one"), closure("two")))
    raise_for(monkeypatch, steps, "on_step_failed", lambda *_: True)
    told = world.tell(
        i.StepRun("w1", run_id, first.key, first.fence, b"out", 3, 0.0),
        i.StepFailed("w1", run_id, second.key, second.fence, Failure("ValueError", "bad"), 0.0),
    )
    assert not of_type(told, c.Recorded)
    assert world.run(run_id).journal == []
    assert len(of_type(told, c.CancelRun)) == 1
    assert not any(step.state.ended for step in world.run(run_id).steps.values())


def test_a_run_that_bugs_stop_again_and_again_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    world, run_id = world_with_run("w1")
    world.may_fault = True
    raise_for(monkeypatch, plans, "on_steps_found", lambda *_: True)
    for _ in range(MOST_FAULTS):
        assert run_id in world.state.runs
        world.find(run_id, closure("one"))
    run = world.stored[run_id]
    assert run.state is RunState.FAILED
    assert run.failure is not None
    assert (run.failure.type, run.failure.retryable) == ("InternalError", False)
    assert "the executor's log says more" in run.failure.message


def test_a_run_that_cannot_be_loaded_fails_and_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    (run_id,) = scene.world.send()
    raise_for(monkeypatch, workers, "requeue", lambda turn, loaded, *_: loaded.run.id == run_id)
    scene.world.crash()
    run = scene.world.stored[run_id]
    assert run.state is RunState.FAILED
    assert run.failure is not None
    assert run.failure.type == "InternalError"
    assert scene.victim in scene.world.state.runs


def test_a_fault_in_placing_what_is_ready_costs_the_run_that_was_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    raise_for(monkeypatch, placement, "begin_invocation", lambda turn, loaded, *_: loaded.run.function_id == "f")
    scene.world.send()
    scene.world.send(event_id="e2")
    failed = [run for run in scene.world.stored.values() if run.state is RunState.FAILED]
    assert [run.failure.type for run in failed if run.failure] == ["InternalError"] * 2
    scene.check_victim()


def test_what_nobody_would_say_again_is_said_again_until_its_run_fails_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, run_id = world_with_run("w1")
    world.may_fault = True
    tries: list[str] = []
    raise_for(monkeypatch, steps, "on_child_ended", lambda turn, ended, *_: tries.append(ended.run_id) or True)
    world.tell(i.ChildEnded(run_id, StepKey("child", 0), RunState.SUCCEEDED, b"", None, "child"))
    assert tries == [run_id] * (MOST_FAULTS + 1)
    run = world.stored[run_id]
    assert run.state is RunState.FAILED


def test_runs_of_a_worker_whose_heartbeats_meet_a_bug_are_not_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    (run_id,) = scene.world.send()
    scene.world.find(run_id, closure("one"))
    raise_for(monkeypatch, workers, "on_heartbeat", lambda turn, beat, *_: beat.session_id == "ours")
    for _ in range(2 * MOST_FAULTS):
        scene.world.tell(i.Heartbeat("ours"))
        scene.worker()
    assert run_id in scene.world.state.runs
    assert not scene.world.state.faults
    scene.check_victim()


def test_a_bug_that_concerns_very_many_new_runs_costs_little_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.may_fault = True
    world.worker("w1")
    raise_for(monkeypatch, runs, "create", lambda turn, run, *_: run.event.id == "e1999")
    events = [Event(f"e{number}", "go", b"data", START, digest=str(number)) for number in range(2_000)]
    looked_at = 0
    real = containment.run_of

    def counted(command: c.Command) -> str:
        nonlocal looked_at
        looked_at += 1
        return real(command)

    monkeypatch.setattr(containment, "run_of", counted)
    (answer,) = of_type(world.tell(i.EventsSent(events, "poison")), c.Answer)
    assert isinstance(answer.value, DecisionError)
    assert not world.stored
    assert not world.state.runs
    assert looked_at < 10 * len(events)


def test_a_run_that_no_worker_can_be_told_of_begins_anew_and_fails_at_the_third_time() -> None:
    world, run_id = world_with_run()
    world.may_fault = True
    world.find(run_id, closure("a"), closure("b"))
    for times in range(1, MOST_FAULTS + 1):
        assert world.run(run_id).state is not RunState.FAILED, times
        world.tell(i.NotWritten(run_id, "what w1 is to be told (Invoke)", _FaultError("it can't be written")))
    failure = world.run(run_id).failure
    assert failure is not None
    assert (world.run(run_id).state, failure.type) == (RunState.FAILED, "InternalError")
    world.tell(i.NotWritten(run_id, "late", _FaultError()), i.NotWritten("", "no run's", _FaultError()))
