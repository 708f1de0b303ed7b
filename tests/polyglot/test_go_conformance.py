"""The conformance kit's verdict on the worker in Go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.kit import outcomes, run_kit
from tests.polyglot.go_worker import run_go

LEAST_CASES = 77
"""How many cases are about workers that have tasks only, as far as we know; there may be more of them by now."""


@pytest.mark.needs("go")
@pytest.mark.timeout(400)
def test_it_passes_every_case_that_is_about_tasks(tmp_path: Path) -> None:
    program = tmp_path / "conformance"
    run_go("build", "-o", str(program), "./conformance")
    code, report, output = run_kit(tmp_path, "worker", "--", str(program))
    found = outcomes(report)
    assert code == 0, output
    assert [case for case, outcome in found.items() if outcome == "failed"] == [], output
    assert list(found.values()).count("passed") >= LEAST_CASES
