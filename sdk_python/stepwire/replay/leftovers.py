"""What a body that has returned leaves behind: steps that were never awaited, and unfinished ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from stepwire.errors import InvalidStepError
from stepwire.replay.model import Planned, RunInfo

_logger = logging.getLogger("stepwire.function")
MOST_LINES = 10_000
_told: set[tuple[str, str]] = set()
"""Functions and lines that were told already: every run does the same."""


def never_awaited(function_id: str, calls: Sequence[tuple[int, str, str]]) -> InvalidStepError:
    """Make the error of a body that has dropped calls of steps without awaiting them: their numbers, ids and lines."""
    _, step_id, source = min(calls)
    more = f" (and {len(calls) - 1} more)" if len(calls) > 1 else ""
    return InvalidStepError(
        f"the body of {function_id!r} made step {step_id!r} at {source} but never awaited it{more}, so that it never "
        "started: await the call, or close() it if it isn't wanted"
    )


def tell_cut_off(run: RunInfo, steps: Sequence[Planned], places: Sequence[str]) -> None:
    """Log unfinished steps that end with their body, and places where tasks wait for a timer; once for each line."""
    for step in steps:
        where = step.source or "at an unknown line"
        _tell(run, step.source or step.key.id, f"step '{step.key}' ({where})", "it is given up, and code")
    for place in places:
        _tell(run, place, f"a task that waits at {place}", "code")


def _tell(run: RunInfo, line: str, what: str, loss: str) -> None:
    if (run.function_id, line) in _told or len(_told) >= MOST_LINES:
        return
    _told.add((run.function_id, line))
    _logger.warning(
        "run %s: %s of function %r was unfinished when the body returned: %s that awaits it never goes on, so that the "
        "steps after it are never started. Await its task in the body, or cancel it if it isn't wanted, as the loser "
        "of a race (told once for each line)",
        run.run_id,
        what,
        run.function_id,
        loss,
    )
