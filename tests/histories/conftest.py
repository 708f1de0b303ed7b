"""The story that tests break: made once, copied for each."""

from __future__ import annotations

import copy
import logging

import pytest

from tests.histories.story import Story


@pytest.fixture(scope="session")
def original() -> Story:
    logging.disable(logging.CRITICAL)
    story = Story()
    logging.disable(logging.NOTSET)
    return story


@pytest.fixture
def story(original: Story) -> Story:
    return copy.deepcopy(original)
