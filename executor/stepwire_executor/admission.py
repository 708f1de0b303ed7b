"""Whether more events can be taken: what waits in memory for workers, and what waits to be decided, is bounded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import grpc

from stepwire_core.model import Event
from stepwire_core.queued import MOST_RUNS
from stepwire_core.starts import started
from stepwire_executor.ports import EngineHandle
from stepwire_executor.services.errors import RETRY_SECONDS, StatusError


class Admission:
    """Keeps count of the calls that are being decided; what waits for workers is counted in the state."""

    def __init__(self, engine: EngineHandle) -> None:
        self._engine = engine
        self._calls_bytes = 0

    def starts(self, events: Sequence[Event]) -> tuple[int, set[str]]:
        """Count the runs that events would start, and give the apps whose they are."""
        return started(self._engine.state, events, {})

    @contextmanager
    def room_for(self, events: Sequence[Event], starts: int, apps: Collection[str]) -> Iterator[None]:
        """Count events, with what they start, as long as their call lasts. Raises StatusError if there is no room.

        Events that start no runs are taken while there is room for the call itself: runs may wait for them.
        """
        size = sum(len(event.data) for event in events)
        self._check(size, starts, apps)
        self._calls_bytes += size
        try:
            yield
        finally:
            self._calls_bytes -= size

    def _check(self, size: int, starts: int, apps: Collection[str]) -> None:
        state = self._engine.state
        limits = state.limits
        if starts > MOST_RUNS:
            message = (
                f"events: they start {starts:,} runs, but a call starts at most {MOST_RUNS:,}: send them in several"
            )
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, message, "events")
        calls = self._calls_bytes
        for app in sorted(apps):
            if state.queued.has_too_many(app, limits, starts):
                raise full(f"{len(state.queued)} runs wait for a worker, --max-queued-runs={limits.max_queued_runs}")
            if state.queued.has_too_much(app, limits, calls + size):
                raise self._too_large(calls + state.queued.bytes, size)
        # A lone call always finds room, whatever its size: or it would never be taken.
        if calls and calls + size > limits.max_queued_bytes:
            raise self._too_large(calls, size)
        if self._engine.overloaded:
            raise full("more reports of workers are waiting than the executor can decide at once")

    def _too_large(self, waiting: int, size: int) -> StatusError:
        have = f"{waiting} bytes of events and results wait, and {size} more would be over"
        return full(f"{have} --max-queued-bytes={self._engine.state.limits.max_queued_bytes}")


def full(what: str) -> StatusError:
    """Say that there is no room."""
    message = f"the executor is full: {what}; send again in {RETRY_SECONDS} s, add workers, or raise the limit"
    return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_seconds=RETRY_SECONDS)
