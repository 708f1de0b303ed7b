"""What step code can learn about the attempt it runs as. Owns the context variable around step bodies; no gRPC here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any

from stepwire.errors import NestedStepError, StepwireError

_current: ContextVar[AttemptContext] = ContextVar("stepwire_attempt")
_body: ContextVar[Mapping[str, Any]] = ContextVar("stepwire_body")
_NOTHING: Mapping[str, Any] = {}
_event_lock = threading.Lock()
_logger = logging.getLogger("stepwire.step")


class AttemptContext:
    """One attempt at a step, as seen by the step's own code.

    Attributes: `run_id`, `step` (the step's id), `index` (of its repetition), `number` (of the attempt, from 1), `app`
    and `function_id` of the run. Get it with `current_attempt()`. It may be used from any thread.
    """

    __slots__ = ("_cancelled", "_event", "app", "function_id", "index", "nested", "number", "reason", "run_id", "step")

    def __init__(self, run_id: str, step: str, index: int, number: int, app: str = "", function_id: str = "") -> None:
        self.app = app
        self.function_id = function_id
        self.run_id = run_id
        self.step = step
        self.index = index
        self.number = number
        self.reason = ""
        """Why the attempt was cancelled, for people; empty before that."""
        self.nested: NestedStepError | None = None
        """What the attempt fails with, whatever its code makes of it: it has tried to start a step."""
        self._cancelled = False
        self._event: threading.Event | None = None

    @property
    def cancelled(self) -> bool:
        """True once the attempt's result is no longer wanted: sync code should look now and then, and stop.

        Async code is cancelled at its next await and needs not ask.
        """
        return self._cancelled

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Block until the attempt is cancelled, for at most `timeout` seconds (None: for ever); True if it is.

        For sync code that would sleep otherwise; in async code it would block the worker's loop.
        """
        with _event_lock:
            if self._cancelled:
                return True
            if self._event is None:
                self._event = threading.Event()
            event = self._event
        return event.wait(timeout)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger "stepwire.step"; its records carry `fields`, and the `extra` of each call."""
        return FieldsLogger(_logger, self.fields)

    @property
    def fields(self) -> dict[str, Any]:
        """What log lines carry: `app`, `function`, `run_id`, `step`, `index` and `attempt`."""
        return {
            "app": self.app,
            "function": self.function_id,
            "run_id": self.run_id,
            "step": self.step,
            "index": self.index,
            "attempt": self.number,
        }

    def cancel(self, reason: str) -> None:
        """Tell the code that its result is no longer wanted. For the worker; step code has no use for it."""
        with _event_lock:
            self.reason = reason
            self._cancelled = True
            if self._event is not None:
                self._event.set()

    def __repr__(self) -> str:
        return f"AttemptContext(run_id={self.run_id!r}, step={self.step!r}, index={self.index}, number={self.number})"


class FieldsLogger(logging.LoggerAdapter[logging.Logger]):
    """Gives its records fields of its own beside those of the call."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def current_attempt() -> AttemptContext:
    """The attempt that the calling step code runs as, in a coroutine, a task it made, or a thread of the worker.

    Raises StepwireError outside of a step: a function's body is replayed and belongs to no attempt.
    """
    try:
        return _current.get()
    except LookupError:
        raise StepwireError(
            "current_attempt() was called outside of a step: call it in code that step.run(...) or a task runs"
        ) from None


def attempt_here() -> AttemptContext | None:
    """Give the attempt that the calling code runs as; None if it runs as none, or in a thread that step code made."""
    return _current.get(None)


def enter_attempt(context: AttemptContext) -> None:
    """Make `context` the current attempt in the calling context. For the worker and the tests' runner."""
    _current.set(context)


def enter_body(fields: Mapping[str, Any]) -> None:
    """Have log lines in the calling context carry the fields of a run's body."""
    _body.set(fields)


def current_fields() -> Mapping[str, Any]:
    """Give the fields that log lines of the calling code carry: of its attempt, else of its body; or none."""
    attempt = _current.get(None)
    return _body.get(_NOTHING) if attempt is None else attempt.fields
