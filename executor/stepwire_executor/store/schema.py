"""The schema's migrations: numbered scripts in SQLite's words, which `postgres_sql.py` translates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources


@cache
def migrations() -> Sequence[str]:
    """Give the scripts in their order; the first brings an empty database to version 1."""
    folder = resources.files("stepwire_executor.store") / "migrations"
    scripts = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    for number, file in enumerate(scripts, 1):
        assert file.name.startswith(f"{number:04}_"), f"{file.name} should be migration {number:04}"
    return tuple(file.read_text(encoding="utf-8") for file in scripts)
