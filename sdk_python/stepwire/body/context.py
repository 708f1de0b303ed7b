"""What a function's body is told of its run."""

from __future__ import annotations

import logging
import random
import uuid
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from stepwire.attempt import FieldsLogger
from stepwire.events import ReceivedEvent

if TYPE_CHECKING:
    from stepwire.replay.invocation import Invocation


class Context:
    """A run as its body sees it; the same in every replay."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self.run_id: str = invocation.run.run_id
        """The run's id."""
        self.attempt: int = invocation.run.attempt
        """The try at the body, from 1."""
        self.app: str = invocation.run.app
        """The app's name."""
        self.function_id: str = invocation.function.id
        """The function's id."""

    @cached_property
    def logger(self) -> FieldsLogger:
        """Silent in replays, so that a line is logged once; its records say which run and attempt they are of."""
        return _Logger(logging.getLogger(f"stepwire.function.{self.function_id}"), self._invocation)

    @cached_property
    def events(self) -> tuple[ReceivedEvent, ...]:
        """The events that started the run, their data decoded."""
        values = self._invocation.values
        return tuple(
            ReceivedEvent(
                event.id,
                event.name,
                values.decode(event.data, None, f"data of event {event.name!r}"),
                datetime.fromtimestamp(event.time, UTC),
            )
            for event in self._invocation.run.events
        )

    @property
    def event(self) -> ReceivedEvent:
        """The event that started the run."""
        return self.events[0]

    @cached_property
    def _random(self) -> random.Random:
        return random.Random(self.run_id)

    @property
    def random(self) -> random.Random:
        """Random numbers that are the same in every replay of the run.

        Code of a step, which runs in one worker only, gets other ones, so that it can't disturb those of the body.
        """
        return self._random if self._invocation.in_body() else _step_random

    def uuid4(self) -> uuid.UUID:
        """Make a UUID that is the same in every replay; the n-th call of the body gives the n-th one."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def now(self) -> datetime:
        """Give the time of the last recorded result, or of the run's creation; the same in every replay."""
        return datetime.fromtimestamp(self._invocation.loop.time(), UTC)


_step_random = random.Random()


class _Logger(FieldsLogger):
    """Logs with the run's id, but not in replays."""

    def __init__(self, logger: logging.Logger, invocation: Invocation) -> None:
        super().__init__(logger, invocation.fields)
        self._invocation = invocation

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """Whether a line of this level is logged now."""
        return self._invocation.lively and super().isEnabledFor(level)
