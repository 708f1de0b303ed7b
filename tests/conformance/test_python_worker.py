"""The Python SDK holds every conversation of the kit: one test for each case."""

from __future__ import annotations

from typing import Any

import pytest

from stepwire_conformance import worker_cases
from tests.conformance.kit import PYTHON_WORKER, chosen_results, explained

pytestmark = pytest.mark.timeout(300)
CASES = [named.name for named in worker_cases()]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return chosen_results(request, tmp_path_factory.mktemp("kit"), PYTHON_WORKER)


@pytest.mark.parametrize("case", CASES)
def test_case(results: dict[str, Any], case: str) -> None:
    assert results[case]["outcome"] == "passed", explained(results[case])
