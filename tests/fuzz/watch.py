"""What must not happen in a process that is fuzzed: a log that tells of a fault of ours, an end, memory kept."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from benchmarks.taken import resident_bytes
from stepwire.testing.process import ManagedProcess

FAULTS = (
    "Traceback (most recent call last)",
    "a bug in Stepwire",
    "begins anew",
    "the store failed",
    "the store still fails",
    "never retrieved",
    "never awaited",
    "Unexpected <class",
    "could not be handled",
    "could not begin",
    "can't go on in this worker",
    "nothing awaited it",
    "AssertionError",
    "UnhandledPromiseRejection",
    "panic:",
    "fatal error:",
    "Segmentation fault",
)
"""Words of log lines that only a fault of ours brings about; the fuzz itself sends none of them."""
LONGEST_SHOWN = 6_000
GROWTH, SLACK_KIB, SLACK_OF_NODE_KIB = 1.2, 32 * 1024, 96 * 1024
"""Memory has come back if it is at most this much more than it was before.

The slack is for what a process has once for all that it was asked to do at once, however much that was before: gRPC's
buffers, pages of the database, parts of the allocator that are half empty. Node keeps compiled code beside that, and a
heap that has grown shrinks when V8 finds the time for it.
"""
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "32768",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "GOMEMLIMIT": "40MiB",
}
"""The environment of what is watched. The allocator of the C library would keep for each thread what that has freed:
a hundred MiB after ten thousand messages, of which eight were in use; Go's keeps it for minutes. What a fault of ours
kept would not be seen."""
COMING_BACK_SECONDS = 90.0
"""How long memory has to come back: idle runs leave it after 10 s, sessions after their grace, garbage when it is
collected."""


def is_of_user_code(record: str) -> bool:
    """Say whether a record of a worker's log tells of a failure of user code, and not of ours as if it were one.

    An error that is raised in our own code counts as ours, unless it is one of `stepwire.errors`, or of NONSENSE.
    """
    head, _, rest = record.partition("\n")
    if any(words in record for words in NONSENSE):
        return True
    if not _FAILED.search(head):
        return False
    places = _PLACE.findall(rest)
    return not places or "/stepwire/" not in places[-1] or "stepwire.errors." in rest


NONSENSE = (
    "this version of the SDK",  # a kind of step or an outcome that it does not know
    "there is a gap",  # in a journal
    "return self.events[0]",  # of a run without an event
)
"""What a worker says of a run whose Invoke or journal makes no sense: the run fails, or goes to another worker."""
_FAILED = re.compile(r"attempt \d+ of (step|the body)|the run has failed|has failed for good")
_PLACE = re.compile(r'File "([^"]+)"')


class Watched:
    """A process that is looked at. `allowed` says of a record of the log that it is no fault after all."""

    def __init__(
        self, process: ManagedProcess, allowed: Callable[[str], bool] = lambda record: False, slack_kib: int = SLACK_KIB
    ) -> None:
        self._slack_kib = slack_kib
        self.process = process
        self._allowed = allowed
        self._pid = process.pid
        self._seen = 0
        """Characters of the log that were looked at."""
        self.before_kib = 0
        self.most_kib = 0
        self.after_kib = 0

    def faults(self) -> list[str]:
        """Tell what has gone wrong since this was last asked."""
        process = self.process
        if not process.running or process.pid != self._pid:
            return [str(process.error(f"ended with exit code {process.returncode}"))]
        self.most_kib = max(self.most_kib, resident_bytes(self._pid) >> 10)
        return self.faults_in_log()

    def faults_in_log(self) -> list[str]:
        """Tell what the log says that has gone wrong since it was last looked at."""
        process = self.process
        log = process.log
        end = log.rfind("\n") + 1
        new, self._seen = log[self._seen : end], end
        for record in re.split(r"\n(?=\S)", new):  # lines that belong to the one before are indented
            if any(word in record for word in FAULTS) and not self._allowed(record):
                return [f"the log of {process.name} says\n{record[:LONGEST_SHOWN]}"]
        return []

    def begin(self) -> None:
        """Note the memory before the attack."""
        self.before_kib = self.most_kib = resident_bytes(self._pid) >> 10

    def allowed_kib(self) -> float:
        """Give how much memory it may have in the end."""
        return self.before_kib * GROWTH + self._slack_kib

    def come_back(self, seconds: float = COMING_BACK_SECONDS) -> list[str]:
        """Wait until its memory is what it was before; tells so if it is not after so many seconds."""
        until = time.monotonic() + seconds
        while True:
            self.after_kib = resident_bytes(self._pid) >> 10
            if self.after_kib <= self.allowed_kib():
                return []
            if time.monotonic() > until:
                break
            time.sleep(0.5)
        name, before, after, allowed = self.process.name, self.before_kib, self.after_kib, self.allowed_kib()
        return [f"the memory of {name} went from {before:,} to {after:,} KiB, and only {allowed:,.0f} are allowed"]
