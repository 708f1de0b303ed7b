"""When a standby may take a store over: signs of life as it has seen them itself, by its own monotonic clock.

Pure. That only one of several standbys takes over, and that the one before writes nothing more, is the database's part.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_ABSENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Sight:
    """The store's row, and whether the session is alive that its owner has opened."""

    version: int
    epoch: int
    beat: int
    holder: str
    released: bool
    alive: bool


def lease_seconds(takeover_after: float) -> float:
    """How long after a beat was sent nobody else can own the store, whatever happens to connections."""
    return min(LONGEST_ABSENCE_SECONDS, takeover_after)


class Watch:
    """What one executor has seen of the others."""

    def __init__(self, holder: str, takeover_after: float) -> None:
        self._holder = holder
        self._takeover_after = takeover_after
        self._absence = lease_seconds(takeover_after)
        self._seen = (-1, -1)
        self._seen_at = 0.0
        self._gone_at: float | None = None

    def may_take(self, sight: Sight, now: float) -> bool:
        """Look; say whether the store may be taken: it is free, was ours, or its owner gives no sign of life.

        An owner whose session has ended has a moment to come back. One whose session is there may be stopped, or cut
        off from the database without either side's knowing; it has `takeover_after` seconds to beat.
        """
        if sight.released or sight.holder == self._holder:
            return True
        if (sight.epoch, sight.beat) != self._seen:
            self._seen, self._seen_at, self._gone_at = (sight.epoch, sight.beat), now, None
        if sight.alive:
            self._gone_at = None
        elif self._gone_at is None:
            self._gone_at = now
        is_gone = self._gone_at is not None and now - self._gone_at >= self._absence
        return is_gone or now - self._seen_at >= self._takeover_after
