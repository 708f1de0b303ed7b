"""Log lines for people, or as JSON objects for machines: what a record says, where it comes from, and its fields."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

from stepwire.attempt import current_fields
from stepwire.failures import is_vast, type_name
from stepwire.visible import escaped_json, indented

CONTEXT = ("app", "function", "run_id", "step", "index", "attempt")
"""Fields that say where a line comes from, in the order in which they are shown."""
_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}


class AddContext(logging.Filter):
    """Gives each record of step code and of bodies their app, function, run_id, step, index and attempt.

    Add it to a handler, so that it sees the records of every library. `serve` does; an embedded worker's program may.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields that the record does not have; every record passes."""
        for key, value in current_fields().items():
            record.__dict__.setdefault(key, value)
        return True


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Give the fields that a record was given beside its message."""
    given = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
    return {**{key: given[key] for key in CONTEXT if key in given}, **given}


def iso(seconds: float, separator: str = "T") -> str:
    """Write a time, given in Unix seconds, as ISO 8601 has it, in UTC with milliseconds."""
    written = datetime.fromtimestamp(seconds, UTC).isoformat(separator, "milliseconds")
    return written.removesuffix("+00:00") + "Z"


class TextFormatter(logging.Formatter):
    """Writes a record as a line for people: time, level, message, and its fields as key=value.

    `process` is shown before the message if it is not empty: its name among several.
    """

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = f"[{process}] " if process else ""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; what follows its first line, like a traceback, is indented. So nothing forges a record."""
        head, newline, rest = record.getMessage().partition("\n")
        fields = "".join(
            f" {_word(key)}={_word(value)}" for key, value in fields_of(record).items() if _is_worth(key, value)
        )
        text = f"{iso(record.created, ' ')} {record.levelname} {self._process}{head}{fields}{newline}{rest}"
        return indented(f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Write a traceback; an exception that can't be written does not cost the line."""
        return _traceback(super().formatException, ei)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line: time, level, logger, process, message, its fields, error."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = process or str(os.getpid())

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line = {
            "time": iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in fields_of(record).items() if key not in line}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        try:
            text = json.dumps(line, ensure_ascii=False, allow_nan=False, default=_text)
        except (TypeError, ValueError):  # a key that is no text, a circle, or a number that JSON does not know
            text = json.dumps({key: _text(value) for key, value in line.items()}, ensure_ascii=False)
        return escaped_json(text)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Write a traceback; an exception that can't be written does not cost the line."""
        return _traceback(super().formatException, ei)


def _traceback(write: Any, ei: Any) -> str:
    if ei[1] is not None and is_vast(ei[1]):
        return f"(the traceback of {type_name(ei[1])} has too many members)"
    try:
        text: str = write(ei)
    except BaseException as worse:
        return f"(the traceback can't be had: {type_name(worse)})"
    return text


def _text(value: object) -> str:
    try:
        return value if isinstance(value, str) else str(value)
    except BaseException as worse:
        return f"(can't be written: {type_name(worse)})"


def _is_worth(key: str, value: object) -> bool:
    """Whether people learn anything from a field."""
    return not (value == "" or (key == "index" and value == 0))


def _word(value: object) -> str:
    """Write a field's value: as it is if that is one word, else quoted."""
    text = _text(value)
    plain = text and text.isprintable() and not any(each in text for each in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)


def set_up(level: str, *, as_json: bool, process: str = "") -> None:
    """Have everything logged to stderr from a level on; `process` is this one's name if there are several."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if as_json else TextFormatter(process))
    handler.addFilter(AddContext())
    logging.basicConfig(level=level.upper(), handlers=[handler])
