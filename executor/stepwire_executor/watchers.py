"""Who watches which runs: told after the commits that changed them, and of their ends with the run as it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from stepwire_core.commands import Observation, RunEnded
from stepwire_core.model import Run

Tell = Callable[[Run | None], None]


class Watch:
    """Tells when a watched run has changed, or only when it has ended; with the run, once its end is durable."""

    __slots__ = ("end_only", "tell")

    def __init__(self, tell: Tell, *, end_only: bool) -> None:
        self.tell = tell
        self.end_only = end_only


class Watchers:
    """See the module."""

    def __init__(self) -> None:
        self._by_run: dict[str, set[Watch]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_run.values()))

    def add(self, run_id: str, tell: Tell, *, end_only: bool) -> Callable[[], None]:
        """Have changes of a run told; gives what ends that."""
        watch = Watch(tell, end_only=end_only)
        self._by_run.setdefault(run_id, set()).add(watch)

        def end() -> None:
            watches = self._by_run.get(run_id, set())
            watches.discard(watch)
            if not watches:
                self._by_run.pop(run_id, None)

        return end

    def changed(self, run_ids: Iterable[str]) -> None:
        """Tell those who watch for more than the end."""
        for run_id in run_ids:
            for watch in self._by_run.get(run_id, ()):
                if not watch.end_only:
                    watch.tell(None)

    def wake_all(self) -> None:
        """Tell everybody to look again."""
        for watches in list(self._by_run.values()):
            for watch in list(watches):
                watch.tell(None)

    def ended(self, observations: Sequence[Observation]) -> None:
        """Give runs that have ended to those who wait for them, so that nobody has to look them up."""
        for observed in observations if self._by_run else ():
            if isinstance(observed, RunEnded):
                for watch in list(self._by_run.get(observed.run.id, ())):
                    watch.tell(observed.run)
