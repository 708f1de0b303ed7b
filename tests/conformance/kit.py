"""Running the kit's command for a test, as anybody would outside of this repository."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
KIT_SECONDS = 280
PYTHON_WORKER = [sys.executable, str(HERE / "python_worker.py")]


def broken(bug: str) -> list[str]:
    """The command of a worker with a bug."""
    return [sys.executable, str(HERE / "broken_worker.py"), bug]


def run_kit(folder: Path, kind: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run `stepwire conformance KIND`; gives the exit code, the report and the output."""
    file = folder / "report.json"
    command = [sys.executable, "-m", "stepwire.cli", "conformance", kind, "--json", str(file), *arguments]
    variables = {**os.environ, "COLUMNS": "200"}
    kit = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables)
    try:
        output, _ = kit.communicate(timeout=KIT_SECONDS)
    except BaseException:  # the test's time is over: the kit ends what it has started
        kit.send_signal(signal.SIGINT)
        kit.communicate(timeout=30)
        raise
    report = json.loads(file.read_text()) if file.exists() else {}
    return kit.returncode, report, output


def chosen_results(request: pytest.FixtureRequest, folder: Path, command: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run those cases against a worker, side by side, that the session has chosen from a module of tests by case."""
    here = [item for item in request.session.items if item.path == request.path]
    chosen = [item.callspec.params["case"] for item in here if isinstance(item, pytest.Function) and item.callspec]
    options = [part for case in chosen for part in ("--case", case)]
    _, report, output = run_kit(folder, "worker", *options, "--", *command)
    assert report, output
    return {result["case"]: result for result in report["cases"]}


def explained(result: dict[str, Any]) -> str:
    """Say what a case is about, and what happened."""
    told = "\n".join([result["why"], *result.get("conversation", ()), result.get("output", "")])
    return f"{result['shows']} ({result['rule']})\n{told}"


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    """Each case's outcome."""
    return {case["case"]: case["outcome"] for case in report["cases"]}
