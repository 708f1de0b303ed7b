"""Durable functions made of parallel steps.

Names are imported when they are first used: that keeps the command line quick, and test runs that only load our plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwire.app import App, EventTrigger, Function, on_event
    from stepwire.attempt import AttemptContext, current_attempt
    from stepwire.body.context import Context
    from stepwire.body.step import Step, SyncStep
    from stepwire.calls import WaitTimeoutError
    from stepwire.client import Client
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
        SpinningBodyError,
        StepError,
        StepwireError,
    )
    from stepwire.events import Event, ReceivedEvent
    from stepwire.payload import Payload
    from stepwire.records import (
        Cause,
        CauseKind,
        EventReceipt,
        FunctionInfo,
        Run,
        RunState,
        RunUpdate,
        StepState,
        WorkerInfo,
    )
    from stepwire.replay.model import Retry
    from stepwire.security import Security
    from stepwire.status import ExecutorState, ExecutorStatus
    from stepwire.sync_client import SyncClient
    from stepwire.values import Codec
    from stepwire.version import VERSION
    from stepwire.worker.worker import Worker

__all__ = [
    "VERSION",
    "App",
    "AttemptContext",
    "Cause",
    "CauseKind",
    "Client",
    "Codec",
    "Context",
    "EncodingError",
    "Event",
    "EventReceipt",
    "EventTrigger",
    "ExecutorError",
    "ExecutorState",
    "ExecutorStatus",
    "Failure",
    "ForeignAwaitError",
    "Function",
    "FunctionInfo",
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
    "Run",
    "RunFailedError",
    "RunState",
    "RunUpdate",
    "Security",
    "SpinningBodyError",
    "Step",
    "StepError",
    "StepState",
    "StepwireError",
    "SyncClient",
    "SyncStep",
    "WaitTimeoutError",
    "Worker",
    "WorkerInfo",
    "current_attempt",
    "on_event",
]

_MODULES = {
    "App": "app",
    "AttemptContext": "attempt",
    "Cause": "records",
    "CauseKind": "records",
    "Client": "client",
    "Codec": "values",
    "Context": "body.context",
    "EncodingError": "errors",
    "Event": "events",
    "EventReceipt": "records",
    "EventTrigger": "app",
    "ExecutorError": "errors",
    "ExecutorState": "status",
    "ExecutorStatus": "status",
    "Failure": "errors",
    "ForeignAwaitError": "errors",
    "Function": "app",
    "FunctionInfo": "records",
    "InvalidStepError": "errors",
    "NestedStepError": "errors",
    "NonDeterminismError": "errors",
    "NonRetriableError": "errors",
    "OutputTooLargeError": "errors",
    "Payload": "payload",
    "ReceivedEvent": "events",
    "RegistrationError": "errors",
    "Retry": "replay.model",
    "RetryAfterError": "errors",
    "Run": "records",
    "RunFailedError": "errors",
    "RunState": "records",
    "RunUpdate": "records",
    "Security": "security",
    "Step": "body.step",
    "SpinningBodyError": "errors",
    "StepError": "errors",
    "StepState": "records",
    "StepwireError": "errors",
    "SyncClient": "sync_client",
    "SyncStep": "body.step",
    "VERSION": "version",
    "WaitTimeoutError": "calls",
    "Worker": "worker.worker",
    "WorkerInfo": "records",
    "__version__": "version",
    "current_attempt": "attempt",
    "on_event": "app",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), "VERSION" if name == "__version__" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
