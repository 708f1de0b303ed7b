"""Which functions are registered: those that nobody serves are forgotten in time, unless a run needs them."""

from __future__ import annotations

from typing import Any

import pytest

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core import registrations, state
from stepwire_core.model import FunctionOptions, Limits, Now, RunState, StepKey, StepKind
from stepwire_core.turn import Turn
from tests.core.world import World, of_type

DAY = 86_400.0
KEY = ("app", "g")


class Registry(World):
    """A core with functions f and g, both of which a worker serves; notes what is written of functions."""

    def __init__(self, **limits: Any) -> None:
        options = FunctionOptions("f", ("go",)), FunctionOptions("g", ("child",))
        super().__init__(*options, limits=Limits(**limits))
        self.written: list[tuple[str, float]] = []
        self.forgotten: list[tuple[str, str]] = []
        self.worker("w1", functions=("f", "g"))

    def _note_writes(self, writes: c.Writes) -> None:
        self.written += [(each.options.id, each.served_at) for each in writes.functions]
        self.forgotten += writes.forgotten
        super()._note_writes(writes)

    def leave(self) -> None:
        """Have g's worker go, and one come that serves f alone."""
        self.tell(i.StreamLost("w1", "stream-w1"))
        self.worker("w2", functions=("f",))

    def aged(self) -> list[tuple[str, str]]:
        return list(registrations.aged(self.state, Now(self.wall, self.mono)))

    def check(self, *unneeded: tuple[str, str]) -> None:
        self.tell(i.FunctionsChecked(unneeded or tuple(self.aged())))


def test_a_function_that_nobody_has_served_for_long_is_forgotten_and_starts_no_runs() -> None:
    world = Registry()
    world.leave()
    world.wait(29 * DAY)
    world.check()
    assert world.forgotten == []
    world.wait(2 * DAY)
    assert world.aged() == [KEY]
    world.check()
    assert world.forgotten == [KEY]
    assert world.send("child", "later") == []
    assert "child" not in world.state.triggers
    (run_id,) = world.send()
    world.find(run_id, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="/g"))
    failure = world.run(run_id).steps[StepKey("call", 0)].failure
    assert failure is not None
    assert failure.type == "FunctionNotFoundError"


def test_a_function_that_comes_back_is_registered_anew() -> None:
    world = Registry()
    options = [world.state.functions[KEY].options]
    world.leave()
    world.wait(31 * DAY)
    world.check()
    world.written.clear()
    world.tell(i.Hello("w3", "i-w3", "app", "", options, (), 10, 10, stream="s3"))
    assert world.written == [("g", world.wall)]
    assert len(world.send("child", "again")) == 1


def test_who_serves_a_function_keeps_it_and_that_is_written_once_a_day() -> None:
    world = Registry()
    for _ in range(40 * 24):
        world.wait(3_600.0)
        world.tell(i.Heartbeat("w1"))
        world.check(KEY)
    assert world.forgotten == []
    assert 38 <= len([each for each in world.written if each[0] == "g"]) <= 41


def test_when_a_function_was_served_last_survives_a_restart() -> None:
    world = Registry()
    world.check()
    world.wait(3 * DAY)
    world.check()
    served = world.wall
    world.crash()
    world.worker("w2", functions=("f",))
    world.wait(29 * DAY)
    assert world.aged() == []
    assert registrations.unserved_since(world.state, world.state.functions[KEY]) == served
    world.wait(2 * DAY)
    assert world.aged() == [KEY]


def test_an_executor_that_was_down_for_long_gives_workers_time_to_come_back() -> None:
    world = Registry()
    world.check()
    world.wall += 60 * DAY
    world.mono += 60 * DAY
    world.crash()
    assert world.aged() == []
    world.wait(3_000.0)
    world.check(KEY)
    assert world.forgotten == []
    world.worker("w2", functions=("f",))
    world.wait(1_000.0)
    assert world.aged() == [KEY]


def test_a_clock_that_is_set_forward_makes_no_function_older() -> None:
    world = Registry()
    world.leave()
    world.wait(7_200.0)
    assert list(registrations.aged(world.state, Now(world.wall + 90 * DAY, world.mono, moved=90 * DAY))) == []


def test_a_function_with_an_unfinished_run_in_memory_is_kept() -> None:
    world = Registry()
    world.leave()
    (run_id,) = world.send("child", "waits")
    world.wait(40 * DAY)
    assert world.aged() == [KEY]
    world.check(KEY)
    assert world.forgotten == []
    world.tell(i.RunCancelled(run_id, "enough"))
    assert world.stored[run_id].state is RunState.CANCELLED
    world.check(KEY)
    assert world.forgotten == [KEY]


def test_what_the_store_still_needs_is_kept() -> None:
    world = Registry()
    world.leave()
    world.wait(40 * DAY)
    world.tell(i.FunctionsChecked(()))
    assert world.forgotten == []


def test_a_worker_that_comes_in_the_same_decision_as_the_check_keeps_its_function() -> None:
    world = Registry()
    options = [world.state.functions[KEY].options]
    world.leave()
    world.wait(40 * DAY)
    back = i.Hello("w3", "i-w3", "app", "", options, (), 10, 10, stream="s3")
    world.tell(i.FunctionsChecked([KEY]), back)
    assert KEY in world.state.functions
    assert world.forgotten == []
    world.tell(i.StreamLost("w3", "s3"))
    world.wait(1.0)
    world.check(KEY)
    assert world.forgotten == []


def test_an_app_has_so_many_functions_and_a_worker_with_more_is_refused() -> None:
    world = Registry(max_functions=3)
    new = [FunctionOptions("g"), FunctionOptions("h"), FunctionOptions("k")]
    hello = i.Hello("w3", "i-w3", "app", "v2", new, (), 10, 10, stream="s3")
    (rejected,) = of_type(world.tell(hello), c.Rejected)
    assert rejected.code == "FAILED_PRECONDITION"
    assert "app app has 2 functions, and this worker brings 2 more, over --max-functions=3" in rejected.message
    assert "--forget-functions-after" in rejected.message
    other = i.Hello("w4", "i-w4", "other", "v2", new, (), 10, 10, stream="s4")
    assert of_type(world.tell(other), c.Rejected) == []


@pytest.mark.parametrize("count", [2_500])
def test_a_check_writes_so_many_functions_at_a_time(count: int) -> None:
    many = tuple(FunctionOptions(f"n{at}", (f"e{at}",)) for at in range(count))
    world = World(*many)
    world.wait(40 * DAY)
    forgotten = []
    for _ in range(4):
        decision = world.state.begin()
        turn = Turn(world.state, Now(world.wall, world.mono), decision)
        registrations.on_functions_checked(turn, i.FunctionsChecked(list(registrations.aged(turn.state, turn.now))))
        forgotten.append(len(decision.writes.forgotten))
        world.state.sent(decision)
    assert forgotten == [1_000, 1_000, 500, 0]
    assert not world.state.triggers


def test_tasks_that_come_and_go_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MOST_TASKS_LEFT", 5)
    world = World()
    for at in range(10):
        world.worker(f"w{at}", functions=(), tasks=(f"a{at}", "kept", f"b{at}"))
        world.tell(i.StreamLost(f"w{at}", f"stream-w{at}"))
        world.wait(1.0)
    (left,) = world.state.tasks_last_served.values()
    assert list(left) == ["a8", "b8", "a9", "b9", "kept"]
    world.wait(40 * DAY)
    world.tell(i.FunctionsChecked([]))
    assert not world.state.tasks_last_served
