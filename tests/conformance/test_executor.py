"""Our executor, as a real process, holds every conversation of the kit: one test for each case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepwire.testing import ExecutorProcess
from stepwire_conformance import executor_cases
from tests.conformance.kit import outcomes, run_kit

CASES = [named.name for named in executor_cases()]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    _, report, output = run_kit(tmp_path_factory.mktemp("kit"), "executor")
    assert report, output
    return {result["case"]: result for result in report["cases"]}


@pytest.mark.parametrize("case", CASES)
def test_case(results: dict[str, Any], case: str) -> None:
    result = results[case]
    told = "\n".join([result["why"], *result.get("conversation", ())])
    assert result["outcome"] == "passed", f"{result['shows']} ({result['rule']})\n{told}"


def test_an_executor_that_runs_already_is_left_running(tmp_path: Path) -> None:
    with ExecutorProcess() as executor:
        for _ in range(2):  # the same names again
            options = ("--address", executor.address, "--case", "run", "--case", "retry")
            code, report, output = run_kit(tmp_path, "executor", *options)
            assert outcomes(report) == {"run": "passed", "retry": "passed"}, output
            assert code == 0
        assert executor.running
