"""Log lines: what they carry, as text and as JSON, whoever wrote them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from stepwire.attempt import AttemptContext, enter_attempt, enter_body
from stepwire.worker.logs import AddContext, JsonFormatter, TextFormatter
from stepwire_executor.logs import JsonFormatter as ExecutorsJsonFormatter
from stepwire_executor.logs import TextFormatter as ExecutorsFormatter

ATTEMPT = AttemptContext("run-1", "charge", 2, 3, "shop", "checkout")


class Lines(logging.Handler):
    """Keeps what a formatter makes of each record."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.addFilter(AddContext())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def library() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.some.library")
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.handlers.clear()


def written(library: logging.Logger, formatter: logging.Formatter) -> Lines:
    lines = Lines(formatter)
    library.addHandler(lines)
    return lines


async def in_an_attempt(call: Any) -> Any:
    enter_attempt(ATTEMPT)
    return await asyncio.to_thread(call)


def test_a_line_of_a_library_says_in_which_attempt_it_was_written(library: logging.Logger) -> None:
    lines = written(library, TextFormatter("worker-2"))
    asyncio.run(in_an_attempt(lambda: library.warning("it is %d", 7, extra={"customer": "two words", "n": 1})))
    (line,) = lines.lines
    time, zone_and_rest = line[:23], line[23:]
    assert abs((datetime.fromisoformat(f"{time}+00:00") - datetime.now(UTC)).total_seconds()) < 60
    assert zone_and_rest == (
        "Z WARNING [worker-2] it is 7 app=shop function=checkout run_id=run-1 step=charge index=2 attempt=3 "
        'customer="two words" n=1'
    )


def test_json_lines_have_the_fields_the_time_in_utc_and_the_traceback(library: logging.Logger) -> None:
    lines = written(library, JsonFormatter())

    def fails() -> None:
        try:
            raise ValueError("no such customer")
        except ValueError:
            library.exception("odd", extra={"value": {1}, "message_id": "m"})

    asyncio.run(in_an_attempt(fails))
    (line,) = map(json.loads, lines.lines)
    assert line["time"].endswith("Z")
    assert datetime.fromisoformat(line["time"]).utcoffset() is not None
    fields = {"app": "shop", "function": "checkout", "run_id": "run-1", "step": "charge", "index": 2, "attempt": 3}
    assert fields.items() <= line.items()
    assert (line["level"], line["logger"], line["message"]) == ("error", "tests.some.library", "odd")
    assert (line["value"], line["message_id"]) == ("{1}", "m")
    assert "ValueError: no such customer" in line["error"]


def test_fields_stand_on_the_first_of_several_lines(library: logging.Logger) -> None:
    lines = written(library, TextFormatter())

    def in_a_body() -> None:
        enter_body({"app": "shop", "run_id": "run-1", "attempt": 1})
        library.info("first\nsecond")

    asyncio.run(asyncio.to_thread(in_a_body))
    library.info("outside")
    assert [line.partition(" INFO ")[2] for line in lines.lines] == [
        "first app=shop run_id=run-1 attempt=1\n  second",
        "outside",
    ]


@pytest.mark.parametrize("formatter", [JsonFormatter(), ExecutorsJsonFormatter()])
def test_json_lines_hold_no_control_characters_and_give_all_texts_back(
    library: logging.Logger, formatter: logging.Formatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "propagate", False)
    lines = written(library, formatter)
    text = "".join(map(chr, range(0x20))) + "\x7f\x80\x9b\x9f\u061c\u200e\u2028\u2029\u202a\u202e\u2066\u2069\ud800é"
    library.warning("%s", text, extra={text: [text]}, exc_info=ValueError(text))
    (line,) = lines.lines
    assert line.isprintable()
    record = json.loads(line)
    assert (record["message"], record[text]) == (text, [text])
    assert record["error"] == f"ValueError: {text}"


@pytest.mark.parametrize("formatter", [TextFormatter(), ExecutorsFormatter()])
def test_a_text_forges_no_line_and_moves_no_cursor(
    library: logging.Logger, formatter: logging.Formatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "propagate", False)  # pytest-xdist can't send lone surrogates
    lines = written(library, formatter)
    try:
        raise ValueError("no\x1b[31m\n2026-01-01 00:00:00.000Z ERROR forged\ud800")
    except ValueError:
        library.exception("a\rb\x00\n2026-01-01 00:00:00.000Z ERROR forged", extra={"k\n2026-01-01": "v\n2026-01-01"})
    (text,) = lines.lines
    assert [line[:2] for line in text.splitlines()[1:]] == ["  "] * (len(text.splitlines()) - 1)
    assert text.replace("\n", "").isprintable()
    assert "a\\rb\\x00" in text
    assert "ValueError: no\\x1b[31m\n  2026-01-01 00:00:00.000Z ERROR forged\\ud800" in text


def test_json_lines_are_json_whatever_their_fields_are(
    library: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "propagate", False)
    lines = written(library, JsonFormatter())
    library.info("odd", extra={"n": float("nan"), "text": "\ud800"})

    def refuse(word: str) -> None:
        raise ValueError(word)

    assert json.loads(lines.lines[0], parse_constant=refuse)["n"] == "nan"


def test_a_logger_of_an_attempt_keeps_what_a_call_adds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stepwire.step"):
        ATTEMPT.logger.info("hello", extra={"customer": 7})
    (record,) = caplog.records
    assert record.__dict__.items() >= {**ATTEMPT.fields, "customer": 7}.items()


def test_an_exception_that_cant_be_written_costs_no_line(library: logging.Logger) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    for formatter in (TextFormatter(), JsonFormatter()):
        lines = written(library, formatter)
        library.error("odd", exc_info=OddError(), extra={"value": OddError()})
        (line,) = lines.lines
        assert "odd" in line
        library.handlers.clear()
