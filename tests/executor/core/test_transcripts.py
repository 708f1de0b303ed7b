"""Whole conversations of the core, kept as text and read as diffs.

After a change that is meant, `pytest tests/executor/core/test_transcripts.py --regenerate` writes them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stepwire_executor.core import commands as c
from stepwire_executor.core import inputs as i
from stepwire_executor.core.model import Failure, StepKey, StepKind
from tests.executor.core.world import World, closure, of_type

FOLDER = Path(__file__).parent / "transcripts"


def fan_out_over_two_workers(world: World) -> None:
    world.worker("w1", slots=2)
    world.worker("w2", slots=1)
    (run_id,) = world.send()
    starts = of_type(world.find(run_id, *[closure("chunk", n) for n in range(4)]), c.StartAttempt)
    while starts:
        starts += of_type(world.succeed(starts.pop(0)), c.StartAttempt)
    world.tell(i.BodyReturned("w1", run_id, world.invocation(run_id), b"done", 4))


def chain_of_lone_steps_in_the_lead(world: World) -> None:
    world.worker("w1", eager=True)
    (run_id,) = world.send()
    for name in ("first", "second"):
        lead = world.state.runs[run_id].lead
        assert lead is not None
        fence = lead.eager_fence
        world.tell(
            i.StepsFound("w1", run_id, lead.fence, lead.sent, [closure(name, eager_fence=fence)], quiescent=True),
            i.StepSucceeded("w1", run_id, StepKey(name, 0), fence, b"out", 3, 0.0),
        )
    world.tell(i.BodyReturned("w1", run_id, world.invocation(run_id), b"done", 4))


def one_step_fails_and_is_retried_alone(world: World) -> None:
    world.worker("w1")
    (run_id,) = world.send()
    good, bad = of_type(world.find(run_id, closure("good"), closure("bad")), c.StartAttempt)
    world.succeed(good)
    world.fail(bad, Failure("RetryAfterError", "later", retry_after=1.0))
    (again,) = of_type(world.wait(1.0), c.StartAttempt)
    world.succeed(again)


def worker_dies_in_the_middle(world: World) -> None:
    world.worker("w1", slots=2)
    world.worker("w2", slots=2)
    (run_id,) = world.send()
    starts = of_type(world.find(run_id, *[closure("s", n) for n in range(4)]), c.StartAttempt)
    lead = world.state.runs[run_id].lead
    assert lead is not None
    dead = lead.session_id
    world.tell(i.StreamLost(dead, f"stream-{dead}"))
    for start in starts:
        if start.session_id != dead:
            world.succeed(start)
    world.wait(world.limits.session_grace)
    world.wait(1.0)


def executor_dies_and_the_worker_comes_back(world: World) -> None:
    world.worker("w1")
    (run_id,) = world.send()
    starts = of_type(world.find(run_id, closure("a"), closure("b")), c.StartAttempt)
    world.succeed(starts[0])
    world.crash()
    in_hand = [i.AttemptRef(run_id, start.key, start.fence) for start in starts]
    world.worker("w1", in_hand=in_hand)
    world.succeed(starts[0])
    world.succeed(starts[1])


def sleep_takes_the_run_out_of_memory(world: World) -> None:
    world.worker("w1")
    (run_id,) = world.send()
    world.find(run_id, i.NewStep(StepKey("nap", 0), StepKind.SLEEP, delay=3600.0))
    world.wait(10.0)
    world.wait(3590.0)


def worker_drains(world: World) -> None:
    world.worker("w1")
    (run_id,) = world.send()
    kept, given_back = of_type(world.find(run_id, closure("a"), closure("b")), c.StartAttempt)
    world.worker("w2")
    world.tell(i.WorkerDraining("w1"))
    world.succeed(kept)
    world.tell(i.WorkerDraining("w1", [i.AttemptRef(run_id, given_back.key, given_back.fence)]))
    world.tell(i.StreamLost("w1", "stream-w1"))


SCENARIOS: list[Callable[[World], None]] = [
    fan_out_over_two_workers,
    chain_of_lone_steps_in_the_lead,
    one_step_fails_and_is_retried_alone,
    worker_dies_in_the_middle,
    executor_dies_and_the_worker_comes_back,
    sleep_takes_the_run_out_of_memory,
    worker_drains,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_transcript_is_as_reviewed(scenario: Callable[[World], None], request: pytest.FixtureRequest) -> None:
    world = World()
    scenario(world)
    text = "\n".join(world.lines) + "\n"
    file = FOLDER / f"{scenario.__name__}.txt"
    if request.config.getoption("--regenerate"):
        file.write_text(text)
    assert text == file.read_text()


def test_every_transcript_has_a_scenario() -> None:
    assert {file.stem for file in FOLDER.glob("*.txt")} == {scenario.__name__ for scenario in SCENARIOS}
