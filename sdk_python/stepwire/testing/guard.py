"""Kill what a test process leaves behind, however it ends: SIGKILL gives it no chance to do so itself.

Children are marked by a variable of their environment. They hand it on to what they start, in any
session, process group or user. So nobody keeps a list: when the test process has ended, its guard
looks for the mark in /proc. The guard is this file, run as `python guard.py PID NAME`; it imports
no other module of Stepwire.
"""

from __future__ import annotations

import functools
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import NamedTuple

ROUNDS = 100
"""How often the guard looks, at most: a process may start another in the instant of its death."""
PAUSE_SECONDS = 0.05


def mark() -> dict[str, str]:
    """Return the variable that marks children of this process. The first call starts its guard.

    Return nothing where the system has no /proc or no pidfds (macOS; Linux before 5.3).
    """
    return dict(_guarded(os.getpid()))


@functools.cache
def _guarded(pid: int) -> dict[str, str]:
    name = f"ENDS_WITH_{pid}_{secrets.token_hex(8)}"
    command = [sys.executable, "-I", "-S", __file__, str(pid), name]
    nothing = subprocess.DEVNULL
    done = subprocess.run(command, cwd="/", stdin=nothing, stdout=nothing, stderr=nothing, check=False)
    return {name: "1"} if done.returncode == 0 else {}


def main(pid: int, name: str) -> int:
    """Leave a guard of the process `pid` behind, and return; 1 where the system can't do it."""
    try:
        guarded = os.pidfd_open(pid)
        os.stat(f"/proc/{pid}/environ")
    except (AttributeError, OSError):
        return 1
    if os.fork() != 0:
        return 0
    os.setsid()  # a terminal's Ctrl-C does not reach it
    select.select([guarded], [], [])
    kill_all(name)
    return 0


def kill_all(name: str) -> None:
    """Kill every process that has the variable `name` in its environment, and their children."""
    for _ in range(ROUNDS):
        found = _marked(f"{name}=".encode())
        if not found:
            return
        for pid, started in found.items():
            with suppress(OSError):  # it has ended, or is another user's
                _kill(pid, started)
        time.sleep(PAUSE_SECONDS)


def _kill(pid: int, started: int) -> None:
    handle = os.pidfd_open(pid)
    try:
        if _stat(pid).started == started:  # so the handle is not of a later process with the same id
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


class _Stat(NamedTuple):
    state: bytes
    parent: int
    started: int


def _stat(pid: int) -> _Stat:
    with open(f"/proc/{pid}/stat", "rb") as file:
        words = file.read().rsplit(b")", 1)[1].split()
    return _Stat(words[0], int(words[1]), int(words[19]))


def _marked(mark: bytes) -> dict[int, int]:
    """Return the processes that have the mark, or a parent that has it, and when each started.

    Parents count because some programs write their title over their environment, as PostgreSQL's
    children do.
    """
    stats: dict[int, _Stat] = {}
    marked: set[int] = set()
    for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]:
        with suppress(OSError):
            stat = _stat(pid)
            if stat.state in (b"Z", b"X"):
                continue
            stats[pid] = stat
            with open(f"/proc/{pid}/environ", "rb") as file:
                if any(variable.startswith(mark) for variable in file.read().split(b"\0")):
                    marked.add(pid)
    while more := {pid for pid, stat in stats.items() if stat.parent in marked} - marked:
        marked |= more
    return {pid: stats[pid].started for pid in marked}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
