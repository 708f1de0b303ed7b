"""Runs a module as a child process that does not outlive its parent: `-m stepwire.lifeline MODULE ARGUMENT…`.

Its stdin is a pipe that nobody writes to. When the parent is gone, however it went, the pipe ends, and this process
sends itself SIGTERM, which means what it always means: drain, then stop.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the module that the first argument names, with the rest as its arguments."""
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=end_with_parent, args=(lifeline,), name="lifeline", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def end_with_parent(lifeline: int) -> None:
    """Wait until the pipe ends, then end this process by SIGTERM."""
    while os.read(lifeline, 4096):
        pass
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):  # nobody reads them any more, and a write must not fail now
        os.dup2(nowhere, output)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
