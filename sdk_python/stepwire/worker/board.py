"""What a worker process is at, in memory that its supervisor shares: it can still be read when the process has died.

A place for each attempt and body that runs. Writing one costs about a microsecond, and only under a supervisor.
"""

from __future__ import annotations

import mmap
import os
import tempfile

PLACE_BYTES = 256
MOST_PLACES = 1_024
MOST_NAMED = 10
_EMPTY = b"\0"


class Board:
    """Memory with places for texts. The supervisor makes it, and a child opens it by its descriptor `fd`."""

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            with tempfile.TemporaryFile() as file:
                file.truncate(MOST_PLACES * PLACE_BYTES)
                fd = os.dup(file.fileno())
        self.fd = fd
        self._memory = mmap.mmap(fd, MOST_PLACES * PLACE_BYTES)
        self._free = list(range((MOST_PLACES - 1) * PLACE_BYTES, -1, -PLACE_BYTES))

    def put(self, text: str) -> int:
        """Write a text, cut to its place; gives what `clear` takes. -1 if there is no place left."""
        try:
            at = self._free.pop()
        except IndexError:
            return -1
        data = text.encode(errors="replace")[: PLACE_BYTES - 1] + _EMPTY
        self._memory[at : at + len(data)] = data
        return at

    def clear(self, at: int) -> None:
        """Take a text away."""
        if at >= 0:
            self._memory[at] = 0
            self._free.append(at)

    def texts(self) -> list[str]:
        """Give what is written."""
        found = []
        for at in range(0, len(self._memory), PLACE_BYTES):
            data, _, _ = self._memory[at : at + PLACE_BYTES].partition(_EMPTY)
            if data:
                found.append(data.decode(errors="replace"))
        return found

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.fd)


def listed(texts: list[str]) -> str:
    """Write texts in a line, the first of many."""
    more = len(texts) - MOST_NAMED
    return ", ".join(texts[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
