"""Log lines about runs, from the observations of decisions: what has failed, by ids, and which worker was lost.

What goes well leaves no line, unless `log_runs` is set, as `stepwire dev` has it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from stepwire_core.commands import (
    AttemptClosed,
    AttemptIssued,
    BodyRetried,
    Observation,
    RunBegun,
    RunEnded,
    WorkerLost,
)
from stepwire_core.model import Failure, Run, RunState, StepKey
from stepwire_executor.logs import Repeats
from stepwire_executor.visible import one_line

log = logging.getLogger("stepwire.executor")

MOST_NAMED = 10
LONGEST_ERROR = 300
"""In characters: the whole of it is in the worker's log, and in the store."""
_NUMBER = re.compile(r"\d+")


class RunLog:
    """Writes lines about observations. `later(seconds, call)` has `call` called once; see `logs.Repeats`."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object], *, log_runs: bool = False) -> None:
        self._repeats = Repeats(log, later)
        self._log_runs = log_runs

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take observations whose writes are durable."""
        for observed in observations:
            kind = type(observed)
            if kind is AttemptIssued or (kind is AttemptClosed and observed.failure is None):  # type: ignore[union-attr]
                continue
            match observed:
                case AttemptClosed():
                    self._attempt(observed)
                case BodyRetried():
                    self._body(observed)
                case RunEnded(run):
                    self._ended(run)
                case RunBegun(run) if self._log_runs:
                    log.info("the run begins, by event %r", run.event.name, extra=fields(run))
                case WorkerLost() if observed.attempts or observed.runs:
                    self._lost(observed)

    def close(self) -> None:
        """Sum up what was not written yet."""
        self._repeats.sum_up()

    def _attempt(self, closed: AttemptClosed) -> None:
        run, key, failure = closed.run, closed.step.key, closed.failure
        assert failure is not None
        level = logging.ERROR if closed.retry_in is None else logging.WARNING
        of = f"step {_NUMBER.sub('*', key.id)!r} of {run.app}/{run.function_id}: {failure.type}"
        if not self._repeats.allow(level, of):
            return
        extra = fields(run, key, closed.number)
        where = f" in worker {one_line(closed.worker)}" if closed.worker else ""
        if closed.retry_in is None:
            tries = "1 attempt" if closed.number == 1 else f"{closed.number} attempts"
            log.error("step %r has failed for good after %s%s: %s", str(key), tries, where, cut(failure), extra=extra)
            return
        log.warning(
            "attempt %d of step %r failed%s, the next comes in %.3g s: %s",
            closed.number,
            str(key),
            where,
            closed.retry_in,
            cut(failure),
            extra=extra,
        )

    def _body(self, retried: BodyRetried) -> None:
        run, failure = retried.run, retried.failure
        if self._repeats.allow(logging.WARNING, f"body of {run.app}/{run.function_id}: {failure.type}"):
            log.warning(
                "attempt %d of the body failed in worker %s, the next comes in %.3g s: %s",
                retried.number,
                one_line(retried.worker),
                retried.retry_in,
                cut(failure),
                extra=fields(run, attempt=retried.number),
            )

    def _ended(self, run: Run) -> None:
        if run.state is RunState.FAILED and run.failure is not None:
            kind = f"run of {run.app}/{run.function_id}: {run.failure.type}"
            if self._repeats.allow(logging.ERROR, kind):
                log.error("the run has failed%s: %s", _after(run), cut(run.failure), extra=fields(run))
        elif self._log_runs:
            outcome = "succeeded" if run.state is RunState.SUCCEEDED else "been cancelled"
            log.info("the run has %s%s", outcome, _after(run), extra=fields(run))

    def _lost(self, lost: WorkerLost) -> None:
        steps = [f"step {str(each.key)!r} of run {each.run_id}" for each in lost.attempts]
        bodies = [f"the body of run {run_id}" for run_id in lost.runs]
        log.warning(
            "worker %s is lost: it has not come back within its grace; it had in hand %s",
            one_line(lost.worker),
            listed([*steps, *bodies]),
            extra={"worker": lost.worker},
        )


def fields(run: Run, key: StepKey | None = None, attempt: int | None = None) -> dict[str, Any]:
    """Give the fields of a line about a run, or about one of its steps."""
    found: dict[str, Any] = {"app": run.app, "function": run.function_id, "run_id": run.id}
    if key is not None:
        found |= {"step": key.id, "index": key.index}
    if attempt is not None:
        found["attempt"] = attempt
    return found


def cut(failure: Failure) -> str:
    """Write a failure in a line of bounded length."""
    text = one_line(f"{failure.type}: {failure.message}")
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]}…"


def listed(names: Sequence[str]) -> str:
    """Write names in a line, the first of many."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _after(run: Run) -> str:
    if run.ended_at is None or run.started_at is None:
        return ""
    return f" after {max(0.0, run.ended_at - run.started_at):.3g} s"
