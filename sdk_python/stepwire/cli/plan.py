"""What a session of `stepwire dev` was asked for, and the arguments of its children that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `taken` is the default port if another process has it."""

    target: str
    processes: int
    slots: int
    host: str
    port: int
    taken: int | None
    state: Path
    drain_seconds: float
    log_level: str = "info"

    @property
    def address(self) -> str:
        """Where the executor listens."""
        return f"{self.host}:{self.port}"

    @property
    def store(self) -> str:
        """The executor's store, as it is told."""
        return f"sqlite:///{self.state / 'dev.db'}"

    @property
    def executor_arguments(self) -> list[str]:
        """What the executor is started with."""
        address = ["--host", self.host, "--port", str(self.port), "--store", self.store]
        return [*address, "--log-runs", "--log-level", self.log_level]

    @property
    def worker_arguments(self) -> list[str]:
        """What the worker command is started with."""
        numbers = {"--processes": self.processes, "--slots": self.slots, "--drain-seconds": self.drain_seconds}
        flags = [text for name, value in numbers.items() for text in (name, f"{value:g}")]
        return ["worker", self.target, "--executor", self.address, "--reload", "--log-level", self.log_level, *flags]
