"""What all stores in a database have: the look-ups, each one question, or more where a database is asked in its way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeVar

from stepwire_core.commands import Wait, Writes
from stepwire_core.model import Event, EventKey, FailedAttempt, Run, Step, StepKey, StepState
from stepwire_executor.store import AgedEvent, RunFilter, questions
from stepwire_executor.store.changes import ROWS_A_PIECE, Change, changes, in_pieces
from stepwire_executor.store.questions import Question

T = TypeVar("T")

MOST_NAMES = 10_000
"""Of events that are waited for, which are kept in memory: some megabytes."""


class SqlStore(ABC):
    """The reading half of a Store; see there for what the methods do."""

    def __init__(self) -> None:
        self._ahead: tuple[Writes, list[Change]] | None = None
        """Of a large batch, what is to be done."""
        self._scopes: set[tuple[str, ...]] = set()
        """The sets of apps that events reach: of all that were ever committed, as far as they are still there."""
        self._waited: set[str] | None = None
        """The names of events that are, or were, waited for since the opening; None if they are too many.

        Most events are of a name that nobody waits for: of those nothing is read.
        """

    def read_ahead(self, writes: Writes) -> Iterator[None]:
        """See Store."""
        if writes.size > ROWS_A_PIECE:
            found: list[Change] = []
            yield from in_pieces(writes, found)
            self._ahead = writes, found

    def _changes(self, writes: Writes) -> list[Change]:
        """Give what is to be done for a batch, which may have been read ahead.

        Whom its events reach, and what its waits are for, is learnt before they are written: no look-up misses them.
        """
        self._scopes.update([event.apps for event in writes.events])
        if writes.new_waits and self._waited is not None:
            self._waited.update(wait.event_name for wait in writes.new_waits.values())
            if len(self._waited) > MOST_NAMES:
                self._waited = None
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] is writes else changes(writes)

    async def read_index(self) -> None:
        """Learn whom the events reach that are there, and which are waited for; called once in each opening."""
        self._scopes = await self.ask(questions.event_scopes())
        names = await self.wait_names("", MOST_NAMES + 1)
        self._waited = {"", *names} if len(names) <= MOST_NAMES else None  # "" is behind no name

    def _reaching(self, app: str) -> list[tuple[str, ...]]:
        return [apps for apps in self._scopes if not apps or app in apps]

    @abstractmethod
    async def ask(self, question: Question[T]) -> T:
        """Give the answer to a question. Raises StoreError."""

    @abstractmethod
    async def load_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """See Store."""

    @abstractmethod
    async def known_events(self, keys: Sequence[EventKey], since: float) -> dict[EventKey, Event]:
        """See Store."""

    @abstractmethod
    async def count_steps(self, run_ids: Sequence[str]) -> dict[str, dict[StepState, int]]:
        """See Store."""

    async def aged_events(self, after: int, limit: int) -> list[AgedEvent]:
        """See Store."""
        return await self.ask(questions.aged_events(after, limit))

    async def hot_runs(self, after: str, limit: int) -> list[str]:
        """See Store."""
        return await self.ask(questions.hot_runs(after, limit))

    async def unfinished_functions(self, after: str, limit: int) -> list[tuple[str, str, str]]:
        """See Store."""
        return await self.ask(questions.unfinished_functions(after, limit))

    async def due_runs(self, until: float, limit: int) -> list[str]:
        """See Store."""
        return await self.ask(questions.due_runs(until, limit))

    async def next_wake(self, after: float) -> float | None:
        """See Store."""
        return await self.ask(questions.next_wake(after))

    async def find_events(self, name: str, app: str, after: int, limit: int, most_bytes: int) -> list[Event]:
        """See Store."""
        scopes = self._reaching(app)
        return await self.ask(questions.find_events(scopes, name, after, limit, most_bytes)) if scopes else []

    async def find_positions(self, name: str, app: str, after: int, limit: int) -> list[int]:
        """See Store."""
        scopes = self._reaching(app)
        return await self.ask(questions.find_positions(scopes, name, after, limit)) if scopes else []

    async def wait_names(self, after: str, limit: int) -> list[str]:
        """See Store."""
        return await self.ask(questions.wait_names(after, limit))

    async def wait_apps(self, event_name: str) -> list[str]:
        """See Store."""
        if self._waited is not None and event_name not in self._waited:
            return []
        return await self.ask(questions.wait_apps(event_name))

    async def wait_paths(self, event_name: str, app: str, after: str | None, limit: int) -> list[str]:
        """See Store."""
        return await self.ask(questions.wait_paths(event_name, app, after, limit))

    async def find_waits(
        self, event_name: str, app: str, paths: str, match: str, after: tuple[str, StepKey | None] | None, limit: int
    ) -> list[Wait]:
        """See Store."""
        return await self.ask(questions.find_waits(event_name, app, paths, match, after, limit))

    async def ended_children(self, limit: int, most_bytes: int) -> list[Run]:
        """See Store."""
        return await self.ask(questions.ended_children(limit, most_bytes))

    async def orphans(self, limit: int) -> list[str]:
        """See Store."""
        return await self.ask(questions.orphans(limit))

    async def get_run(self, run_id: str) -> Run | None:
        """See Store."""
        return await self.ask(questions.get_run(run_id))

    async def get_steps(
        self, run_id: str, after_number: int, limit: int, most_bytes: int, *, outputs: bool = True
    ) -> list[Step]:
        """See Store."""
        return await self.ask(questions.get_steps(run_id, after_number, limit, most_bytes, outputs=outputs))

    async def get_failed_attempts(
        self, run_id: str, first_number: int, last_number: int, most_bytes: int
    ) -> list[FailedAttempt]:
        """See Store."""
        return await self.ask(questions.get_failed_attempts(run_id, first_number, last_number, most_bytes))

    async def list_runs(self, where: RunFilter, before_id: str, limit: int, most_bytes: int) -> list[Run]:
        """See Store."""
        return await self.ask(questions.list_runs(where, before_id, limit, most_bytes))
