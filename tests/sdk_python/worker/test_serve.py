"""Worker processes under a supervisor: none outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import stepwire
from stepwire.testing import ExecutorProcess, WorkerProcess

ROOT = Path(__file__).parents[3]


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_worker_processes_end_with_their_supervisor_even_if_it_is_killed() -> None:
    with (
        ExecutorProcess() as executor,
        WorkerProcess("examples.race:app", executor, processes=2, path=ROOT) as supervisor,
        stepwire.SyncClient(executor.address) as client,
    ):
        pids = connected(client, 2)
        assert supervisor.pid not in pids
        os.kill(supervisor.pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while not all(map(gone, pids)):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_worker_process_that_is_killed_is_started_again() -> None:
    with (
        ExecutorProcess(settings={"session_grace": 0.2}) as executor,
        WorkerProcess("examples.race:app", executor, processes=2, path=ROOT) as supervisor,
        stepwire.SyncClient(executor.address) as client,
    ):
        first = connected(client, 2)
        os.kill(min(first), signal.SIGKILL)
        while len(now := connected(client, 2)) < 2 or now == first:
            time.sleep(0.05)
        assert len(now & first) == 1
        assert supervisor.stop() == 0
        assert all(map(gone, now))


def connected(client: stepwire.SyncClient, count: int) -> set[int]:
    """Wait until so many workers are connected; gives their pids."""
    end = time.monotonic() + 30
    while len(workers := [each for each in client.workers() if each.state == "connected"]) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return {int(worker.instance_id.split("-")[-2]) for worker in workers}
