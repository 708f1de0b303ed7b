"""The least versions in pyproject.toml are true: generated code accepts them, and a small job runs with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GENERATED = ROOT / "proto" / "gen" / "stepwire_proto"
PROJECT = str(ROOT / "pyproject.toml")
SOURCES = [str(ROOT / folder) for folder in ("sdk_python", "executor", "proto/gen")]
JOB = """
import stepwire
from stepwire.testing import ExecutorProcess, WorkerProcess

app = stepwire.App("least")


def double(number: int) -> int:
    return 2 * number


@app.function("job", trigger="job")
async def job(ctx: stepwire.Context, step: stepwire.Step) -> int:
    return sum(await step.map("double", double, range(10)))


if __name__ == "__main__":
    with ExecutorProcess() as executor, WorkerProcess("least:app", executor):
        with stepwire.SyncClient(executor.address) as client:
            print(client.result(client.send("job").run_ids[0], 60))
"""

Version = tuple[int, ...]


def version(text: str) -> Version:
    return tuple(map(int, text.split(".")))


def bounds() -> dict[str, Version]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["executor"]]
    return {name: version(least) for name, least in (re.split(r">=", each.split(",")[0]) for each in wanted)}


def newest_demand(files: str, pattern: str) -> Version:
    """Give the newest version that one of the generated files asks for."""
    found = [
        version(".".join(each)) for file in GENERATED.rglob(files) for each in re.findall(pattern, file.read_text())
    ]
    assert found
    return max(found)


def test_the_least_protobuf_is_one_that_the_generated_code_accepts() -> None:
    demanded = newest_demand("*_pb2.py", r"Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+),")
    assert bounds()["protobuf"] >= demanded


@pytest.mark.parametrize("package", ["grpcio", "grpcio-status", "grpcio-health-checking", "grpcio-reflection"])
def test_the_least_grpcio_is_one_that_the_generated_code_accepts(package: str) -> None:
    demanded = newest_demand("*_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '(\d+)\.(\d+)\.(\d+)'")
    assert bounds()[package] >= demanded


@pytest.mark.timeout(400)  # it installs from the package index
def test_a_small_job_runs_with_the_least_versions(tmp_path: Path) -> None:
    environment = tmp_path / "least"
    venv.create(environment)
    python = str(environment / "bin" / "python")

    def run(*command: str) -> str:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(*extras: str) -> None:
        least = ["--resolution", "lowest-direct", "--only-binary", ":all:"]
        words: Sequence[str] = [word for extra in extras for word in ("--extra", extra)]
        run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *least, *words, "-r", PROJECT)

    install()
    assert "Durable functions" in run(python, "-m", "stepwire", "--help")
    run(python, "-c", "from stepwire import *")
    install("executor")
    (tmp_path / "least.py").write_text(JOB)
    assert run(python, "least.py") == "90\n"
