"""No process outlives the test run that started it, even if that is killed by SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.processes import ROOT

STARTS_SECONDS = 90.0
ENDS_SECONDS = 10.0


def living() -> dict[int, tuple[int, str]]:
    """Return each process of the machine with its parent and its start, which tells it from later ones."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "stat").read_text().rsplit(")", 1)[1].split() if entry.name.isdecimal() else []
        except OSError:
            continue
        if words and words[0] not in "ZX":
            found[int(entry.name)] = int(words[1]), words[19]
    return found


def descendants(pid: int) -> set[int]:
    """Return the processes that a process has started, and that these have started, and so on."""
    parents = {child: parent for child, (parent, _) in living().items()}
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def until(reached: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def the_run(run: int) -> int:
    return run


def the_xdist_worker(run: int) -> int:
    (worker,) = (child for child, (parent, _) in living().items() if parent == run)
    return worker


@pytest.mark.parametrize(
    ("kind", "options", "victim"),
    [
        ("python", [], the_run),
        ("python", ["-n", "1"], the_run),
        ("python", ["-n", "1"], the_xdist_worker),
        ("forked", [], the_run),
        ("typescript", [], the_run),
        pytest.param("postgresql", [], the_run, marks=pytest.mark.needs("postgresql")),
    ],
)
def test_no_process_outlives_a_test_run_that_is_killed(
    tmp_path: Path, kind: str, options: list[str], victim: Callable[[int], int]
) -> None:
    ready, log = tmp_path / "ready", tmp_path / "log"
    program = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", f"test_{kind}", *options, str(program)]
    variables = {**os.environ, "KILLED_RUN_READY": str(ready)}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=output) as run,
    ):
        try:
            assert until(lambda: ready.exists() or run.poll() is not None, STARTS_SECONDS), log.read_text()
            assert run.poll() is None, log.read_text()
            started = living()
            killed = victim(run.pid)
            children = {killed} | descendants(killed) | {int(pid) for pid in ready.read_text().split()}
            assert len(children) >= 3
            os.kill(killed, signal.SIGKILL)
            mine = {(pid, started[pid]) for pid in children}

            def left() -> set[int]:
                now = living()
                return {pid for pid, (_, start) in mine if pid in now and now[pid][1] == start}

            until(lambda: not left(), ENDS_SECONDS)
            assert {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left()} == {}
        finally:
            run.kill()
