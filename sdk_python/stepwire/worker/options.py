"""Checks of a worker's options, the same for `stepwire worker`, `python -m stepwire.worker` and a `Worker` of yours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stepwire.app import App
from stepwire.arguments import text
from stepwire.errors import StepwireError

MOST_SLOTS = 10_000
MOST = 1_000_000


def check_options(
    *, slots: int, max_invocations: int, drain_seconds: float, labels: Mapping[str, str], processes: int = 1
) -> None:
    """Raise StepwireError for an option that is out of range."""
    _check_number("slots", slots, 1, MOST_SLOTS)
    _check_number("processes", processes, 1, MOST_SLOTS)
    _check_number("max_invocations", max_invocations, 1, MOST)
    is_number = isinstance(drain_seconds, int | float) and not isinstance(drain_seconds, bool)
    if not is_number or not math.isfinite(drain_seconds) or drain_seconds < 0:
        raise StepwireError(f"drain_seconds is {drain_seconds!r}: give a number of seconds, 0 or more")
    if not isinstance(labels, Mapping):
        raise StepwireError(f"labels is {labels!r}: give names and their texts, like {{'zone': 'a'}}")
    for key, value in labels.items():
        if not isinstance(key, str) or not key or not isinstance(value, str):
            raise StepwireError(f"the label {key!r}={value!r} is none: give texts, like zone=a")
        text(f"{key}={value}", "a label")


def check_app(app: Any) -> None:
    """Raise StepwireError for what is no app, and for one with nothing to serve."""
    if not isinstance(app, App):
        raise StepwireError(f"a worker serves a stepwire.App, not {app!r}")
    if not app.functions and not app.tasks:
        raise StepwireError(
            f"app {app.name!r} has nothing to serve: declare a function with @app.function or a task with @app.task, "
            "and import the modules that do"
        )


def labels_of(given: Sequence[str]) -> dict[str, str]:
    """Read labels written as KEY=VALUE. Raises StepwireError."""
    for label in given:
        if label.find("=") < 1:
            raise StepwireError(f"--label {label!r} is no label: write it like zone=a")
    return dict(label.partition("=")[::2] for label in given)


def _check_number(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise StepwireError(f"{name} is {value!r}: give a whole number from {least} to {most:,}")
