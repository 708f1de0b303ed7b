"""Clients in four languages: generated, compiled, and run against a real executor with a worker in Python."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stepwire.testing import ExecutorProcess, WorkerProcess
from tests.end_to_end.processes import ROOT
from tests.postgres import free_port
from tools import clients, toolchains
from tools.needs import NEEDS

BUILDS: dict[str, Sequence[Sequence[str]]] = {
    "java": [("mvn", "--batch-mode", "--quiet", "process-classes")],
    "cpp": [("cmake", "-S", ".", "-B", "build"), ("cmake", "--build", "build", "--parallel", "2")],
    "typescript": [
        ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"),
        ("npm", "run", "--silent", "build"),
    ],
    "go": [("go", "build", "-o", "client", ".")],  # the last: the worker's tests have compiled gRPC by then
}
PROGRAMS: dict[str, Sequence[str]] = {
    "go": ["./client"],
    "java": ["java", "-cp", f"target/classes{os.pathsep}target/lib/*", "Client"],
    "cpp": ["build/client"],
    "typescript": ["node", "dist/src/client.js"],
}


@pytest.fixture(scope="module")
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process, WorkerProcess("tests.polyglot.apps:app", process, path=ROOT):
        yield process


@pytest.mark.timeout(400)  # the first time it compiles on two cores
@pytest.mark.parametrize(
    "language",
    [pytest.param(each, marks=pytest.mark.needs(each) if each in NEEDS else ()) for each in BUILDS],
)
def test_the_client_sends_an_event_and_prints_what_its_run_returns(
    language: str, executor: ExecutorProcess, tmp_path: Path
) -> None:
    folder = tmp_path / language
    made = shutil.ignore_patterns("gen", "target", "build", "dist", "node_modules")
    shutil.copytree(clients.EXAMPLES / language, folder, ignore=made)
    clients.generate(language, folder)
    variables = toolchains.environment(*clients.TOOLS[language]())
    for command in BUILDS[language]:
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"

    def client(*words: str) -> tuple[int, str, str]:
        command = [*PROGRAMS[language], *words]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    code, output, problem = client(executor.address, "greeting/wanted", '{"name": "Zoë"}')
    assert (code, problem) == (0, "")
    assert json.loads(output) == {"greeting": "Hello, Zoë!"}

    largest = 3_000_000  # --max-output-bytes
    code, output, problem = client(executor.address, "output/wanted", json.dumps({"bytes": largest}))
    assert (code, problem, len(output.strip())) == (0, "", largest)

    code, output, problem = client(executor.address, "insult/wanted", "{}")
    assert (code, output) == (1, "")
    assert problem.strip().endswith("has not succeeded: NonRetriableError: we are polite here")

    code, output, problem = client(executor.address, "nobody/listens", "{}")
    assert (code, output) == (1, "")
    assert problem.strip() == "no function takes the event nobody/listens: has its worker been connected?"

    code, output, problem = client(executor.address, "greeting/wanted", "{name")
    assert (code, output) == (1, "")
    assert problem.startswith(f"the executor at {executor.address}: ")
    assert "JSON" in problem

    absent = f"127.0.0.1:{free_port()}"
    code, output, problem = client(absent, "greeting/wanted", "{}")
    assert (code, output) == (1, "")
    assert problem.lower().startswith(f"the executor at {absent}: unavailable: ")
    assert "refused" in problem.lower()


@pytest.mark.parametrize("language", BUILDS)
def test_the_guide_has_the_commands_that_are_tested(language: str) -> None:
    commands = [
        [".venv/bin/python", "tools/clients.py", language, f"examples/clients/{language}"],
        ["cd", f"examples/clients/{language}"],
        *BUILDS[language],
        [*PROGRAMS[language], "127.0.0.1:8377", "greeting/wanted", '{"name": "Ada"}'],
    ]
    assert "\n".join(map(shlex.join, commands)) in (ROOT / "docs" / "other-languages.md").read_text()
