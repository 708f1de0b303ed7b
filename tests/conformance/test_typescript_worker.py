"""The TypeScript SDK holds every conversation of the kit, but those about a body that gives a step up."""

from __future__ import annotations

from typing import Any

import pytest

from stepwire_conformance import worker_cases
from tests.conformance.kit import chosen_results, explained
from tests.polyglot import typescript

pytestmark = pytest.mark.timeout(300)
CASES = {named.name: "gives-up" not in named.case.needs.functions for named in worker_cases()}
"""Each case, and whether it can be offered: a promise can't be cancelled."""


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = typescript.command("tests/apps/conformance")
    return chosen_results(request, tmp_path_factory.mktemp("kit"), command)


@pytest.mark.parametrize("case", CASES)
def test_case(results: dict[str, Any], case: str) -> None:
    expected = "passed" if CASES[case] else "not offered"
    assert results[case]["outcome"] == expected, explained(results[case])
