"""What a worker or a client saw, as records that a checker can hold against the promises. Off unless somebody wants it.

STEPWIRE_HISTORY names the folder; each process writes a file of its own. The executor has the same in its own words.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from stepwire import private
from stepwire.errors import Failure, StepwireError
from stepwire.payload import Payload
from stepwire.replay.model import StepKey, TimedOut

VARIABLE = "STEPWIRE_HISTORY"
Record = dict[str, Any]

log = logging.getLogger("stepwire")


class History:
    """Writes records; from any thread. After a failure it writes no more, and says so once."""

    def __init__(self, process: str, write: Callable[[Record], None], clock: Callable[[], float]) -> None:
        self._process = process
        self._write = write
        self._clock = clock
        self._failed = False

    def note(self, what: str, **fields: Any) -> None:
        """Write that something has happened."""
        if self._failed:
            return
        try:
            self._write({"at": self._clock(), "process": self._process, "what": what, **fields})
        except OSError as error:
            self._failed = True
            log.error("the history ends here, it can't be written: %s", error)


def history_of(process: str, environment: Mapping[str, str] = os.environ) -> History | None:
    """Give the history of a process with this name; None if nobody wants one. Raises StepwireError for a bad folder."""
    folder = environment.get(VARIABLE, "")
    if not folder:
        return None
    place = Path(folder)
    try:
        private.make_folders(place)
        file = private.open_to_append(place / f"{process.replace('/', '-')}-{time.time_ns()}.jsonl")
    except OSError as error:
        raise StepwireError(f"{VARIABLE}={folder!r} can't be used: {error.strerror}") from None

    def write(record: Record) -> None:
        line = json.dumps(record).encode() + b"\n"
        if os.write(file, line) < len(line):  # unbuffered: a kill loses nothing that was written
            raise OSError(errno.ENOSPC, "only a part of a record could be written")

    return History(process, write, time.monotonic)


def name(key: StepKey) -> str:
    """Write a step's key as records have it."""
    return f"{key.id}:{key.index}"


def digest_of(outcome: Payload | Failure | TimedOut) -> str:
    """Give a short hash of a result, the same as the executor's."""
    if isinstance(outcome, TimedOut):
        return "timed out"
    if isinstance(outcome, Failure):
        return _digest("failure", outcome.type, outcome.message)
    return _digest("output", outcome.encoding, outcome.data)


def _digest(*parts: str | bytes) -> str:
    joined = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return blake2b(joined, digest_size=6).hexdigest()
