"""Words for a body that did other things than before. Ids and names are cut to what people can read."""

from __future__ import annotations

from stepwire_core.inputs import StepPlanned
from stepwire_core.model import Failure, Step, StepKey, StepKind

DIVERGED = "NonDeterminismError"
LONGEST_SHOWN = 100
"""Characters that are shown of a step's id, of its target, and of its source."""


def found_another(run_id: str, known: Step, new: StepPlanned, target: str) -> Failure:
    """Describe a body that found another step under a known key."""
    recorded = named(known.kind, known.key, known.target, known.source)
    found_now = named(new.kind, new.key, target, new.source)
    message = f"run {run_id} has planned the {recorded}, but its body has now found the {found_now} under that key"
    advice = "a function must do the same in every replay; start a new run after changing its code"
    return Failure(DIVERGED, f"{message}: {advice}", retryable=False)


def named(kind: StepKind, key: StepKey, target: str, source: str) -> str:
    """Name a step for people: its kind, key, target and source line."""
    words = kind.name.lower().replace("_", " ")
    of = f" of '{cut(target)}'" if target and target != key.id else ""
    return f"{words} step '{cut(str(key))}'{of} at {cut(source) or 'an unknown line'}"


def cut(text: str) -> str:
    """Cut a text to what people can read."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"
