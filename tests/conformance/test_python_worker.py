"""The Python SDK holds every conversation of the kit: one test for each case."""

from __future__ import annotations

from typing import Any

import pytest

from stepwire_conformance import worker_cases
from tests.conformance.kit import PYTHON_WORKER, run_kit

pytestmark = pytest.mark.timeout(300)
CASES = [named.name for named in worker_cases()]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of all cases that this session is about, run side by side."""
    here = [item for item in request.session.items if item.path == request.path]
    chosen = [item.callspec.params["case"] for item in here if isinstance(item, pytest.Function) and item.callspec]
    options = [part for case in chosen for part in ("--case", case)]
    _, report, output = run_kit(tmp_path_factory.mktemp("kit"), "worker", *options, "--", *PYTHON_WORKER)
    assert report, output
    return {result["case"]: result for result in report["cases"]}


@pytest.mark.parametrize("case", CASES)
def test_case(results: dict[str, Any], case: str) -> None:
    result = results[case]
    told = "\n".join([result["why"], *result.get("conversation", ()), result.get("output", "")])
    assert result["outcome"] == "passed", f"{result['shows']} ({result['rule']})\n{told}"
