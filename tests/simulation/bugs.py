"""Known bugs, to be put back on purpose: a simulation that does not find them is worth nothing.

Each is a patch of the product, with the number of seeds within which it must be found. Rare ones begin near the seed
that finds them today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from stepwire.replay.invocation import Invocation
from stepwire.worker.outbox import Outbox
from stepwire_core import decide, eager, placement, residence, starts, steps, workers
from stepwire_core.commands import CancelAttempt, Decision, FindEvents, FollowUp, Recorded, Welcomed
from stepwire_core.inputs import EventsLookedUp
from stepwire_core.model import StepKind, StepState
from stepwire_core.state import State
from stepwire_core.turn import Turn
from stepwire_core.turns import Turns
from stepwire_core.waits import Waits
from stepwire_executor.connections import Connections
from stepwire_executor.engine import Engine
from stepwire_executor.searches import Searches
from tests.core.world import put_in


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug, and the number of seeds that are enough to find it."""

    name: str
    put_back: Callable[[pytest.MonkeyPatch], None]
    seeds: int
    first: int = 0


def no_fence_check(patch: pytest.MonkeyPatch) -> None:
    """Any report of a running step is taken, whichever attempt it is of."""

    def accept(turn: Turn, report: Any) -> Any:
        at = turn.state.step(report.run_id, report.key)
        if at is not None and at[1].state is StepState.RUNNING and at[1].session in turn.state.sessions:
            return at
        return real(turn, report)

    real = steps.accept
    patch.setattr(steps, "accept", accept)


def duplicates_applied(patch: pytest.MonkeyPatch) -> None:
    """A result that comes again is recorded again."""

    def accept(turn: Turn, report: Any) -> Any:
        at = turn.state.step(report.run_id, report.key)
        if at is not None and at[1].sequence and at[1].fence == report.fence and at[1].session in turn.state.sessions:
            at[1].state = StepState.RUNNING
            at[0].run.open[at[1].key] = at[1]
            return at
        return real(turn, report)

    real = steps.accept
    patch.setattr(steps, "accept", accept)


def acknowledged_before_commit(patch: pytest.MonkeyPatch) -> None:
    """What a decision wants sent is sent before it is durable."""

    async def close_decision(self: Engine) -> None:
        decision = self._open
        assert decision is not None
        await self._act(decision)
        decision.commands.clear()
        decision.observations.clear()
        await real(self)

    real = Engine._close_decision
    patch.setattr(Engine, "_close_decision", close_decision)


def no_recovery_of_follow_ups(patch: pytest.MonkeyPatch) -> None:
    """A start does not look for what a crash has cut off."""

    async def recover(self: Searches) -> None:
        return

    patch.setattr(Searches, "recover", recover)


def results_forgotten_with_the_stream(patch: pytest.MonkeyPatch) -> None:
    """A worker does not send its results again."""

    def open_(self: Outbox, unwanted: Any = ()) -> int:
        number = real(self, unwanted)
        self._queue.clear()
        return number

    real = Outbox.open
    patch.setattr(Outbox, "open", open_)


def hello_of_the_dead(patch: pytest.MonkeyPatch) -> None:
    """A session begins though its stream has ended meanwhile. Found by seed 471 of the first version."""

    def welcome(self: Connections, command: Welcomed) -> None:
        streams, self._streams = self._streams, {command.stream: None}  # type: ignore[dict-item]
        try:
            real(self, command)
        finally:
            self._streams = streams

    real = Connections._welcome
    patch.setattr(Connections, "_welcome", welcome)


def timers_not_loaded(patch: pytest.MonkeyPatch) -> None:
    """A run that comes back from the store has lost the timers of its retries."""

    def load(turn: Turn, run: Any) -> None:
        state = turn.state
        after, state.after = state.after, lambda *arguments, **more: None  # type: ignore[method-assign]
        try:
            real(turn, run)
        finally:
            state.after = after  # type: ignore[method-assign]

    real = residence.load
    patch.setattr(residence, "load", load)


def lost_workers_keep_their_attempts(patch: pytest.MonkeyPatch) -> None:
    """Nobody gives the attempts of a lost worker to another."""

    def lose(turn: Turn, session: Any) -> None:
        session.attempts.clear()
        real(turn, session)

    real = workers.lose
    patch.setattr(workers, "lose", lose)


def cancelled_steps_run_on(patch: pytest.MonkeyPatch) -> None:
    """The worker is not told that an attempt is to stop."""

    def stop_attempt(turn: Turn, *more: Any, **named: Any) -> None:
        decision = turn.decision
        before = len(decision.commands)
        real(turn, *more, **named)
        decision.commands[before:] = [
            each for each in decision.commands[before:] if not isinstance(each, CancelAttempt)
        ]

    real = steps.stop_attempt
    patch.setattr(steps, "stop_attempt", stop_attempt)


def reports_not_answered(patch: pytest.MonkeyPatch) -> None:
    """A report that is taken is not answered."""

    def succeeded(turn: Turn, report: Any) -> None:
        decision = turn.decision
        real(turn, report)
        decision.commands[:] = [each for each in decision.commands if not isinstance(each, Recorded)]

    real = steps.on_step_run
    put_in(patch, steps, "on_step_run", succeeded)


def parents_not_told(patch: pytest.MonkeyPatch) -> None:
    """The end of a child is told its parent only by a recovery."""

    async def act(self: Engine, decision: Decision) -> None:
        decision.commands[:] = [each for each in decision.commands if not isinstance(each, FollowUp)]
        await real(self, decision)

    real = Engine._act
    patch.setattr(Engine, "_act", act)


def events_given_twice(patch: pytest.MonkeyPatch) -> None:
    """Waits forget which events they had."""
    patch.setattr(Waits, "take", lambda self, step, position: None)


def events_before_a_wait_lost(patch: pytest.MonkeyPatch) -> None:
    """A new wait looks for nothing that has come before it."""

    async def find_events(self: Searches, wanted: FindEvents) -> None:
        found = EventsLookedUp(wanted.run_id, wanted.event_name, wanted.number, [], 1 << 40, more=False)
        self._engine.submit(found)

    patch.setattr(Searches, "find_events", find_events)


def journal_out_of_order(patch: pytest.MonkeyPatch) -> None:
    """A body that begins anew is given its journal in the order of discovery."""

    def restore(run: Any, stored: Any) -> Any:
        real(run, stored)
        run.journal.sort(key=lambda step: step.number)
        for number, step in enumerate(run.journal, 1):
            step.sequence = number
        return run

    from stepwire_executor.store import memory

    real = memory.restore
    patch.setattr(memory, "restore", restore)


def too_many_attempts(patch: pytest.MonkeyPatch) -> None:
    """A worker is given one attempt more than it has slots."""
    from stepwire_core.state import Session

    real: Any = Session.free
    patch.setattr(Session, "free", property(lambda self: real.fget(self) + 1))


def wakes_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Nobody remembers when the next sleeping run is due."""

    async def next_wake(*_: Any) -> None:
        return None

    from tests.simulation.disk import MountedStore

    patch.setattr(MountedStore, "next_wake", next_wake, raising=False)


def leads_not_replaced(patch: pytest.MonkeyPatch) -> None:
    """A run whose lead has gone gets no other."""
    patch.setattr(workers, "requeue", lambda state, loaded: None)


def sent_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    """Results reach a body while they may still be lost."""

    def pieces(state: State, batch: Any, now: Any, decision: Decision) -> Iterator[None]:
        yield from real(state, batch, now, decision)
        decision.early, decision.commands = [*decision.early, *decision.commands], []

    real = decide.pieces
    from stepwire_executor import engine

    patch.setattr(engine, "pieces", pieces)


def raised_taken_for_diverged(patch: pytest.MonkeyPatch) -> None:
    """What a body raises before the end of its journal is lost: it counts as a divergence."""

    def diverge(self: Invocation, recorded: Any, found: Any) -> None:
        outcome, self._outcome = self._outcome, None
        real(self, recorded, found)
        if self._outcome is None:
            self._outcome = outcome

    real = Invocation._diverge
    patch.setattr(Invocation, "_diverge", diverge)


def permissions_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What a lead may have begun is forgotten with its stream."""
    patch.setattr(eager, "note", lambda state, session, invocation: None)


def drains_end_with_their_stream(patch: pytest.MonkeyPatch) -> None:
    """A draining worker's attempts are given to others when its stream is lost."""

    def stream_lost(turn: Turn, lost: Any) -> None:
        session = turn.state.sessions.get(lost.session_id)
        if session is not None and session.stream == lost.stream and session.draining:
            workers.give_back_all(turn, session)
        real(turn, lost)

    real = workers.on_stream_lost
    put_in(patch, workers, "on_stream_lost", stream_lost)


def turns_begin_anew(patch: pytest.MonkeyPatch) -> None:
    """Each decision hands out slots from the same function on."""
    patch.setattr(Turns, "had", lambda self, pool: None)


def leaves_before_steps(patch: pytest.MonkeyPatch) -> None:
    """Bodies get leave to run their next lone step before those that are ready get a slot."""

    def assign(turn: Turn) -> None:
        placement.deliver(turn)
        real(turn)

    real = placement.assign
    patch.setattr(placement, "assign", assign)


def waiting_bodies_given_up(patch: pytest.MonkeyPatch) -> None:
    """A run that waits leaves the memory, and its worker, at once."""

    def settle(turn: Turn) -> None:
        real(turn)
        for run_id in turn.state.idle:
            turn.state.idle[run_id] = float("-inf")
        residence.unload_idle(turn)

    real = residence.unload_idle_runs
    patch.setattr(residence, "unload_idle_runs", settle)


def waiting_sends_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Whoever waited to send events when the executor died waits for ever."""

    def load(turn: Turn, loaded: Any, step: Any) -> None:
        if step.kind is not StepKind.SEND_EVENTS:
            real(turn, loaded, step)

    real = starts.load
    patch.setattr(starts, "load", load)


BUGS = [
    Bug("waiting sends forgotten", waiting_sends_forgotten, 1_000, first=3_000),
    Bug("permissions forgotten", permissions_forgotten, 300),
    Bug("drains end with their stream", drains_end_with_their_stream, 600),
    Bug("turns begin anew", turns_begin_anew, 400, first=440),
    Bug("leaves before steps", leaves_before_steps, 400, first=240),
    Bug("waiting bodies given up", waiting_bodies_given_up, 200, first=150),
    Bug("no fence check", no_fence_check, 50, first=16_940),
    Bug("too many attempts", too_many_attempts, 100),
    Bug("cancelled steps run on", cancelled_steps_run_on, 300),
    Bug("reports not answered", reports_not_answered, 20),
    Bug("journal out of order", journal_out_of_order, 100),
    Bug("duplicates applied", duplicates_applied, 400),
    Bug("acknowledged before commit", acknowledged_before_commit, 100),
    Bug("sent before its commit", sent_before_its_commit, 100),
    Bug("no recovery of follow-ups", no_recovery_of_follow_ups, 1_500, first=350),
    Bug("results forgotten with the stream", results_forgotten_with_the_stream, 200),
    Bug("hello of the dead", hello_of_the_dead, 2_000, first=1_000),
    Bug("timers not loaded", timers_not_loaded, 200),
    Bug("lost workers keep their attempts", lost_workers_keep_their_attempts, 500),
    Bug("parents not told", parents_not_told, 100),
    Bug("wakes forgotten", wakes_forgotten, 200, first=600),
    Bug("events given twice", events_given_twice, 40),
    Bug("events before a wait lost", events_before_a_wait_lost, 40),
    Bug("leads not replaced", leads_not_replaced, 100),
    Bug("raised taken for diverged", raised_taken_for_diverged, 300),
]
