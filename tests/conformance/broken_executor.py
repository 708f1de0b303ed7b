"""The executor with one bug in it: `python broken_executor.py BUG`. The kit must find each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

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


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug for bug in (leaves_heartbeats_unanswered, knows_no_sessions, counts_slots_double)
}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    sys.exit(main())
