"""Words for a body that does other things than its journal holds. Ids and names are cut to what people can read."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from stepwire.errors import NonDeterminismError
from stepwire.replay.model import Entry, Expected, Planned, StepKey, StepKind, target_name

SHOWN = 5
"""Steps that are shown of those which the body has found."""
LONGEST_SHOWN = 100
"""Characters that are shown of a step's id, of what identifies its target, and of its source."""
REMEDY = (
    "A function must start the same steps in every replay: take clocks, random numbers and I/O into steps, and give "
    "the app a new version after changing the ids or the order of steps, so that runs go on where they began"
)


def is_same(recorded: Entry | Expected, planned: Planned, app: str) -> bool:
    """Whether a step that the body has found is the one that was recorded under its key; `app` is the run's."""
    if planned.kind is not recorded.kind:
        return False
    return not recorded.target or recorded.target == target_name(planned.target, app)


def diverged(
    run_id: str,
    app: str,
    function_id: str,
    recorded: Entry | Expected,
    same_key: Planned | None,
    near: Iterable[Planned],
    ended: bool,
) -> NonDeterminismError:
    """Show both sides with their source lines.

    `same_key` is what the body has found under the recorded step's key, if anything; `near` are those that it awaits.
    """
    name = named(recorded.key, recorded.kind, recorded.target, recorded.source)
    if isinstance(recorded, Entry):
        place = f"entry {recorded.sequence} of the journal is the result of the {name}"
    else:
        place = f"the journal ends with the {name} unfinished"
    if same_key is not None:
        found = f"found the {_planned(same_key, app)} under that key"
    else:
        found = f"has not found it and {_rest(near, app, ended)}"
    return NonDeterminismError(f"run {run_id}: {place}, but the body of {function_id!r} {found}. {REMEDY}")


def not_found(
    run_id: str, app: str, function_id: str, key: StepKey, near: Iterable[Planned], ended: bool
) -> NonDeterminismError:
    """Show what the body has found here instead of a step that it has found in another worker."""
    found = f"has not found step {_cut(str(key))!r}, which it is to run, and {_rest(near, app, ended)}"
    return NonDeterminismError(f"run {run_id}: in this worker the body of {function_id!r} {found}. {REMEDY}")


def named(key: StepKey, kind: StepKind, target: str, source: str) -> str:
    """Name a step for people: its kind, key, target and source line."""
    words = kind.name.lower().replace("_", " ")
    of = f" of {_cut(target)!r}" if target and target != key.id else ""
    return f"{words} step {_cut(str(key))!r}{of} at {_cut(source) or 'an unknown line'}"


def _planned(step: Planned, app: str) -> str:
    return named(step.key, step.kind, target_name(step.target, app), step.source)


def _rest(near: Iterable[Planned], app: str, ended: bool) -> str:
    if ended:
        return "has ended"
    shown = [_planned(each, app) for each in islice(near, SHOWN + 1)]
    more = ", …" if len(shown) > SHOWN else ""
    return f"awaits the {', the '.join(shown[:SHOWN])}{more}" if shown else "awaits no step"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"
