"""The clocks that the engine goes by."""

from __future__ import annotations

import time

from stepwire_core.model import Now


class SystemClock:
    """The machine's clocks, read together."""

    def __init__(self) -> None:
        self._began = Now(time.time(), time.monotonic())

    def __call__(self) -> Now:
        """Read both clocks."""
        wall, mono = time.time(), time.monotonic()
        return Now(wall, mono, (wall - self._began.wall) - (mono - self._began.mono))
