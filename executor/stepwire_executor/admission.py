"""Whether more events can be taken: what waits in memory for workers, and what waits to be decided, is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from stepwire_executor.core.model import Event
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.errors import RETRY_SECONDS, StatusError
from stepwire_executor.settings import Room

MOST_RUNS = 50_000
"""Runs that the events of one call may start: they are decided and written in one piece."""


class Admission:
    """Keeps count of the calls that are being decided; what waits for workers is counted in the state."""

    def __init__(self, engine: EngineHandle, room: Room) -> None:
        self._engine = engine
        self._room = room
        self._calls_bytes = 0

    @contextmanager
    def room_for(self, events: Sequence[Event]) -> Iterator[None]:
        """Count events as long as their call lasts. Raises StatusError if there is no room for them.

        Events that start no runs are taken while there is room for the call itself: runs may wait for them.
        """
        size = sum(len(event.data) for event in events)
        self._check(events, size)
        self._calls_bytes += size
        try:
            yield
        finally:
            self._calls_bytes -= size

    def _check(self, events: Sequence[Event], size: int) -> None:
        state, room = self._engine.state, self._room
        waiting = self._calls_bytes
        kinds = {(event.name, event.apps): event for event in events}
        started = {kind: len(state.triggered(event)) for kind, event in kinds.items()}
        starts = sum(started[event.name, event.apps] for event in events)
        if starts > MOST_RUNS:
            message = (
                f"events: they start {starts:,} runs, but a call starts at most {MOST_RUNS:,}: send them in several"
            )
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, message, "events")
        if starts:
            queued = len(state.queued)  # a lone call always finds room here, too
            if queued >= room.max_queued_runs or (queued and queued + starts > room.max_queued_runs):
                raise full(f"{queued} runs wait for a worker, --max-queued-runs={room.max_queued_runs}")
            waiting += state.queued.bytes
        # A lone call always finds room, whatever its size: or it would never be taken.
        if waiting and waiting + size > room.max_queued_bytes:
            have = f"{waiting} bytes of events wait, and {size} more would be over"
            raise full(f"{have} --max-queued-bytes={room.max_queued_bytes}")
        if self._engine.overloaded:
            raise full("more reports of workers are waiting than the executor can decide at once")


def full(what: str) -> StatusError:
    """Say that there is no room."""
    message = f"the executor is full: {what}; send again in {RETRY_SECONDS} s, add workers, or raise the limit"
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_seconds=RETRY_SECONDS)
