"""The benchmarks run, and say what they measured. How fast they are is no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stepwire.bench.workloads import WORKLOADS
from stepwire.testing import ExecutorProcess

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_every_workload_but_the_largest_is_measured_on_a_fresh_executor():
    names = [workload.name for workload in WORKLOADS if workload.name != "fan-10000"]
    done = run("stepwire.cli", "bench", *names, "--repeat", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == names
    for name, figures in found.items():
        assert figures["steps_per_second"] > 0, name
        assert len(figures["seconds"]) == (100 if name == "chain-3" else 1)


def test_another_executor_is_measured_and_keeps_the_runs():
    with ExecutorProcess() as executor:
        done = run("stepwire.cli", "bench", "fan-100", "--executor", executor.address, "--repeat", "1")
        assert done.returncode == 0, done.stderr
        assert "one run, 100 parallel steps" in done.stdout
        listed = run("stepwire.cli", "runs", "list", "--executor", executor.address, "--json")
        assert len(json.loads(listed.stdout)["runs"]) == 2


def test_what_can_not_be_measured_is_said():
    unknown = run("stepwire.cli", "bench", "fan-7")
    assert unknown.returncode == 2
    assert "there is no workload 'fan-7': there are fan-100" in unknown.stderr
    away = run("stepwire.cli", "bench", "--executor", "127.0.0.1:1")
    assert away.returncode != 0
    assert "127.0.0.1:1" in away.stderr


def test_the_table_has_the_limits_beside_it(tmp_path: Path):
    file = tmp_path / "figures.json"
    done = run("benchmarks", "fan-100", "--repeat", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "| fan-100 |" in done.stdout
    assert {"machine", "workloads", "limits"} == json.loads(file.read_text()).keys()


@pytest.mark.parametrize(
    "name", ["growth", "fairness", "neighbours", "work", "tracing", "values", "languages", "pairs"]
)
def test_every_further_benchmark_says_what_it_measures(name: str):
    done = run(f"benchmarks.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m benchmarks.{name}" in done.stdout
    assert "--json" in done.stdout


def test_values_are_measured_with_their_memory_and_frames(tmp_path: Path):
    file = tmp_path / "figures.json"
    done = run("benchmarks.values", "--repeat", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    measured = json.loads(file.read_text())["values"]
    assert [(each["steps"], each["bytes"]) for each in measured.values()] == [(1_000, 100_000), (20, 4 << 20)]
    for each in measured.values():
        assert 0 < max(each["largest_frame_bytes"].values()) <= 1 << 20
