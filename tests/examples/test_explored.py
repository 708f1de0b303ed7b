"""Every example under many schedules, in this process."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from stepwire.testing import Takes, explore
from tests.examples.test_examples import CASES

MORE: dict[str, dict[str, Any]] = {
    "race": {"same": lambda run: run.output["article"], "replace": {"ask-sleepy": Takes(30, then={"article": "lamp"})}},
}


@pytest.mark.parametrize("example", CASES)
def test_the_example_ends_the_same_way_under_every_schedule(example: str) -> None:
    event, data, _ = CASES[example]
    app = importlib.import_module(f"examples.{example}").app
    (function,) = [
        each for each in app.functions.values() if event in [trigger.event_name for trigger in each.triggers]
    ]
    assert explore(function, data, app=app, event_name=event, schedules=40, **MORE.get(example, {})).schedules == 40
