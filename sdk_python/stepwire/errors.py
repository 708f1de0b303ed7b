"""The errors that users of the SDK meet: one small tree under `StepwireError`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stepwire.durations import seconds
from stepwire.payload import Payload


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as data: what the contract calls `Failure`.

    `retry_after` is a delay in seconds that replaces the policy's backoff; None leaves the policy alone.
    """

    type: str
    message: str
    stack: str = ""
    retryable: bool = True
    retry_after: float | None = None
    cause: Failure | None = None
    details: Payload | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class StepwireError(Exception):
    """Base of all errors that Stepwire raises."""


class NonRetriableError(StepwireError):
    """Raise it in a step or in a function's body to fail at once, whatever the retry policy says."""


class RetryAfterError(StepwireError):
    """Raise it in a step or in a function's body to be tried again no sooner than after a delay of your choice.

    `delay` is in seconds, or a timedelta, and must not be negative; or it is the time of day before which nothing
    should happen, an aware datetime: one that has passed means at once. It replaces the backoff of the policy, and
    still counts as one of its retries. `delay_seconds` is what it comes to. Raises ValueError for other delays.
    """

    def __init__(self, message: str, delay: float | timedelta | datetime) -> None:
        super().__init__(message)
        if isinstance(delay, datetime):
            if delay.tzinfo is None:
                raise ValueError(f"RetryAfterError: the time {delay} has no time zone: use an aware datetime")
            self.delay_seconds = max(0.0, (delay - datetime.now(delay.tzinfo)).total_seconds())
        else:
            self.delay_seconds = seconds(delay, "RetryAfterError: the delay", ValueError, longest=math.inf)


class StepError(StepwireError):
    """A step failed for good; raised in the function's body where the step is awaited, and catchable there.

    Attributes: `step` (the step's id), `index` (of its repetition), `name` (the original error's type), `message`,
    `stack` (the original traceback as text), `attempts` (how many tries it took), `failure` (all of it as data). A step
    that succeeded, but whose result can't be read, raises it too, with what the reading raised.
    """

    is_final = True
    """Whether nothing is left to try; False if a codec, say, could not read the result this time."""

    def __init__(self, step: str, index: int, failure: Failure, attempts: int) -> None:
        self.step = step
        self.index = index
        self.failure = failure
        self.attempts = attempts
        label = step if index == 0 else f"{step}:{index}"
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(f"step {label!r} failed after {tries}: {failure}")

    @property
    def name(self) -> str:
        """The type name of the original error."""
        return self.failure.type

    @property
    def message(self) -> str:
        """The message of the original error."""
        return self.failure.message

    @property
    def stack(self) -> str:
        """The traceback of the original error, as text; may be empty."""
        return self.failure.stack


class NonDeterminismError(StepwireError):
    """A replay of a function's body did other things than its journal holds. Never retried."""


class ForeignAwaitError(StepwireError):
    """A function's body awaited, or asked its event loop for, something that is not deterministic. Never retried."""


class SpinningBodyError(StepwireError):
    """A function's body went on without starting a step or waiting for a result, as if it polled. Never retried."""


class NestedStepError(StepwireError):
    """Step code tried to start a step. Never retried; the attempt fails with it even if the code catches it."""


class InvalidStepError(StepwireError):
    """A step was started with an id, option or argument that is not allowed. Never retried."""


class EncodingError(StepwireError):
    """A value can't be encoded, or stored bytes can't be decoded as the wanted type. Never retried."""


class OutputTooLargeError(StepwireError):
    """An output or input is over the limit that the executor has set. Never retried."""


class RegistrationError(StepwireError):
    """An app's functions or tasks are declared wrongly (an id used twice, an invalid option)."""


class NoThreadError(StepwireError):
    """No thread can be started for sync code: the process, or its container, is at a limit. Retried by policy."""


class ExecutorError(StepwireError):
    """A call to the executor failed. `code` is the gRPC status code's name, e.g. "UNAVAILABLE"."""

    def __init__(self, code: str, message: str, fields: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.fields = tuple(fields)


class RunFailedError(StepwireError):
    """Raised by a client that waited for the result of a run which failed or was cancelled."""

    def __init__(self, run_id: str, failure: Failure) -> None:
        super().__init__(f"run {run_id} failed: {failure}")
        self.run_id = run_id
        self.failure = failure


NEVER_RETRIED = (
    NonRetriableError,
    NonDeterminismError,
    ForeignAwaitError,
    SpinningBodyError,
    NestedStepError,
    InvalidStepError,
    EncodingError,
    OutputTooLargeError,
)
"""Errors that no retry can mend."""
