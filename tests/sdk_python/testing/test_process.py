"""Processes that a test owns, tried with small Python programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from stepwire.testing.process import ManagedProcess, ProcessError, environment

STAYS = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def stop(*_):
    print("drained", flush=True)
    child.kill()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", child.pid, flush=True)
time.sleep(600)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


class Program(ManagedProcess):
    """A Python program that says that it is ready."""

    def __init__(self, source: str, **extra: str) -> None:
        super().__init__("program", None, extra)
        self.source = source

    @property
    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", self.source]

    def wait_ready(self, timeout: float) -> None:
        self.wait_until(lambda: "ready" in self.log, "being ready", timeout)


def lives(pid: int) -> bool:
    """Whether a process lives; one that waits for its parent to be told of its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Whether a process ends soon."""
    deadline = time.monotonic() + 10
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not lives(pid)


def test_leaving_the_context_stops_the_process_in_good_order():
    with Program(STAYS) as program:
        assert program.running
        folder = program.folder
    assert program.returncode == 0
    assert not folder.exists()


async def test_it_is_an_async_context_manager_too():
    async with Program(STAYS) as program:
        assert program.running
    assert not program.running


def test_stop_gives_the_exit_code_and_keeps_the_output():
    with Program(STAYS) as program:
        assert program.stop() == 0
        assert "drained" in program.log


def test_kill_leaves_no_time_to_drain_and_restart_starts_it_anew():
    with Program(STAYS) as program:
        first = program.pid
        program.kill()
        assert program.returncode == -signal.SIGKILL
        program.restart()
        assert program.running
        assert program.pid != first
        assert "drained" not in program.log


def test_what_the_process_started_is_killed_with_it():
    with Program(STAYS) as program:
        child = int(program.log.split()[1])
        program.kill()
        assert lives(child)
    assert ends(child)


def test_a_process_that_ends_before_it_is_ready_shows_its_last_output():
    program = Program("print('no such store'); raise SystemExit(3)")
    with pytest.raises(ProcessError, match="ended with exit code 3 before being ready; its last output was\n  no such"):
        program.start()
    program.destroy()


def test_a_process_that_is_never_ready_is_killed():
    program = Program("import time; time.sleep(600)")
    with pytest.raises(ProcessError, match=r"did not get to being ready within 0\.2 s"):
        program.start(timeout=0.2)
    assert not program.running
    program.destroy()


def test_a_process_that_does_not_heed_sigterm_is_killed_and_reported():
    with Program(DEAF) as program:
        with pytest.raises(ProcessError, match=r"still ran after 0\.2 s and was killed"):
            program.stop(timeout=0.2)
        assert not program.running


def test_the_end_of_python_kills_what_runs_still(tmp_path: Path):
    script = tmp_path / "leaves.py"
    script.write_text(
        "import sys\n"
        "from stepwire.testing import ExecutorProcess\n"
        "class Sleeper(ExecutorProcess):\n"
        "    command = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "    def wait_ready(self, timeout): pass\n"
        "print(Sleeper().start().pid)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert ends(int(done.stdout))


def test_variables_of_the_surroundings_do_not_reach_the_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEPWIRE_PORT", "1")
    assert "STEPWIRE_PORT" not in environment({})
    assert environment({"STEPWIRE_PORT": "2"})["STEPWIRE_PORT"] == "2"
    assert environment({})["PATH"] == os.environ["PATH"]


def test_starting_twice_is_refused():
    with Program(STAYS) as program, pytest.raises(ProcessError, match="runs already"):
        program.start()
