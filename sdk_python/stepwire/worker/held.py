"""Reports that are held back for a moment, as what comes after them may go along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stepwire_proto.v1 import worker_pb2

LINGER_SECONDS = 0.01
"""A lone step that ends sooner is reported together with its plan."""


class Held:
    """Reports of lone steps, by fence, until the step ends or the linger is over; then they are told by `send`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[worker_pb2.WorkerMessage], None]) -> None:
        self._loop = loop
        self._send = send
        self._reports: dict[int, tuple[float, str, worker_pb2.WorkerMessage]] = {}
        """With the time when it is to be told at the latest, in the order of these, and the run."""
        self._fences: dict[str, int] = {}
        """By run: a lead has one lone step at a time."""
        self._waking = False

    def hold(self, fence: int, run_id: str, report: worker_pb2.WorkerMessage) -> None:
        """Hold a report of a run back. All share one timer, since most are told long before."""
        self._reports[fence] = self._loop.time() + LINGER_SECONDS, run_id, report
        self._fences[run_id] = fence
        if not self._waking:
            self._waking = True
            self._loop.call_later(LINGER_SECONDS, self._tell_late)

    def tell(self, fence: int) -> None:
        """Tell a report, if it is still held."""
        held = self._reports.pop(fence, None)
        if held is not None:
            _, run_id, report = held
            self._fences.pop(run_id, None)
            self._send(report)

    def tell_of(self, run_id: str) -> None:
        """Tell the report of a run that is held, if there is one: what the run's body reports next comes after it."""
        fence = self._fences.get(run_id)
        if fence is not None:
            self.tell(fence)

    def tell_all(self) -> None:
        """Tell every report."""
        for fence in list(self._reports):
            self.tell(fence)

    def clear(self) -> None:
        """Forget every report."""
        self._reports.clear()
        self._fences.clear()

    def _tell_late(self) -> None:
        """Tell those whose linger is over, and come again for the next one."""
        now = self._loop.time()
        for fence, (due, *_) in list(self._reports.items()):
            if due > now:
                self._loop.call_at(due, self._tell_late)
                return
            self.tell(fence)
        self._waking = False
