"""Tests of durable functions: in one process without a server, or with a real executor on a free port."""

from __future__ import annotations

from stepwire.testing.executor import ExecutorProcess, WorkerProcess
from stepwire.testing.process import ProcessError
from stepwire.testing.records import SentEvent, StepRecord, TestRun
from stepwire.testing.runner import arun, run
from stepwire.testing.substitutes import SubstituteError, Takes
from stepwire.testing.world import StuckError

__all__ = [
    "ExecutorProcess",
    "ProcessError",
    "SentEvent",
    "StepRecord",
    "StuckError",
    "SubstituteError",
    "Takes",
    "TestRun",
    "WorkerProcess",
    "arun",
    "run",
]
