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


def tell_given_up(run: RunInfo, steps: Sequence[Planned]) -> None:
    """Log unfinished steps that end with their body, once for each line."""
    for step in steps:
        line = (run.function_id, step.source or step.key.id)
        if line not in _told and len(_told) < MOST_LINES:
            _told.add(line)
            _logger.info(
                "run %s: step '%s' (%s) of function %r was unfinished when the body returned, and is given up: right "
                "for the loser of a race; await it, or its task, if its work must be done (told once for each line)",
                run.run_id,
                step.key,
                step.source or "at an unknown line",
                run.function_id,
            )
