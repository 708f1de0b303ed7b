"""Tests of durable functions: in one process without a server, or with a real executor on a free port.

Names are imported when they are first used: pytest loads this package wherever Stepwire is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwire.testing.differences import ScheduleError
    from stepwire.testing.executor import CommandWorker, ExecutorProcess, WorkerProcess
    from stepwire.testing.exploration import Exploration, aexplore, explore
    from stepwire.testing.process import ProcessError
    from stepwire.testing.records import SentEvent, StepRecord, TestRun
    from stepwire.testing.runner import arun, run
    from stepwire.testing.substitutes import SubstituteError, Takes
    from stepwire.testing.worker import WorkerThread
    from stepwire.testing.world import StuckError

__all__ = [
    "CommandWorker",
    "ExecutorProcess",
    "Exploration",
    "ProcessError",
    "ScheduleError",
    "SentEvent",
    "StepRecord",
    "StuckError",
    "SubstituteError",
    "Takes",
    "TestRun",
    "WorkerProcess",
    "WorkerThread",
    "aexplore",
    "arun",
    "explore",
    "run",
]

_MODULES = {
    "ScheduleError": "differences",
    "CommandWorker": "executor",
    "ExecutorProcess": "executor",
    "WorkerProcess": "executor",
    "Exploration": "exploration",
    "aexplore": "exploration",
    "explore": "exploration",
    "WorkerThread": "worker",
    "ProcessError": "process",
    "SentEvent": "records",
    "StepRecord": "records",
    "TestRun": "records",
    "arun": "runner",
    "run": "runner",
    "SubstituteError": "substitutes",
    "Takes": "substitutes",
    "StuckError": "world",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
