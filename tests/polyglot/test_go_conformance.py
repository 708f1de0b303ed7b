"""The conformance kit's verdict on the worker in Go."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.polyglot.go_worker import run_go

LEAST_CASES = 77
"""How many cases are about workers that have tasks only, as far as we know; there may be more of them by now."""


@pytest.mark.timeout(400)
def test_it_passes_every_case_that_is_about_tasks(tmp_path: Path) -> None:
    program = tmp_path / "conformance"
    run_go("build", "-o", str(program), "./conformance")
    command = [str(Path(sys.executable).parent / "stepwire"), "conformance", "worker", "--", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    verdict = re.search(r"(\d+) of (\d+) cases passed", said)
    assert verdict, said
    assert int(verdict[1]) == int(verdict[2]) >= LEAST_CASES
