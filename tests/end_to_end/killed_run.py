"""Tests that start processes of every kind and never end: `test_killed_runs` runs and kills them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from stepwire.testing import CommandWorker, ExecutorProcess, WorkerProcess
from tests.end_to_end.processes import FLOWS
from tests.faults.forked import ForkedExecutor, ForkedWorker
from tests.polyglot import typescript
from tests.postgres import Cluster

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"


def stay(*detached: int) -> None:
    """Tell that all is started, and the ids of processes that have left this one's tree; then hang."""
    ready = Path(os.environ["KILLED_RUN_READY"])
    scratch = ready.with_suffix(".new")
    scratch.write_text(" ".join(map(str, detached)))
    scratch.replace(ready)
    time.sleep(600)


def test_python(tmp_path: Path) -> None:
    with ExecutorProcess(folder=tmp_path) as executor, WorkerProcess(FLOWS, executor, processes=2, folder=tmp_path):
        deaf = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, start_new_session=True)
        assert deaf.stdout is not None
        assert deaf.stdout.readline()
        orphan = subprocess.run(
            ["sh", "-c", "setsid sleep 600 >&- & echo $!"], stdout=subprocess.PIPE, check=True
        ).stdout
        stay(int(orphan))


def test_forked(tmp_path: Path) -> None:
    executor = ForkedExecutor(folder=tmp_path)
    executor.start()
    ForkedWorker(FLOWS, executor, folder=tmp_path).start()
    stay()


def test_typescript(tmp_path: Path) -> None:
    with ExecutorProcess(folder=tmp_path) as executor:
        CommandWorker(typescript.command("tests/apps/fleet"), executor.address, folder=tmp_path).start()
        stay()


def test_postgresql(tmp_path: Path, cluster: Cluster) -> None:
    with ExecutorProcess(settings={"store": cluster.url(cluster.database())}, folder=tmp_path):
        stay()
