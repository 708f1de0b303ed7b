"""`stepwire send --wait` when the executor or the first worker is still on its way."""

from __future__ import annotations

import subprocess
import sys

from stepwire.testing import ExecutorProcess, WorkerProcess
from tests.end_to_end.processes import ROOT

TARGET = "tests.end_to_end.apps.failing:app"


def sending(executor: ExecutorProcess, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stepwire.cli", "send", name, "--wait", "--executor", executor.address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_send_that_waits_waits_for_the_first_worker() -> None:
    with ExecutorProcess() as executor:
        send = sending(executor, "goes-well")
        assert send.stderr is not None
        assert "no worker is there yet: waiting up to 10 s" in send.stderr.readline()
        with WorkerProcess(TARGET, executor, path=ROOT):
            output, _ = send.communicate(timeout=60)
    assert send.returncode == 0, output


def test_a_send_that_waits_waits_for_the_executor_too() -> None:
    with ExecutorProcess() as executor:
        executor.stop()
        send = sending(executor, "goes-well")
        assert send.stderr is not None
        assert "no executor is there yet: waiting up to 10 s" in send.stderr.readline()
        executor.start()
        with WorkerProcess(TARGET, executor, path=ROOT):
            output, _ = send.communicate(timeout=60)
    assert send.returncode == 0, output


def test_a_name_that_no_function_takes_is_told_at_once_where_workers_are() -> None:
    with ExecutorProcess() as executor, WorkerProcess(TARGET, executor, path=ROOT):
        send = sending(executor, "goes-wel")
        _, errors = send.communicate(timeout=60)
    assert send.returncode == 3
    assert "Did you mean goes-well?" in errors
    assert "waiting" not in errors
