"""What it means that a step was started outside of its function's body: the step's code that did it fails with that."""

from __future__ import annotations

from collections.abc import Callable

from stepwire.attempt import attempt_here
from stepwire.errors import NestedStepError

REMEDY = "start steps in the function's body only, one after the other or side by side"


def started_outside(step_id: str, tell: Callable[[NestedStepError], None] | None) -> NestedStepError:
    """Make the error for the code that has started a step, and have the attempt that it belongs to fail with it.

    The code may catch the error; its attempt fails all the same. Where it runs in a thread of its own, no context says
    which attempt it belongs to: then `tell` is told, to find it.
    """
    attempt = attempt_here()
    if attempt is not None:
        error = NestedStepError(f"step {step_id!r} was started by the code of step {attempt.step!r}: {REMEDY}")
        attempt.nested = attempt.nested or error
        return error
    message = f"step {step_id!r} was started outside of its function's body, probably inside another step: {REMEDY}"
    error = NestedStepError(message)
    if tell is not None:
        tell(error)
    return error
