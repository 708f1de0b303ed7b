"""Log lines for people, or as JSON objects for machines: what a record says, and the fields that came with it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from stepwire_executor.visible import escaped_json, indented, one_line

MOST_ALIKE = 50
"""So many lines of one kind are written within `WINDOW_SECONDS`; more are counted, and summed up in a line."""
MOST_KINDS = 100
"""Kinds that are told apart within that time; more count as one, as ids may hold data."""
WINDOW_SECONDS = 10.0
_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Give the fields that a record was given beside its message."""
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def iso(seconds: float, separator: str = "T") -> str:
    """Write a time, given in Unix seconds, as ISO 8601 has it, in UTC with milliseconds."""
    written = datetime.fromtimestamp(seconds, UTC).isoformat(separator, "milliseconds")
    return written.removesuffix("+00:00") + "Z"


class TextFormatter(logging.Formatter):
    """Writes a record as a line for people: time, level, message, and its fields as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; what follows its first line, like a traceback, is indented. So nothing forges a record."""
        head, newline, rest = record.getMessage().partition("\n")
        fields = "".join(
            f" {_word(key)}={_word(value)}" for key, value in fields_of(record).items() if _is_worth(key, value)
        )
        text = f"{iso(record.created, ' ')} {record.levelname} {head}{fields}{newline}{rest}"
        return indented(f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line: time (ISO 8601), level, logger, message, its fields, error."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line = {
            "time": iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in fields_of(record).items() if key not in line}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return escaped_json(json.dumps(line, ensure_ascii=False, default=str))


def _is_worth(key: str, value: object) -> bool:
    """Whether people learn anything from a field."""
    return not (value == "" or (key == "index" and value == 0))


def _word(value: object) -> str:
    """Write a field's value: as it is if that is one word, else quoted."""
    text = value if isinstance(value, str) else str(value)
    plain = text.isprintable() and text and not any(each in text for each in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)


class Repeats:
    """Lets the first lines of a kind through and counts the rest. `later(seconds, call)` has `call` called once."""

    def __init__(self, log: logging.Logger, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._log = log
        self._later = later
        self._counts: dict[tuple[int, str], int] = {}
        self._is_open = False

    def allow(self, level: int, kind: str) -> bool:
        """Say whether a line of a kind is to be written."""
        if not self._log.isEnabledFor(level):
            return False
        if not self._is_open:
            self._is_open = True
            self._later(WINDOW_SECONDS, self.sum_up)
        key = (level, kind)
        if key not in self._counts and len(self._counts) >= MOST_KINDS:
            key = (level, "others")
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count <= MOST_ALIKE

    def sum_up(self) -> None:
        """Write how many lines were left out, and begin anew."""
        counts, self._counts, self._is_open = self._counts, {}, False
        for (level, kind), count in counts.items():
            if count > MOST_ALIKE:
                self._log.log(
                    level,
                    "… and %s more like it within %g s: %s",
                    f"{count - MOST_ALIKE:,}",
                    WINDOW_SECONDS,
                    one_line(kind),
                )


def is_ours(record: logging.LogRecord) -> bool:
    """Say whether to write a record: not gRPC's traceback of a call that its client ended as it was answered."""
    return record.exc_info is None or getattr(record.exc_info[0], "__name__", "") != "ExecuteBatchError"


def set_up(level: str, *, as_json: bool) -> None:
    """Have everything logged to stderr from a level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    handler.addFilter(is_ours)
    logging.basicConfig(level=level.upper(), handlers=[handler])
