"""Words for a body that does other things than its journal holds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from stepwire.errors import NonDeterminismError
from stepwire.replay.model import Entry, Expected, Planned

SHOWN = 5
"""Steps that are shown of those which the body has found."""
REMEDY = (
    "A function must start the same steps in every replay: take clocks, random numbers and I/O into steps, and give "
    "the app a new version after changing the ids or the order of steps, so that runs go on where they began"
)


def diverged(
    run_id: str,
    function_id: str,
    recorded: Entry | Expected,
    same_key: Planned | None,
    near: Iterable[Planned],
    ended: bool,
) -> NonDeterminismError:
    """Show both sides with their source lines.

    `same_key` is what the body has found under the recorded step's key, if anything; `near` are those that it awaits.
    """
    if isinstance(recorded, Entry):
        place = f"entry {recorded.sequence} of the journal is the result of the {_named(recorded)}"
    else:
        place = f"the journal ends with the {_named(recorded)} unfinished"
    if same_key is not None:
        found = f"found the {_named(same_key)} under that key"
    else:
        shown = [_named(each) for each in islice(near, SHOWN + 1)]
        more = ", …" if len(shown) > SHOWN else ""
        rest = f"awaits the {', the '.join(shown[:SHOWN])}{more}" if shown else "awaits no step"
        found = f"has not found it and {'has ended' if ended else rest}"
    return NonDeterminismError(f"run {run_id}: {place}, but the body of {function_id!r} {found}. {REMEDY}")


def _named(step: Entry | Expected | Planned) -> str:
    kind = step.kind.name.lower().replace("_", " ")
    return f"{kind} step {str(step.key)!r} at {step.source or 'an unknown line'}"
