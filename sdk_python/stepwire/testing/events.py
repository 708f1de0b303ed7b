"""Events in a world: those that the test gives, those that runs send, and the steps that wait for them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stepwire.payload import JSON, Payload
from stepwire.replay.model import Event, SendEvents, TimedOut, WaitForEvent
from stepwire.testing.local import LocalRun, OpenStep
from stepwire.testing.records import SentEvent

if TYPE_CHECKING:
    from stepwire.testing.world import World


def wait(world: World, run: LocalRun, step: OpenStep, target: WaitForEvent) -> None:
    """Wait for an event; those that came since the run began count. Without a timeout it waits for ever."""
    if target.timeout is not None:
        world.after(target.timeout, run, step, lambda: world.finish(run, step, TimedOut()))
    for received_at, event in world.received:
        if received_at >= run.created_at and matches(target, event):
            world.finish(run, step, as_output(event))
            return


def receive(world: World, event: Event) -> None:
    """Take an event, for the runs that wait for it now or will; one whose id was used before is none."""
    if event.id in world.event_ids:
        return
    world.event_ids.add(event.id)
    world.received.append((world.now, event))
    for run in world.runs:
        for step in run.open.values():
            target = step.planned.target
            if isinstance(target, WaitForEvent) and matches(target, event):
                world.finish(run, step, as_output(event))


def send(world: World, run: LocalRun, step: OpenStep, target: SendEvents) -> None:
    """Send events. They start no functions here, but runs that wait for them get them."""
    ids = []
    for number, outgoing in enumerate(target.events):
        event_id = outgoing.id or f"{run.id}/{step.planned.key}/{number}"
        ids.append(event_id)
        run.sent.append(SentEvent(event_id, outgoing.name, world.values.decode(outgoing.data)))
        time = outgoing.time if outgoing.time is not None else world.now
        receive(world, Event(event_id, outgoing.name, outgoing.data, time))
    world.finish(run, step, Payload(json.dumps(ids).encode()))


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
