"""Where waits get their events: those that are told of, and those that a look-up finds.

While events are looked up for waits of a run, nothing else of that name is given to the run: what comes meanwhile is
newer, and is looked up afterwards. So a run's waits get events in the order of their positions, whoever finds them.
"""

from __future__ import annotations

from collections import Counter

from stepwire_core import steps
from stepwire_core.commands import FindEvents, Wanted
from stepwire_core.inputs import EventMatched, EventsLookedUp, FoundEvent
from stepwire_core.state import LoadedRun
from stepwire_core.turn import Turn
from stepwire_core.waits import Lookup, Waits, criterion

MARKED_AFTER = 1000
"""Events after which it is written down up to which one all waits were told: so many are told again after a crash."""


def on_event_matched(turn: Turn, matched: EventMatched) -> None:
    """Give an event to the wait of a run that it is for; later, if events are being looked up."""
    loaded = turn.state.runs.get(matched.run_id)
    if loaded is None:
        return
    waits = loaded.known_waits()
    lookup = waits.lookups.get(matched.event_name)
    if lookup is None:
        give(turn, loaded, waits, matched.event_name, matched.event)
    else:
        lookup.held = True


def on_events_looked_up(turn: Turn, found: EventsLookedUp) -> None:
    """Give out what a look-up has found, and go on with it or end it."""
    state = turn.state
    loaded = state.runs.get(found.run_id)
    lookup = loaded.waits.lookups.get(found.event_name) if loaded is not None and loaded.waits is not None else None
    if loaded is None or loaded.waits is None or lookup is None or lookup.number != found.number:
        return
    waits = loaded.waits
    for event in found.events:
        give(turn, loaded, waits, found.event_name, event)
        if loaded.run.state.ended:
            return
    left = {number: step for number, step in lookup.seeking.items() if waits.is_open(step)}
    for step in left.values():
        waits.hear(step, found.looked_to)
    lookup.number, lookup.seeking = 0, {}
    if found.more:
        lookup.next = {**left, **lookup.next}
    else:
        for number, step in left.items():
            if number in lookup.overdue:
                steps.record(turn, loaded, step, timed_out=True)
        if lookup.held:  # it may be for a wait that was not looked up for
            lookup.next = {**waits.open(found.event_name), **lookup.next}
            lookup.held = False
    state.seeking[found.run_id, found.event_name] = None
    state.idle_candidates[found.run_id] = None


def give(turn: Turn, loaded: LoadedRun, waits: Waits, name: str, event: FoundEvent) -> None:
    """End the wait that an event is for, unless a wait of the run has had it."""
    if event.position in waits.taken or event.position <= waits.since:
        return
    step = waits.first(name, event.matches)
    if step is not None:
        waits.take(step, event.position)
        step.event_position = event.position
        steps.record(turn, loaded, step, output=event.output)


def seek(turn: Turn) -> None:
    """Have events looked up for waits that may have missed some, a look-up for each run and name at a time."""
    state = turn.state
    for run_id, name in state.seeking:
        loaded = state.runs.get(run_id)
        lookup = loaded.waits.lookups.get(name) if loaded is not None and loaded.waits is not None else None
        if loaded is not None and lookup is not None and not lookup.number:
            begin(turn, loaded, name, lookup)
    state.seeking.clear()


def begin(turn: Turn, loaded: LoadedRun, name: str, lookup: Lookup) -> None:
    """Begin a look-up for the waits of a run that still need one; without any it is over."""
    waits = loaded.known_waits()
    lookup.seeking = {number: step for number, step in sorted(lookup.next.items()) if waits.is_open(step)}
    lookup.next = {}
    if not lookup.seeking and lookup.held:
        lookup.seeking = waits.open(name)
        lookup.held = False
    if not lookup.seeking:
        del waits.lookups[name]
        return
    lookup.number = turn.fence()
    counts = Counter((criterion(step), waits.after(step)) for step in lookup.seeking.values())
    wanted = [Wanted(*which, after, count) for (which, after), count in counts.items()]
    run = loaded.run
    turn.send(FindEvents(run.id, run.app, name, lookup.number, wanted, waits.paths(name), waits.taken))


def mark(turn: Turn) -> None:
    """Write down now and then up to which event all waits were told; beside other rows, never for its own sake."""
    state = turn.state
    if state.told >= state.marked + MARKED_AFTER and turn.decision.writes:
        state.marked = turn.decision.writes.told = state.told
