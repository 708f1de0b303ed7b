"""The conversation of a case, written down as it goes, to be shown when the case has failed."""

from __future__ import annotations

import time

from google.protobuf.message import Message

from stepwire_conformance.cases import one_line

MOST_LINES = 80


class FailedError(Exception):
    """The case has failed; the message says what was awaited and what came instead."""


class Transcript:
    """What was said and done, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._lines: list[str] = []

    @property
    def seconds(self) -> float:
        """How long it has gone on."""
        return time.monotonic() - self._begun

    def note(self, text: str) -> None:
        """Write down what was done, or what happened."""
        self._lines.append(f"{self.seconds:8.3f}  {text}")

    def said(self, who: str, message: Message) -> None:
        """Write down a message."""
        self.note(f"{who} ▸ {one_line(message, 400)}")

    @property
    def lines(self) -> list[str]:
        """What was written down; the middle is left out if it is very long."""
        if len(self._lines) <= MOST_LINES:
            return list(self._lines)
        half = MOST_LINES // 2
        left_out = f"          … {len(self._lines) - 2 * half} lines …"
        return [*self._lines[:half], left_out, *self._lines[-half:]]
