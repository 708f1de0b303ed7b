"""Which wait gets which event: the core's side, with look-ups that are answered by hand."""

from __future__ import annotations

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core.model import Failure, FunctionOptions, Retry, StepKey, StepKind, StepState, WaitSpec
from stepwire_core.waits import MOST_PATHS
from tests.core.world import World, of_type

ANY, BY_FIELD = "[]", '["v"]'


class Events:
    """A core with a worker, and events named "n" with a field v: what a store with a search beside it would be."""

    def __init__(self, retry: Retry | None = None) -> None:
        self.world = World(FunctionOptions("f", ("go",), retry))
        self.world.worker("w1")
        self.stored: list[tuple[int, int]] = []
        """Positions and values."""

    def run(self, event_id: str = "e1") -> str:
        (run_id,) = self.world.send(event_id=event_id)
        return run_id

    def plan(self, run_id: str, *waits: tuple[str, int | None], delay: float = 5.0) -> list[c.FindEvents]:
        """Have a body wait: by an id, and a value of the field or None for any."""
        steps = [
            i.StepPlanned(
                StepKey(id_, 0),
                StepKind.WAIT_FOR_EVENT,
                target="n",
                wait=WaitSpec(ANY, ANY) if value is None else WaitSpec(BY_FIELD, f"[{value}]"),
                delay=delay,
            )
            for id_, value in waits
        ]
        return of_type(self.world.find(run_id, *steps), c.FindEvents)

    def come(self, value: int) -> int:
        """Take an event, of which nobody is told yet; gives its position."""
        self.world.state.position += 1
        self.stored.append((self.world.state.position, value))
        return self.world.state.position

    def found(self, position: int) -> i.FoundEvent:
        value = dict(self.stored)[position]
        return i.FoundEvent(position, b"%d" % value, {ANY: ANY, BY_FIELD: f"[{value}]"})

    def told(self, position: int, *run_ids: str) -> None:
        """Tell runs of an event."""
        for run_id in run_ids:
            self.world.tell(i.EventMatched(run_id, "n", self.found(position)))

    def answer(self, command: c.FindEvents, more: bool = False) -> list[c.FindEvents]:
        """Answer a look-up, of which all is given that fits; gives the look-ups that follow."""
        positions = [
            position
            for position, value in self.stored
            for wanted in command.wanted
            if position > wanted.after and position not in command.taken and wanted.match in (ANY, f"[{value}]")
        ]
        events = [self.found(position) for position in dict.fromkeys(positions)]
        looked_to = self.stored[-1][0] if self.stored else 0
        done = i.EventsLookedUp(command.run_id, "n", command.number, events, looked_to, more)
        return of_type(self.world.tell(done), c.FindEvents)

    def got(self, run_id: str) -> dict[str, int | None]:
        """Give what the waits that have ended were given."""
        steps = self.world.run(run_id).steps.values()
        ended = [step for step in steps if step.state is StepState.SUCCEEDED]
        return {step.key.id: None if step.timed_out else int(step.output or b"") for step in ended}


def test_an_event_is_given_to_one_wait_of_a_run_in_a_loop() -> None:
    events = Events()
    run_id = events.run()
    for value in (7, 8):
        events.come(value)
    for id_ in ("a", "b", "c"):
        (look_up,) = events.plan(run_id, (id_, None))
        assert events.answer(look_up) == []
    assert events.got(run_id) == {"a": 7, "b": 8}
    events.told(events.come(9), run_id)
    assert events.got(run_id) == {"a": 7, "b": 8, "c": 9}


def test_an_event_that_is_told_again_is_given_to_nobody_else() -> None:
    events = Events()
    run_id = events.run()
    (look_up,) = events.plan(run_id, ("a", None), ("b", None))
    events.answer(look_up)
    position = events.come(7)
    events.told(position, run_id, run_id)
    assert events.got(run_id) == {"a": 7}


def test_of_waits_side_by_side_the_one_that_was_planned_first_gets_the_event() -> None:
    events = Events()
    run_id = events.run()
    (look_up,) = events.plan(run_id, ("any", None), ("seven", 7), ("eight", 8), ("last", None))
    events.answer(look_up)
    for value in (7, 7, 5):
        events.told(events.come(value), run_id)
    assert events.got(run_id) == {"any": 7, "seven": 7, "last": 5}


def test_a_wait_with_a_match_that_was_planned_first_comes_before_one_without() -> None:
    events = Events()
    run_id = events.run()
    for value in (5, 7):
        events.come(value)
    (look_up,) = events.plan(run_id, ("seven", 7), ("any", None), ("more", None))
    events.answer(look_up)
    assert events.got(run_id) == {"seven": 7, "any": 5}


def test_each_run_gets_an_event() -> None:
    events = Events()
    run_ids = [events.run("e1"), events.run("e2")]
    for run_id in run_ids:
        (look_up,) = events.plan(run_id, ("a", None))
        events.answer(look_up)
    events.told(events.come(7), *run_ids)
    assert [events.got(run_id) for run_id in run_ids] == [{"a": 7}, {"a": 7}]


def test_an_event_from_before_the_run_is_none_of_its() -> None:
    events = Events()
    before = events.come(7)
    run_id = events.run()
    (look_up,) = events.plan(run_id, ("a", None))
    assert [wanted.after > before for wanted in look_up.wanted] == [True]
    events.answer(look_up)
    events.told(before, run_id)
    assert events.got(run_id) == {}


def test_what_is_told_during_a_look_up_comes_after_what_that_finds() -> None:
    events = Events()
    run_id = events.run()
    events.come(1)
    (look_up,) = events.plan(run_id, ("a", None))
    second = events.come(2)
    events.told(second, run_id)
    assert events.got(run_id) == {}, "an earlier one may be found"
    events.stored, later = events.stored[:1], events.stored
    again = events.answer(look_up)
    assert events.got(run_id) == {"a": 1}
    assert again == [], "nobody waits any more"
    events.stored = later
    (look_up,) = events.plan(run_id, ("b", None))
    assert look_up.wanted[0].after == later[0][0], "what is before was given out"
    events.answer(look_up)
    assert events.got(run_id) == {"a": 1, "b": 2}


def test_what_is_told_during_a_look_up_is_not_lost_to_a_wait_that_nothing_was_looked_up_for() -> None:
    events = Events()
    run_id = events.run()
    (look_up,) = events.plan(run_id, ("seven", 7))
    events.answer(look_up)
    (look_up,) = events.plan(run_id, ("eight", 8))
    events.told(events.come(7), run_id)
    assert events.got(run_id) == {}
    (again,) = events.answer(look_up)
    assert [wanted.match for wanted in again.wanted] == ["[7]", "[8]"]
    assert events.answer(again) == []
    assert events.got(run_id) == {"seven": 7}


def test_one_look_up_at_a_time_is_made_for_the_waits_of_a_name() -> None:
    events = Events()
    run_id = events.run()
    (look_up,) = events.plan(run_id, ("a", None), ("b", 7))
    assert len(look_up.wanted) == 2
    assert events.plan(run_id, ("c", None)) == []
    (next_,) = events.answer(look_up)
    assert [wanted.match for wanted in next_.wanted] == [ANY]
    events.world.tell(i.EventsLookedUp(run_id, "n", look_up.number, [], 99, more=False))
    events.come(5)
    events.answer(next_)
    assert events.got(run_id) == {"a": 5}, "an answer that comes again ends nothing"


def test_a_look_up_that_has_not_seen_all_goes_on_behind_what_it_has() -> None:
    events = Events()
    run_id = events.run()
    position = events.come(7)
    (look_up,) = events.plan(run_id, ("a", 7), ("b", 8))
    (next_,) = events.answer(look_up, more=True)
    assert [(wanted.match, wanted.after) for wanted in next_.wanted] == [("[8]", position)]
    events.come(8)
    assert events.answer(next_) == []
    assert events.got(run_id) == {"a": 7, "b": 8}


def test_a_wait_whose_time_runs_out_gets_an_event_that_had_come_before() -> None:
    events = Events()
    run_id = events.run()
    events.come(7)
    (look_up,) = events.plan(run_id, ("a", None), ("b", None), delay=2.0)
    events.world.wait(3.0)
    assert events.got(run_id) == {}
    events.answer(look_up)
    assert events.got(run_id) == {"a": 7, "b": None}


def test_a_wait_that_timed_out_or_was_cancelled_takes_no_event() -> None:
    events = Events()
    run_id = events.run()
    (look_up,) = events.plan(run_id, ("late", None), delay=2.0)
    events.answer(look_up)
    events.world.wait(2.0)
    (look_up,) = events.plan(run_id, ("given-up", None))
    events.answer(look_up)
    world = events.world
    world.tell(i.StepCancelled("w1", run_id, world.invocation(run_id), [StepKey("given-up", 0)]))
    events.told(events.come(7), run_id)
    (look_up,) = events.plan(run_id, ("next", None))
    events.answer(look_up)
    assert events.got(run_id) == {"late": None, "next": 7}


def test_a_wait_that_is_planned_again_gets_what_came_meanwhile() -> None:
    events = Events(Retry(retries=3, initial_interval=0.1))
    world = events.world
    run_id = events.run()
    (look_up,) = events.plan(run_id, ("a", None), ("b", None))
    events.answer(look_up)
    world.tell(i.StepCancelled("w1", run_id, world.invocation(run_id), [StepKey("a", 0)]))
    world.tell(i.RunFailed("w1", run_id, world.invocation(run_id), Failure("ValueError", "oh")))
    events.told(events.come(1), run_id)
    assert events.got(run_id) == {"b": 1}
    events.come(2)
    world.wait(0.2)
    (look_up,) = events.plan(run_id, ("a", None), ("b", None))
    events.answer(look_up)
    assert events.got(run_id) == {"a": 2, "b": 1}


def test_after_a_restart_an_event_that_was_given_is_given_to_nobody_else() -> None:
    events = Events()
    run_id = events.run()
    events.come(1)
    (look_up,) = events.plan(run_id, ("a", None), ("b", None))
    events.answer(look_up)
    events.world.crash()
    (look_up,) = of_type(events.world.commands[-1:], c.FindEvents)
    assert look_up.wanted == [c.Wanted(ANY, ANY, events.stored[0][0], 1)], "of what was cut off nobody knows"
    second = events.come(2)
    events.answer(look_up)
    events.told(events.stored[0][0], run_id)
    events.told(second, run_id)
    assert events.got(run_id) == {"a": 1, "b": 2}


def test_a_run_goes_to_sleep_once_its_events_were_looked_up_and_looks_nothing_up_when_it_wakes() -> None:
    events = Events()
    world = events.world
    run_id = events.run()
    (look_up,) = events.plan(run_id, ("a", None), ("b", None), delay=3600.0)
    world.wait(30.0)
    assert run_id in world.state.runs
    events.answer(look_up)
    world.wait(30.0)
    assert run_id not in world.state.runs
    before = len(of_type(world.commands, c.FindEvents))
    events.told(events.come(7), run_id)
    assert events.got(run_id) == {"a": 7}
    assert len(of_type(world.commands, c.FindEvents)) == before


def test_how_far_waits_were_told_is_written_beside_other_rows() -> None:
    events = Events()
    state = events.world.state
    state.told = 999
    events.run("e1")
    assert state.marked == 0
    state.told = 1000
    events.world.tell(i.Tick())
    assert state.marked == 0, "not for its own sake"
    events.run("e2")
    assert state.marked == 1000


def test_a_run_waits_for_an_event_by_so_many_sets_of_fields_at_a_time() -> None:
    world = Events().world
    (run_id,) = world.send()

    def wait(number: int, field: int) -> i.StepPlanned:
        spec = WaitSpec(f'["f{field}"]', "[1]")
        return i.StepPlanned(StepKey("w", number), StepKind.WAIT_FOR_EVENT, target="n", wait=spec, delay=5.0)

    world.find(run_id, *[wait(n, n) for n in range(MOST_PATHS)])
    world.find(run_id, wait(MOST_PATHS, 7), wait(MOST_PATHS + 1, MOST_PATHS))
    steps = world.run(run_id).steps
    assert steps[StepKey("w", MOST_PATHS)].state is StepState.WAITING, "the same fields may be compared again"
    refused = steps[StepKey("w", MOST_PATHS + 1)]
    assert refused.failure is not None
    assert refused.failure.type == "TooManyWaitFieldsError"
    assert "compare 100 different sets of fields" in refused.failure.message
    assert not refused.failure.retryable
    world.wait(6.0)
    (answer, *_) = of_type(world.commands, c.FindEvents)
    world.tell(i.EventsLookedUp(run_id, "n", answer.number, [], 0, False))
    assert steps[StepKey("w", 0)].state is not StepState.WAITING
