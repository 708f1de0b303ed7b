"""Durable functions made of parallel steps."""

from stepwire.app import App, EventTrigger, Function, on_event
from stepwire.attempt import AttemptContext, current_attempt
from stepwire.context import Context
from stepwire.errors import (
    EncodingError,
    ExecutorError,
    Failure,
    ForeignAwaitError,
    InvalidStepError,
    NestedStepError,
    NonDeterminismError,
    NonRetriableError,
    OutputTooLargeError,
    RegistrationError,
    RetryAfterError,
    RunFailedError,
    StepError,
    StepwireError,
)
from stepwire.events import Event, ReceivedEvent
from stepwire.payload import Payload
from stepwire.replay.model import Retry
from stepwire.step import Step, SyncStep
from stepwire.values import Codec

__all__ = [
    "App",
    "AttemptContext",
    "Codec",
    "Context",
    "EncodingError",
    "Event",
    "EventTrigger",
    "ExecutorError",
    "Failure",
    "ForeignAwaitError",
    "Function",
    "InvalidStepError",
    "NestedStepError",
    "NonDeterminismError",
    "NonRetriableError",
    "OutputTooLargeError",
    "Payload",
    "ReceivedEvent",
    "RegistrationError",
    "Retry",
    "RetryAfterError",
    "RunFailedError",
    "Step",
    "StepError",
    "StepwireError",
    "SyncStep",
    "current_attempt",
    "on_event",
]
