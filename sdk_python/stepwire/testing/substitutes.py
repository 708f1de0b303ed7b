"""What a test puts in the place of steps: values, other code, errors, and time that passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepwire.errors import StepwireError
from stepwire.replay.model import StepKey

Failing = BaseException | type[BaseException] | Sequence[BaseException | type[BaseException]]
"""One error for every attempt, or a list with one for each of the first attempts."""


class SubstituteError(StepwireError):
    """A test names a step or function that its run did not meet, or puts something in a place where it can't be."""


@dataclass(frozen=True, slots=True)
class Takes:
    """A replacement that takes `seconds` of the run's virtual time, and then gives `then`: a value or a callable."""

    seconds: float
    then: Any = None


class Missing:
    """Stands for "nothing is put here", because None is a value."""


MISSING = Missing()


class Substitutes:
    """Looks up what a test wants for a step, by its repetition ("charge:2") or else by its id ("charge")."""

    def __init__(self, replace: Mapping[str, Any], fail: Mapping[str, Failing], invoke: Mapping[str, Any]) -> None:
        self._replace = dict(replace)
        self._fail = {name: _errors(name, failing) for name, failing in fail.items()}
        self._invoke = dict(invoke)
        self._used: set[tuple[str, str]] = set()

    def replacement(self, key: StepKey) -> Any:
        """Give what replaces a step: a value, a callable or `Takes`; `MISSING` if nothing does."""
        return self._find("replace", self._replace, *names(key))

    def error(self, key: StepKey, attempt: int) -> BaseException | None:
        """Give the error that an attempt (from 1) of a step is to fail with, if any."""
        errors = self._find("fail", self._fail, *names(key))
        if isinstance(errors, Missing):
            return None
        always, listed = errors
        if always is not None:
            return _made(always)
        return _made(listed[attempt - 1]) if attempt <= len(listed) else None

    def invoked(self, app: str, function_id: str) -> Any:
        """Give what replaces an invoked function: a value or a callable that takes its data; `MISSING` if nothing."""
        return self._find("invoke", self._invoke, f"{app}/{function_id}", function_id)

    def _find(self, where: str, mapping: Mapping[str, Any], *names: str) -> Any:
        for name in names:
            if name in mapping:
                self._used.add((where, name))
                return mapping[name]
        return MISSING

    def check_used(self, steps: Iterable[StepKey], functions: Iterable[str]) -> None:
        """Raise SubstituteError if a name has matched nothing: it may be misspelt."""
        wanted = (("replace", self._replace), ("fail", self._fail), ("invoke", self._invoke))
        unused = [(where, name) for where, mapping in wanted for name in mapping if (where, name) not in self._used]
        if not unused:
            return
        found = ", ".join(dict.fromkeys(repr(str(key)) for key in steps)) or "none"
        invoked = ", ".join(dict.fromkeys(map(repr, functions))) or "none"
        names = ", ".join(f"{where}={{{name!r}: …}}" for where, name in unused)
        raise SubstituteError(f"nothing matched {names}; the run's steps are: {found}; it invoked: {invoked}")


def names(key: StepKey) -> tuple[str, str]:
    """Give what a step is called by: its repetition alone, or all of them."""
    return f"{key.id}:{key.index}", key.id


def _errors(name: str, failing: Failing) -> tuple[Any, Sequence[Any]]:
    if _is_error(failing):
        return failing, ()
    if isinstance(failing, Sequence) and all(map(_is_error, failing)):
        return None, list(failing)
    raise SubstituteError(f"fail={{{name!r}: …}} must be an exception or a list of exceptions, not {failing!r}")


def _is_error(value: object) -> bool:
    return isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException))


def _made(error: Any) -> BaseException:
    made: BaseException = error() if isinstance(error, type) else error
    return made
