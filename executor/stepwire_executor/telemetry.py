"""Spans for runs and attempts, made from observations."""

from __future__ import annotations

from collections.abc import Sequence

from stepwire_executor.core.commands import Observation
from stepwire_executor.core.model import Run, StepKey


class Telemetry:
    """Off."""

    @classmethod
    def from_environment(cls) -> Telemetry:
        """Set up what OTEL_* variables ask for."""
        return cls()

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take observations."""

    def run_traceparent(self, run: Run) -> str:
        """Give the trace context of a run's span."""
        return ""

    def attempt_traceparent(self, run: Run, key: StepKey, fence: int) -> str:
        """Give the trace context of an attempt's span."""
        return ""

    def shutdown(self) -> None:
        """Flush."""
