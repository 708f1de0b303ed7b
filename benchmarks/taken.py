"""What a process takes of the machine, memory and CPU, by Linux's /proc."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Give the CPU that a process has taken since it began: unlike the time of a clock, it is not others' doing."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS_A_SECOND


def cpu_of_threads(pid: int) -> float:
    """Give the CPU seconds of the threads that a process has now, to the nanosecond, without those that have ended."""
    seconds = 0.0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            seconds += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return seconds


def resident_bytes(pid: int, name: str = "VmRSS") -> int:
    """Give the memory that a process holds now, or as VmHWM the most that it has held since a `Taken` was made."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status has no {name}")


@dataclass(slots=True)
class Taken:
    """What a process takes from the moment when this is made. Linux keeps one peak a process: the last one counts."""

    pid: int
    _bytes_before: int = field(init=False)
    _cpu_before: float = field(init=False)

    def __post_init__(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # forgets the peak so far, see proc(5)
        self._bytes_before = resident_bytes(self.pid)
        self._cpu_before = cpu_seconds(self.pid)

    @property
    def peak_bytes(self) -> int:
        """By how much its memory has risen at most."""
        return resident_bytes(self.pid, "VmHWM") - self._bytes_before

    @property
    def cpu_seconds(self) -> float:
        """Seconds of CPU, in hundredths."""
        return cpu_seconds(self.pid) - self._cpu_before
