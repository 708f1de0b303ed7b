"""Tests of durable functions: in one process without a server, or with a real executor on a free port."""

from __future__ import annotations

from stepwire.testing.executor import ExecutorProcess, WorkerProcess
from stepwire.testing.process import ProcessError

__all__ = ["ExecutorProcess", "ProcessError", "WorkerProcess"]
