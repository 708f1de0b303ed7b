"""How a body's end becomes an outcome."""

from __future__ import annotations

import asyncio
import dataclasses
import traceback
from typing import TYPE_CHECKING, Any

from stepwire.errors import NEVER_RETRIED, Failure, ForeignAwaitError, StepError
from stepwire.failures import line_in, text_of
from stepwire.replay.model import Entry, Raised, Returned

if TYPE_CHECKING:
    from stepwire.app import Function
    from stepwire.values import Values

_MEMBERS = vars(BaseExceptionGroup)["exceptions"].__get__
_FOREIGN = ("attached to a different loop", "Task got bad yield")
"""What asyncio says of an awaited thing that is not of the task's own loop, or of no loop."""


def outcome_of(root: asyncio.Task[Any], function: Function, values: Values, place: str) -> Returned | Raised:
    """Give the outcome of a body whose task is done; if that is in a replay, `place` says where."""
    try:
        value = root.result()
        return Returned(values.encode(value, function.output_type, f"output of {function.id!r}"))
    except asyncio.CancelledError as error:
        said = text_of(error)
        message = f"the body of {function.id!r} cancelled itself"
        return Raised(Failure("CancelledError", f"{message}: {said}" if said else message, place), error)
    except BaseException as error:
        strange = next(filter(_is_foreign, leaves(error)), None)
        if strange is not None:
            at = line_in("".join(traceback.format_tb(strange.__traceback__)))
            foreign = ForeignAwaitError(
                f"the body of {function.id!r} awaited something{at} that is not of its own event loop: "
                "wrap the code that does this in a function of its own and call it with step.run(...)"
            )
            foreign.__cause__ = error
            return Raised(values.failure(foreign, place), foreign)
        failure = values.failure(error, place)
        if all(_is_final(leaf) for leaf in leaves(error)):
            # A step that failed for good has had its retries.
            failure = dataclasses.replace(failure, retryable=False)
        return Raised(failure, error)


def unread(entry: Entry, error: BaseException, values: Values) -> StepError:
    """Give what a body gets for a recorded result that can't be read; another time it may be, if a codec failed."""
    failure = values.failure(error)
    given = StepError(entry.key.id, entry.key.index, failure, entry.attempts)
    given.args = (f"step {str(entry.key)!r} succeeded, but its result can't be read: {failure}",)
    given.is_final = issubclass(type(error), NEVER_RETRIED)
    return given


def leaves(error: BaseException) -> list[BaseException]:
    """Give the errors in a group of any depth, each once, or the error itself."""
    found: list[BaseException] = []
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if issubclass(type(each), BaseExceptionGroup):
            left += reversed(_MEMBERS(each))
        else:
            found.append(each)
    return found


def _is_final(error: BaseException) -> bool:
    kind = type(error)  # `isinstance` would ask the error itself as well, which may raise
    if issubclass(kind, StepError):
        return bool(vars(error).get("is_final", True))
    return issubclass(kind, NEVER_RETRIED)


def _is_foreign(error: BaseException) -> bool:
    return issubclass(type(error), RuntimeError) and any(words in text_of(error) for words in _FOREIGN)
