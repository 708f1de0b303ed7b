"""A body that raises in a replay is reported with what it raised, and with where in the journal that was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stepwire import Context, NonRetriableError, Step, SyncStep
from stepwire.errors import Failure
from stepwire.payload import Payload
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import Entry, Expected, Raised, Returned, StepKey, StepKind, Turn
from stepwire.values import Values
from tests.sdk_python.replay.driver import START, VALUES, invocation

BROKEN: set[str] = set()
"""What is missing on this machine."""


def check(what: str) -> None:
    if what in BROKEN:
        raise LookupError(what)


async def copies(ctx: Context, step: Step) -> str:
    check("first")
    await step.run("a", str, "a")
    check("second")
    await step.run("b", str, "b")
    check("third")
    return await step.run("c", str, "c")


def copies_sync(ctx: Context, step: SyncStep) -> str:
    check("first")
    step.run("a", str, "a")
    check("second")
    step.run("b", str, "b")
    check("third")
    return step.run("c", str, "c")


BODIES = pytest.mark.parametrize("body", [copies, copies_sync])


@pytest.fixture
def broken() -> Any:
    BROKEN.clear()
    yield BROKEN
    BROKEN.clear()


def entry(sequence: int, step_id: str, kind: StepKind = StepKind.CLOSURE, output: Any = "x") -> Entry:
    payload = output if isinstance(output, Payload) else VALUES.encode(output)
    return Entry(sequence, StepKey(step_id, 0), kind, payload, START + sequence, 1, f"old.py:{sequence}")


def raised(turn: Turn, type_: str = "LookupError") -> Failure:
    assert isinstance(turn.outcome, Raised)
    assert turn.outcome.failure.type == type_
    assert list(turn.found) == []
    return turn.outcome.failure


@BODIES
@pytest.mark.parametrize(("what", "after"), [("first", 0), ("second", 1)])
def test_an_exception_before_the_end_of_the_journal_is_reported_with_its_place(
    body: Callable[..., Any], what: str, after: int, broken: set[str]
) -> None:
    broken.add(what)
    failure = raised(invocation(body).start([entry(1, "a"), entry(2, "b")]))
    assert failure.message == what
    assert failure.retryable
    assert "test_raising.py" in failure.stack
    assert f"Raised in a replay, after entry {after} of 2 of the run's journal." in failure.stack


@BODIES
def test_an_exception_before_a_planned_step_is_reported_with_its_place(
    body: Callable[..., Any], broken: set[str]
) -> None:
    broken.add("third")
    planned = [Expected(StepKey("c", 0), StepKind.CLOSURE, "old.py:3")]
    failure = raised(invocation(body).start([entry(1, "a"), entry(2, "b")], planned))
    assert failure.message == "third"
    assert "after entry 2 of 2" in failure.stack


@BODIES
def test_an_exception_at_the_end_of_the_journal_happens_for_the_first_time(
    body: Callable[..., Any], broken: set[str]
) -> None:
    broken.add("third")
    failure = raised(invocation(body).start([entry(1, "a"), entry(2, "b")]))
    assert "in a replay" not in failure.stack


@BODIES
def test_a_body_that_is_tried_again_goes_on_from_its_journal(body: Callable[..., Any], broken: set[str]) -> None:
    broken.add("second")
    raised(invocation(body).start([entry(1, "a"), entry(2, "b")]))
    broken.clear()
    again = invocation(body)
    turn = again.start([entry(1, "a"), entry(2, "b")])
    assert [step.key.id for step in turn.found] == ["c"]
    assert isinstance(again.resume([entry(3, "c")]).outcome, Returned)


def test_an_exception_that_no_retry_mends_stays_one_in_a_replay() -> None:
    async def body(ctx: Context, step: Step) -> None:
        raise NonRetriableError("no")

    assert not raised(invocation(body).start([entry(1, "a")]), "NonRetriableError").retryable


def test_a_body_that_raises_after_another_step_was_found_has_diverged_and_says_what_it_raised() -> None:
    async def body(ctx: Context, step: Step) -> None:
        asyncio.get_running_loop().create_task(step.sleep("b", 5))
        await step.run("a", str, "a")
        raise LookupError("gone")

    failure = raised(invocation(body).start([entry(1, "a"), entry(2, "b")]), "NonDeterminismError")
    assert failure.cause is not None
    assert (failure.cause.type, failure.cause.message) == ("LookupError", "gone")


class Keyless:
    """A codec on a machine that lacks the key."""

    def encode(self, payload: Payload) -> Payload:
        return payload

    def decode(self, payload: Payload) -> Payload:
        raise ConnectionError("no key")


def test_a_codec_without_its_key_fails_the_body_for_a_while_only() -> None:
    secret = entry(1, "a", output=Payload(b"?", "binary/encrypted"))
    live = invocation(copies, values=Values(Keyless()))
    failure = raised(live.start([secret, entry(2, "b")]), "StepError")
    assert failure.retryable
    assert failure.cause is not None
    assert failure.cause.type == "ConnectionError"
    assert "after entry 1 of 2" in failure.stack


def test_a_replica_keeps_what_its_body_has_raised_until_it_is_promoted(broken: set[str]) -> None:
    broken.add("second")
    replica: Invocation = invocation(copies)
    replica.lead = False
    replica.start([])
    assert "in a replay" not in raised(replica.resume([entry(1, "a")])).stack
    assert raised(replica.resume([entry(2, "b")])).message == "second"
    assert raised(replica.promote()).message == "second"
