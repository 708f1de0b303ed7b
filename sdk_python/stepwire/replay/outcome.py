"""How a body's end becomes an outcome."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from stepwire.errors import NEVER_RETRIED, Failure, ForeignAwaitError, StepError
from stepwire.replay.model import Entry, Raised, Returned

if TYPE_CHECKING:
    from stepwire.app import Function
    from stepwire.values import Values

_FOREIGN = ("attached to a different loop", "Task got bad yield")
"""What asyncio says of an awaited thing that is not of the task's own loop, or of no loop."""


def outcome_of(root: asyncio.Task[Any], function: Function, values: Values) -> Returned | Raised:
    """Give the outcome of a body whose task is done."""
    try:
        value = root.result()
        return Returned(values.encode(value, function.output_type, f"output of {function.id!r}"))
    except asyncio.CancelledError as error:
        return Raised(Failure("CancelledError", f"the body of {function.id!r} cancelled itself"), error)
    except BaseException as error:
        if any(map(_is_foreign, leaves(error))):
            foreign = ForeignAwaitError(
                f"the body of {function.id!r} awaited something that is not of its own event loop: "
                "wrap the code that does this in a function of its own and call it with step.run(...)"
            )
            foreign.__cause__ = error
            return Raised(values.failure(foreign), foreign)
        failure = values.failure(error)
        if all(_is_final(leaf) for leaf in leaves(error)):
            # A step that failed for good has had its retries.
            failure = dataclasses.replace(failure, retryable=False)
        return Raised(failure, error)


def unread(entry: Entry, error: Exception, values: Values) -> StepError:
    """Give what a body gets for a recorded result that can't be read; another time it may be, if a codec failed."""
    failure = values.failure(error)
    given = StepError(entry.key.id, entry.key.index, failure, entry.attempts)
    given.args = (f"step {str(entry.key)!r} succeeded, but its result can't be read: {failure}",)
    given.is_final = isinstance(error, NEVER_RETRIED)
    return given


def leaves(error: BaseException) -> list[BaseException]:
    """Give the errors in a group of any depth, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


def _is_final(error: BaseException) -> bool:
    return error.is_final if isinstance(error, StepError) else isinstance(error, NEVER_RETRIED)


def _is_foreign(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FOREIGN)
