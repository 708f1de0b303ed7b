"""What was measured of a system and a workload, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.command import percentile
from benchmarks.peers.workloads import Workload


@dataclass(slots=True)
class Figures:
    """The times of one system doing one workload, in seconds: a list for each repeat."""

    workload: Workload
    repeats: list[list[float]] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """All times, in order of length."""
        return sorted(second for repeat in self.repeats for second in repeat)

    @property
    def rate(self) -> float:
        """Steps a second, by the median."""
        return self.workload.steps / median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest median of a repeat, in seconds."""
        medians = [median(repeat) for repeat in self.repeats]
        return min(medians), max(medians)

    def percentile_ms(self, share: float) -> float:
        """Milliseconds that a share of the times (0 to 1) does not exceed."""
        return percentile(self.seconds, share) * 1e3

    def as_data(self) -> dict[str, Any]:
        """Give what is written as JSON."""
        low, high = self.spread
        return {
            "steps": self.workload.steps,
            "seconds": self.repeats,
            "steps_per_second": self.rate,
            "steps_per_second_spread": [self.workload.steps / high, self.workload.steps / low],
            "p50_ms": median(self.seconds) * 1e3,
            "p50_ms_spread": [low * 1e3, high * 1e3],
            "p99_ms": self.percentile_ms(0.99),
        }


def ratios(systems: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Divide the steps a second of the first system by those of each other one, for each workload that both did."""
    (_, first), *others = systems.items()
    return {
        name: {
            workload: figures["steps_per_second"] / other["workloads"][workload]["steps_per_second"]
            for workload, figures in first["workloads"].items()
            if workload in other["workloads"]
        }
        for name, other in others
    }
