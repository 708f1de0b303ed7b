"""An executor with bugs in its core, which anybody meets who names a poison; started as the executor is."""

from __future__ import annotations

import sys
from typing import Any

from stepwire_core import plans, runs, steps
from stepwire_core.commands import Invoke
from stepwire_executor.__main__ import main
from stepwire_executor.incoming import READ
from stepwire_executor.outgoing import WRITE


def with_bug(module: Any, name: str, concerns: Any) -> None:
    """Have a handler do half of its work, and then raise, where something concerns it."""
    handler = getattr(module, name)

    def buggy(*arguments: Any, **named: Any) -> Any:
        result = handler(*arguments, **named)
        if concerns(*arguments):
            raise ZeroDivisionError(f"a bug in {name}")
        return result

    setattr(module, name, buggy)


with_bug(plans, "plan", lambda turn, loaded, lead, new, *_: new.key.id == "poison")
with_bug(steps, "accept", lambda turn, report: report.key.id == "poisoned result")
with_bug(runs, "create", lambda turn, run, *_: run.event.name == "poison")
with_bug(steps, "issue", lambda turn, loaded, step, *_: step.key.id == "poisoned start")

read_heartbeat = READ["heartbeat"]


def buggy_heartbeat(session_id: str, message: Any, *more: Any) -> Any:
    """Read a Heartbeat, unless it has a poison."""
    if message.blocking_stack == "poison":
        raise ZeroDivisionError("a bug in reading")
    return read_heartbeat(session_id, message, *more)


READ["heartbeat"] = buggy_heartbeat

write_invoke = WRITE[Invoke]


def buggy_invoke(tracing: Any, stream: Any, command: Invoke) -> None:
    """Write an Invoke, unless its event has a poison."""
    if command.run.event.name == "poisoned telling":
        raise ZeroDivisionError("a bug in writing")
    write_invoke(tracing, stream, command)


WRITE[Invoke] = buggy_invoke

if __name__ == "__main__":
    sys.exit(main())
