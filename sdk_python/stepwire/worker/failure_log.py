"""The worker's log lines about what has failed here: attempts, steps for good, bodies, runs.

Lines of one kind are limited, so that a fan-out that fails ten thousand times leaves a log that can be read.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Iterable

from stepwire.app import Function
from stepwire.attempt import AttemptContext
from stepwire.errors import Failure
from stepwire.failures import log_failure, place_in
from stepwire.replay.model import Retry, RunInfo
from stepwire.visible import one_line

log = logging.getLogger("stepwire.worker")

MOST_ALIKE = 50
"""So many lines of one kind are written within `WINDOW_SECONDS`; more are counted, and summed up in a line."""
MOST_KINDS = 100
"""Kinds that are told apart within that time; more count as one, as ids may hold data."""
WINDOW_SECONDS = 10.0
_NUMBER = re.compile(r"\d+")


class FailureLog:
    """Writes the lines. Attempts may be told of in any thread, all else on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._counts: dict[tuple[int, str], int] = {}
        self._window = -WINDOW_SECONDS
        self._unconfirmed: dict[int, tuple[AttemptContext, Failure]] = {}
        """Failed attempts, by fence, of which the executor has not said yet whether their step goes on."""

    def attempt_failed(
        self, fence: int, context: AttemptContext, failure: Failure, error: BaseException | None = None
    ) -> None:
        """Log that an attempt has failed; `step_failed` may follow."""
        if not log.isEnabledFor(logging.ERROR):
            return
        self._unconfirmed[fence] = context, failure
        if self._allow(logging.WARNING, _kind(context, failure)):
            text, level = "attempt %d of step %r failed: %s%s", logging.WARNING
            stack = f"\n{failure.stack}" if error is None and failure.stack else ""
            words = context.number, _name(context), failure, stack
            log_failure(log, level, text, *words, error=error, extra=context.fields)

    def timed_out(self, context: AttemptContext, failure: Failure, stack: str, *, retried: bool) -> None:
        """Log that an attempt was stopped by the executor since its time was over; `stack` is where its code was."""
        if self._allow(logging.WARNING, _kind(context, failure)):
            where = f"\nit was at\n{stack}" if stack else ""
            text = "attempt %d of step %r failed: %s%s"
            log_failure(
                log, logging.WARNING, text, context.number, _name(context), failure, where, extra=context.fields
            )
        if not retried:
            self._for_good(context, failure)

    def confirmed(self, fences: Iterable[int], failed_steps: Iterable[int]) -> None:
        """Take the executor's word on reported attempts: with some of them their step has failed for good."""
        if not self._unconfirmed:
            return
        for fence in failed_steps:
            known = self._unconfirmed.pop(fence, None)
            if known is not None:
                self._for_good(*known)
        for fence in fences:
            self._unconfirmed.pop(fence, None)

    def forget(self, holds: Callable[[int], bool]) -> None:
        """Forget attempts that are no longer in hand: nothing more is told of them."""
        for fence in [fence for fence in list(self._unconfirmed) if not holds(fence)]:
            self._unconfirmed.pop(fence, None)

    def body_failed(
        self, run: RunInfo, function: Function | None, failure: Failure, error: BaseException | None = None
    ) -> None:
        """Log that a body has failed: an error if its run has by that, else a warning."""
        policy = (function.retry if function is not None else None) or Retry()
        self._body_failed(run, failure, error, retried=failure.retryable and run.attempt <= policy.retries)

    def _body_failed(self, run: RunInfo, failure: Failure, error: BaseException | None, *, retried: bool) -> None:
        level = logging.WARNING if retried else logging.ERROR
        if not self._allow(level, f"{run.app}/{run.function_id}: {failure.type}"):
            return
        stack = f"\n{failure.stack}" if error is None and failure.stack else ""
        what = f"attempt {run.attempt} of the body failed" if retried else "the run has failed"
        fields = {"app": run.app, "function": run.function_id, "run_id": run.run_id, "attempt": run.attempt}
        place = "" if error is None else place_in(failure)
        log_failure(log, level, "%s: %s%s%s", what, failure, place, stack, error=error, extra=fields)

    def run_failed(self, run: RunInfo, failure: Failure) -> None:
        """Log that a run has failed, though not by its body: its time was over, for example."""
        self._body_failed(run, failure, None, retried=False)

    def close(self) -> None:
        """Sum up what was not written."""
        with self._lock:
            counts, self._counts, self._window = self._counts, {}, -WINDOW_SECONDS
        for (level, kind), count in counts.items():
            if count > MOST_ALIKE:
                more = f"{count - MOST_ALIKE:,}"
                log_failure(log, level, "… and %s more like it within %g s: %s", more, WINDOW_SECONDS, one_line(kind))

    def _for_good(self, context: AttemptContext, failure: Failure) -> None:
        if self._allow(logging.ERROR, _kind(context, failure)):
            tries = "1 attempt" if context.number == 1 else f"{context.number} attempts"
            text = "step %r has failed for good after %s: %s"
            log_failure(log, logging.ERROR, text, _name(context), tries, failure, extra=context.fields)

    def _allow(self, level: int, kind: str) -> bool:
        if not log.isEnabledFor(level):
            return False
        now, is_new = self._loop.time(), False
        with self._lock:
            if now - self._window > WINDOW_SECONDS and not any(count > MOST_ALIKE for count in self._counts.values()):
                self._counts, self._window = {}, now
            key = (level, kind)
            if key not in self._counts and len(self._counts) >= MOST_KINDS:
                key = (level, "others")
            count = self._counts[key] = self._counts.get(key, 0) + 1
            is_new = count == MOST_ALIKE + 1
        if is_new:
            self._close_later()
        return count <= MOST_ALIKE

    def _close_later(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._loop.call_later, WINDOW_SECONDS, self.close)
        except RuntimeError:  # the loop is closed: the worker has ended
            self.close()


def _name(context: AttemptContext) -> str:
    return f"{context.step}:{context.index}" if context.index else context.step


def _kind(context: AttemptContext, failure: Failure) -> str:
    """Give what the lines of many attempts have in common: numbers in steps' ids tell no kinds apart."""
    return f"step {_NUMBER.sub('*', context.step)!r} of {context.app}/{context.function_id}: {failure.type}"
