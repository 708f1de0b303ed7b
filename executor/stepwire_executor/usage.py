"""`stepwire executor --help`: every setting with its variable and default, drawn as the other commands draw theirs."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any, get_args

from pydantic.fields import FieldInfo

from stepwire_executor.settings import Settings

NARROWEST, WIDEST = 60, 160
_BYTES, _FILES = "_bytes", ("_file", "certificate", "_key", "_ca")


def text() -> str:
    """Write the help for the width of the terminal, or of COLUMNS."""
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    rows = [row(name, field) for name, field in Settings.model_fields.items()]
    rows.append(("--help", "", "Show this message and exit."))
    flags = max(len(flag) for flag, _, _ in rows)
    kinds = max(len(kind) for _, kind, _ in rows)
    room = width - flags - kinds - 8
    lines = []
    for flag, kind, words in rows:
        first, *more = textwrap.wrap(words, room, break_on_hyphens=False) or [""]
        lines.append(f"│ {flag:<{flags}}  {kind:<{kinds}}  {first:<{room}} │")
        lines += [f"│ {'':<{flags}}  {'':<{kinds}}  {each:<{room}} │" for each in more]
    head = [
        "",
        " Usage: stepwire executor [OPTIONS]",
        "",
        " Run an executor: it keeps runs and hands out their steps.",
        "",
        " Every option is a variable too; options come first. A duration is seconds, or like 500ms, 30s, 5m, 2h, 1d.",
        "",
    ]
    top, bottom = "╭─ Options " + "─" * (width - 12) + "╮", "╰" + "─" * (width - 2) + "╯"
    written = [wrapped for line in head for wrapped in (textwrap.wrap(line, width - 1, subsequent_indent=" ") or [""])]
    return "\n".join([*written, top, *lines, bottom, ""]) + "\n"


def row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    """Give a setting's flag, what it takes, and what it means."""
    description = (field.description or "").rpartition(" [STEPWIRE_")[0] or (field.description or "")
    if ":" not in description.split()[0]:
        description = f"{description[:1].upper()}{description[1:]}"
    words = f"{description}. [env var: STEPWIRE_{name.upper()}]"
    default = field.default
    if default not in (None, "", False):
        words += f" [default: {default:g}s]" if _is_duration(field) else f" [default: {default}]"
    return "--" + name.replace("_", "-"), _kind(name, field), words


def _kind(name: str, field: FieldInfo) -> str:
    kinds: set[Any] = {field.annotation, *get_args(field.annotation)}
    if _is_duration(field):
        return "DURATION"
    if bool in kinds:
        return ""
    if int in kinds:
        return "BYTES" if name.endswith(_BYTES) else "NUMBER"
    if name == "log_level":
        return "LEVEL"
    if name in ("history",):
        return "FOLDER"
    return {"store": "URL", "host": "HOST"}.get(name, "FILE" if name.endswith(_FILES) else "TEXT")


def _is_duration(field: FieldInfo) -> bool:
    return "float" in str(field.annotation)
