"""The executor's settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from stepwire_executor.settings import Settings


def test_runs_are_kept_for_ever_unless_told_otherwise() -> None:
    assert Settings().retention is None


@pytest.mark.parametrize(("given", "seconds"), [("30d", 30 * 86400.0), ("12h", 43200.0), ("90", 90.0)])
def test_retention_is_a_duration(monkeypatch: pytest.MonkeyPatch, given: str, seconds: float) -> None:
    monkeypatch.setenv("STEPWIRE_RETENTION", given)
    assert Settings().retention == seconds


@pytest.mark.parametrize("given", ["0", "soon", "-1d"])
def test_a_retention_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("STEPWIRE_RETENTION", given)
    with pytest.raises(ValidationError, match="retention"):
        Settings()
