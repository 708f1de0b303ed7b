"""Reading what the user typed: JSON data, durations, labels. Pure but for reading the file or stdin that was named."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer

from stepwire.cli.exits import CommandError, usage

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")


def json_data(argument: str) -> object:
    """Give the value of `--data`: JSON text, `@file` or `@-` for stdin. Raises a usage problem with line and column."""
    text, source = _text_of(argument)
    try:
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise usage(
            f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}{_shown(text, error.pos)}"
        ) from None
    except UnicodeEncodeError:
        raise usage(f"{source} is not JSON: it holds a lone surrogate, which is no character") from None
    except RecursionError:
        raise usage(f"{source} is nested too deeply") from None
    except ValueError as error:
        raise usage(f"{source} is not JSON: {error}") from None
    return value


def _text_of(argument: str) -> tuple[str, str]:
    if not argument.startswith("@"):
        return argument, "--data"
    name = argument[1:]
    source = "stdin" if name == "-" else name
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8-sig"), source
    except OSError as error:
        raise usage(f"can't read {source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise usage(f"{source} is not UTF-8: byte {error.start}") from None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _shown(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : len(text) if end < 0 else end]
    near = line[max(0, position - start - 20) : position - start + 20].strip()
    return f", near {near!r}" if near else ""


def seconds(argument: str, option: str) -> float:
    """Give a duration like `90s`, `1h30m`, `500ms` or plain seconds, in seconds."""
    text = argument.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise usage(f"{option} {argument!r} is no duration; write it like 30s, 5m, 1h30m or 2d")
    return sum(float(amount) * _UNITS[unit] for amount, unit in parts)


def duration(argument: str | float) -> float:
    """Read an option that is a duration, in seconds: a parser for typer."""
    if isinstance(argument, int | float):
        return float(argument)
    try:
        return seconds(argument, "it is given")
    except CommandError:
        raise typer.BadParameter(f"{argument!r} is no duration; write it like 30s, 5m or 1h30m") from None


def instant(argument: str, option: str, now: datetime) -> datetime:
    """Give a point in time: a duration before `now` like `1h`, or an ISO 8601 time (local if it names no zone)."""
    if re.match(r"\d{4}-", argument):
        try:
            moment = datetime.fromisoformat(argument)
        except ValueError:
            raise usage(f"{option} {argument!r} is no time; write it like 2030-01-31T12:00 or 1h") from None
        return moment.astimezone(UTC)
    try:
        return now - timedelta(seconds=seconds(argument, option))
    except OverflowError:
        raise usage(f"{option} {argument!r} is too long ago") from None


def labels(arguments: list[str]) -> dict[str, str]:
    """Give the labels written as `key=value`."""
    pairs = [argument.partition("=") for argument in arguments]
    for (key, equals, _), argument in zip(pairs, arguments, strict=True):
        if not key or not equals:
            raise usage(f"--label {argument!r} is no label; write it like zone=a")
    return {key: value for key, _, value in pairs}
