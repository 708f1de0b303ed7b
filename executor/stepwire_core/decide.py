"""The core's one entrance: a batch of inputs in, a decision out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from stepwire_core import (
    containment,
    matches,
    placement,
    plans,
    registrations,
    replicas,
    residence,
    runs,
    starts,
    steps,
    timers,
    workers,
)
from stepwire_core import inputs as i
from stepwire_core.commands import Answer, Decision
from stepwire_core.model import EventKey, Now
from stepwire_core.state import State
from stepwire_core.turn import Turn


def decide(state: State, batch: Iterable[i.Input], now: Now, decision: Decision) -> None:
    """Decide a batch in one piece; see `pieces`."""
    for _ in pieces(state, batch, now, decision):
        pass


def pieces(state: State, batch: Iterable[i.Input], now: Now, decision: Decision) -> Iterator[int]:
    """Apply inputs in their order, then whatever time has brought, and add what to write and to send to a decision.

    It stops between small pieces of work, so that others can have a turn; nobody else may change the state meanwhile.
    It gives how large each piece was: how many inputs, events, steps or runs.
    `state` is changed, and goes ahead of the store by the decisions that are not `sent` yet. If the writes of one can't
    be committed it must be thrown away and loaded anew. The same holds if this raises, which it does only when it can't
    be told whom that concerns; see `containment`.
    """
    turn = Turn(state, now, decision)
    decision.decided_at = now.mono
    events, commands, early = decision.writes.events, decision.commands, decision.early
    for input_ in batch:
        begun = len(events), len(commands), len(early)
        try:
            done = HANDLERS[type(input_)](turn, input_)
            if done is not None:
                yield from done
        except Exception as error:
            containment.refuse(turn, input_, error, begun)
        yield len(input_.steps) if type(input_) is i.StepsFound else 1
    for timer in state.timers.take_due(now):
        yield 1
        try:
            timers.strike(turn, timer)
        except Exception as error:
            containment.give_up(turn, timer, error)
    for phase in (starts.go_on, placement.assign, starts.come_back, matches.seek, residence.unload_idle_runs):
        try:
            phase(turn)
        except Exception as error:
            yield from containment.do_again(turn, phase, error)
    matches.mark(turn)


def on_executor_draining(turn: Turn, _: i.ExecutorDraining) -> None:
    """Hand out nothing new any more."""
    turn.state.draining = True


def on_tick(turn: Turn, tick: i.Tick) -> None:
    """Answer whoever wants to know when all that was submitted before is decided."""
    if tick.reply is not None:
        turn.send(Answer(tick.reply, None))


def on_sleepers_woken(turn: Turn, woken: i.SleepersWoken) -> None:
    """Do nothing: the runs have been loaded, and what is due strikes."""


Handler = Callable[[Turn, Any], Iterator[int] | None]
HANDLERS: dict[type[i.Input], Handler] = {
    i.ChildEnded: steps.on_child_ended,
    i.Draining: workers.on_draining,
    i.EventMatched: matches.on_event_matched,
    i.EventsLookedUp: matches.on_events_looked_up,
    i.EventsSent: runs.on_events_sent,
    i.Evicted: workers.on_evicted,
    i.ExecutorDraining: on_executor_draining,
    i.FunctionsChecked: registrations.on_functions_checked,
    i.Heartbeat: workers.on_heartbeat,
    i.Hello: workers.on_hello,
    i.NotWritten: containment.on_not_written,
    i.RunCancelled: runs.on_run_cancelled,
    i.RunFailed: replicas.on_run_failed,
    i.RunFinished: runs.on_run_finished,
    i.RunsLoaded: residence.on_runs_loaded,
    i.SendDue: starts.on_send_due,
    i.SleepersWoken: on_sleepers_woken,
    i.StepCancelled: steps.on_step_cancelled,
    i.StepFailed: steps.on_step_failed,
    i.StepRun: steps.on_step_run,
    i.StepsFound: plans.on_steps_found,
    i.StreamLost: workers.on_stream_lost,
    i.Tick: on_tick,
}
"""What applies each input. A handler of what may be large stops between its pieces, and yields how large each was."""

TOUCHED: dict[type[i.Input], Callable[[Any], Sequence[str]]] = {
    i.ChildEnded: lambda ended: [ended.run_id],
    i.EventMatched: lambda matched: [matched.run_id],
    i.Hello: lambda hello: [attempt.run_id for attempt in hello.in_hand],
    i.RunCancelled: lambda cancelled: [cancelled.run_id],
    i.SleepersWoken: lambda woken: woken.run_ids,
}
SENDS = i.EventsSent, i.SendDue, i.StepsFound
"""Inputs that send events."""


def touched_runs(batch: Iterable[i.Input]) -> set[str]:
    """Name the runs that must be in memory, if they have not ended, for a batch to be decided."""
    return {run_id for input_ in batch if type(input_) in TOUCHED for run_id in TOUCHED[type(input_)](input_)}


def sent_events(batch: Iterable[i.Input]) -> list[EventKey]:
    """Name the events that a batch sends: it must be known which of them have been taken before."""
    sent: list[EventKey] = []
    for input_ in batch:
        if type(input_) is i.StepsFound:
            sent += [event.key for step in input_.steps if step.events for event in step.events]
        elif type(input_) is i.EventsSent or type(input_) is i.SendDue:
            sent += [event.key for event in input_.events]
    return sent
