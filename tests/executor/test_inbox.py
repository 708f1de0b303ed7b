"""What waits to be decided: nothing is lost, no run keeps others waiting, and the order holds that matters."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from stepwire_executor.core import inputs as i
from stepwire_executor.core.model import StepKey, StepKind
from stepwire_executor.inbox import MOST_A_TURN, Inbox


def report(run_id: str, fence: int = 1) -> i.StepSucceeded:
    return i.StepSucceeded("session", run_id, StepKey("step", 0), fence, b"", 0, 0.0)


def page(run_id: str, count: int) -> i.StepsFound:
    steps = [i.NewStep(StepKey("step", number), StepKind.CLOSURE) for number in range(count)]
    return i.StepsFound("session", run_id, 1, 0, steps, True)


def filled(*inputs: i.Input) -> Inbox:
    inbox = Inbox()
    for each in inputs:
        inbox.put(each)
    return inbox


def emptied(inbox: Inbox) -> list[i.Input]:
    taken: list[i.Input] = []
    while inbox:
        turn = inbox.take()
        assert turn
        taken += turn
    return taken


def test_a_small_run_does_not_wait_for_what_a_large_one_has_sent_before() -> None:
    late = report("small")
    inbox = filled(*(report("large", fence) for fence in range(1_000)), late)
    assert late in inbox.take()[:2]


def test_much_is_taken_in_many_turns() -> None:
    inbox = filled(*(report("run", fence) for fence in range(100)))
    assert len(inbox.take()) == MOST_A_TURN
    assert len(inbox) == 100 - MOST_A_TURN


def test_a_page_of_found_steps_counts_by_its_steps() -> None:
    first, second, other = page("run", 1_000), page("run", 1_000), report("other")
    inbox = filled(first, second, other)
    assert inbox.take() == [first]
    assert inbox.take() == [other, second]


def test_runs_go_on_taking_turns_from_one_turn_to_the_next() -> None:
    inbox = filled(*(report(f"run-{number % 50}", number) for number in range(100)))
    taken = [each.run_id for each in emptied(inbox) if isinstance(each, i.StepSucceeded)]
    assert sorted(taken[:50]) == sorted({f"run-{number}" for number in range(50)})


def test_a_lost_stream_comes_after_what_its_worker_has_reported_and_before_what_came_later() -> None:
    before = [report("run", fence) for fence in range(MOST_A_TURN + 8)]
    lost, after = i.StreamLost("session", object()), report("another")
    assert emptied(filled(*before, lost, after)) == [*before, lost, after]


def test_what_was_forgotten_does_not_come_back() -> None:
    inbox = filled(report("run"), i.Tick(), report("run"))
    inbox.clear()
    assert not inbox
    assert inbox.take() == []


ANY = st.one_of(
    st.sampled_from("abc").map(report),
    st.tuples(st.sampled_from("abc"), st.integers(0, 70)).map(lambda pair: page(*pair)),
    st.just(()).map(lambda _: i.EventsSent([], None, {})),
    st.just(()).map(lambda _: i.Tick()),
)


@given(st.lists(ANY, max_size=200))
def test_nothing_is_lost_and_each_run_keeps_its_order(inputs: list[i.Input]) -> None:
    taken = emptied(filled(*inputs))
    assert sections(taken) == sections(inputs)


def sections(inputs: list[i.Input]) -> list[dict[str, list[int]]]:
    """Give what lies between ticks: identities by run, in order."""
    found = []
    for is_tick, section in groupby(inputs, lambda each: isinstance(each, i.Tick)):
        lanes: dict[str, list[int]] = {}
        for each in section:
            lanes.setdefault("tick" if is_tick else getattr(each, "run_id", "events"), []).append(id(each))
        found.append(lanes)
    return found
