"""What a process is at, read by another one."""

from __future__ import annotations

import os
import subprocess
import sys

from stepwire.worker.board import MOST_PLACES, Board, listed

CHILD = """
import os, signal, sys
from stepwire.worker.board import Board
board = Board(int(sys.argv[1]))
gone = board.put("what has ended")
board.put("the step that kills it: ü" + "x" * 1000)
board.clear(gone)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_was_at_can_still_be_read() -> None:
    board = Board()
    subprocess.run([sys.executable, "-c", CHILD, str(board.fd)], pass_fds=[board.fd], check=False)
    (text,) = board.texts()
    assert text.startswith("the step that kills it: ü")
    board.close()


def test_more_than_there_are_places_for_costs_nothing_but_their_names() -> None:
    board = Board()
    places = [board.put(f"step {number}") for number in range(MOST_PLACES + 10)]
    assert places.count(-1) == 10
    assert len(board.texts()) == MOST_PLACES
    assert listed(board.texts()).endswith(f"and {MOST_PLACES - 10:,} more")
    for place in places:
        board.clear(place)
    assert not board.texts()
    assert board.put("again") >= 0
    board.close()
    assert not os.path.exists(f"/proc/self/fd/{board.fd}")
