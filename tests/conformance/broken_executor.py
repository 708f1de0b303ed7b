"""The executor with one bug in it: `python broken_executor.py BUG`. The kit must find each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from stepwire_core import runs
from stepwire_core.waits import Waits
from stepwire_executor import connections
from stepwire_executor.__main__ import main
from stepwire_executor.connections import Connections


def leaves_heartbeats_unanswered() -> None:
    """A heartbeat gets no answer."""
    connections.answer = lambda stream: None


def knows_no_sessions() -> None:
    """Every worker that comes back is taken for a new one."""
    hello = Connections._hello

    def forget(self: Connections, stream: Any, message: Any, field: str) -> None:
        message.ClearField("resume_session")
        hello(self, stream, message, field)

    Connections._hello = forget  # type: ignore[method-assign]


def counts_slots_double() -> None:
    """A worker gets twice as much as it has room for."""
    hello = Connections._hello

    def double(self: Connections, stream: Any, message: Any, field: str) -> None:
        message.slots *= 2
        hello(self, stream, message, field)

    Connections._hello = double  # type: ignore[method-assign]


def gives_an_event_twice() -> None:
    """Waits forget which events they had."""
    Waits.take = lambda self, step, position: None  # type: ignore[method-assign]


def takes_two_events_under_one_id() -> None:
    """Nobody compares an event with another one of its call."""
    real = runs.conflicting

    def conflicting(state: Any, events: Any, known: Any) -> Any:
        conflict = real(state, events, known)
        return None if conflict is not None and conflict.among else conflict

    runs.conflicting = conflicting


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (
        leaves_heartbeats_unanswered,
        knows_no_sessions,
        counts_slots_double,
        gives_an_event_twice,
        takes_two_events_under_one_id,
    )
}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    sys.exit(main())
