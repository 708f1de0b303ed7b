"""Events in a world: those that the test gives, those that runs send, and the steps that wait for them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stepwire.errors import Failure
from stepwire.payload import JSON, Payload
from stepwire.replay.model import Event, SendEvents, TimedOut, WaitForEvent
from stepwire.testing.local import LocalRun, OpenStep
from stepwire.testing.records import SentEvent

if TYPE_CHECKING:
    from stepwire.testing.world import World


def wait(world: World, run: LocalRun, step: OpenStep, target: WaitForEvent) -> None:
    """Wait for an event: the first since the run began that fits and that no other wait of the run was given.

    Without a timeout it waits for ever.
    """
    if target.timeout is not None:
        world.after(target.timeout, run, step, lambda: time_out(world, run, step))
    for position in range(run.since, len(world.received)):
        if position not in run.given and matches(target, world.received[position]):
            give(world, run, step, position)
            return


def time_out(world: World, run: LocalRun, step: OpenStep) -> None:
    """End a wait without an event."""
    step.over = True
    world.finish(run, step, TimedOut())


def receive(world: World, event: Event) -> None:
    """Take an event, for the runs that wait for it now or will; one whose id was used before is none."""
    if event.id in world.event_ids:
        return
    world.event_ids[event.id] = event
    world.received.append(event)
    for run in world.runs:
        if run.ended is None:
            hand_out(world, run, len(world.received) - 1)


def hand_out(world: World, run: LocalRun, position: int) -> None:
    """Give an event to the wait of a run that it is for: of those that it fits, the one that was started first."""
    for step in run.open.values():
        target = step.planned.target
        if isinstance(target, WaitForEvent) and not step.over and matches(target, world.received[position]):
            give(world, run, step, position)
            return


def give(world: World, run: LocalRun, step: OpenStep, position: int) -> None:
    """End a wait with an event, which no other wait of the run gets; its time can't run out any more."""
    run.given[position] = step
    step.over = True
    step.turn += 1
    world.finish(run, step, as_output(world.received[position]))


def release(world: World, run: LocalRun, step: OpenStep) -> None:
    """Let others have the event of a wait that its body gave up before the event was recorded."""
    for position, holder in list(run.given.items()):
        if holder is step:
            del run.given[position]
            hand_out(world, run, position)


def send(world: World, run: LocalRun, step: OpenStep, target: SendEvents) -> None:
    """Send events. They start no functions here, but runs that wait for them get them."""
    events = []
    for number, outgoing in enumerate(target.events):
        event_id = outgoing.id or f"{run.id}/{step.planned.key}/{number}"
        time = outgoing.time if outgoing.time is not None else world.now
        events.append(Event(event_id, outgoing.name, outgoing.data, time))
    conflict = conflicting(events, world.event_ids)
    if conflict is not None:
        message = f"step {step.planned.key} sends nothing: {conflict}: give each event its own id"
        world.finish(run, step, Failure("EventConflictError", message, retryable=False))
        return
    for event in events:
        run.sent.append(SentEvent(event.id, event.name, world.values.decode(event.data)))
        receive(world, event)
    world.finish(run, step, Payload(json.dumps([event.id for event in events]).encode()))


def conflicting(events: Sequence[Event], known: Mapping[str, Event]) -> str | None:
    """Say which of these events has an id that was used for another one, before or among themselves."""
    among: dict[str, Event] = {}
    for event in events:
        before = known.get(event.id)
        other = before or among.setdefault(event.id, event)
        if (other.name, other.data) != (event.name, event.data):
            used = "is given twice, to different events" if before is None else "was used within 24 h for another event"
            return f"event id {event.id!r} {used}"
    return None


def matches(target: WaitForEvent, event: Event) -> bool:
    """Whether an event is one that a step waits for. Data that is not plain JSON only matches waits without fields."""
    if event.name != target.event_name:
        return False
    if target.fields and event.data.encoding not in ("", JSON):
        return False
    data = json.loads(event.data.data or b"null") if target.fields else None
    return all(field_equals(data, path, json.loads(text)) for path, text in target.fields.items())


def field_equals(data: Any, path: str, wanted: Any) -> bool:
    """Compare the field at a dotted path with a string, number, boolean or null; 1 equals 1.0, but not true."""
    for name in path.split("."):
        if not isinstance(data, dict) or name not in data:
            return False
        data = data[name]
    return isinstance(data, bool) == isinstance(wanted, bool) and bool(data == wanted)


def as_output(event: Event) -> Payload:
    """Give an event as the result of a step that waited for it: JSON with its id, name, data and time."""
    head = {"id": event.id, "name": event.name, "time": datetime.fromtimestamp(event.time, UTC).isoformat()}
    if event.data.encoding in ("", JSON):
        return Payload(json.dumps(head)[:-1].encode() + b', "data": ' + (event.data.data or b"null") + b"}")
    encoded = base64.b64encode(event.data.data).decode()
    opaque = {"encoding": event.data.encoding, "metadata": dict(event.data.metadata), "data": encoded}
    return Payload(json.dumps({**head, "payload": opaque}).encode())
