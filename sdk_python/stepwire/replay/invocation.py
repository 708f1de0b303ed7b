"""A run's body in this process: replayed over its journal, then fed with new results as they come.

Pure: it is given entries and gives turns. Who asks and where the entries come from is the caller's affair.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from stepwire.attempt import enter_body
from stepwire.errors import Failure, ForeignAwaitError, NestedStepError, NonDeterminismError
from stepwire.failures import REPLAY, coroutine_stack, line_in, log_failure
from stepwire.payload import Payload
from stepwire.places import of_awaitable
from stepwire.replay import endings
from stepwire.replay.divergence import SHOWN, diverged, is_same, not_found
from stepwire.replay.found import CANCELLED, OPEN, RESOLVED, Found, StepFuture, nothing, settle
from stepwire.replay.leftovers import never_awaited, tell_cut_off
from stepwire.replay.loop import ReplayLoop
from stepwire.replay.model import (
    Closure,
    Entry,
    Expected,
    Planned,
    Raised,
    Retry,
    Returned,
    RunInfo,
    Sleep,
    StepKey,
    StepKind,
    Target,
    Turn,
)
from stepwire.replay.mover import Mover
from stepwire.replay.outcome import outcome_of
from stepwire.replay.outside import started_outside
from stepwire.replay.restless import Restless
from stepwire.replay.threads import in_branch_of

if TYPE_CHECKING:
    from stepwire.app import Function
    from stepwire.values import Values

TIMER_ID = "stepwire.timer"
"""Id of the steps that durable timers are."""
_logger = logging.getLogger("stepwire.function")


class Invocation(Mover):
    """One invocation of a function. Not thread-safe: one call at a time, from any thread, and `close` at the end.

    Attributes: `sequence` of the last entry delivered; `replaying`, whether recorded results are still to come;
    `ended`, whether the body has ended; `lead`, to be cleared while the invocation is a replica: `ctx.logger` is silent
    then. `on_page`: if set, takes steps that a lead's body has found while it still moves, and says whether it did;
    those are in no turn. `on_nested`: if set, is told, in any thread, of a step that was started outside of the body by
    code of which no context says whose it is. `abandoned`: how much of its code goes on though it was ended. `clock` is
    in seconds; it tells only how long a body moves without progress.
    """

    __slots__ = (
        "_all_given_up",
        "_counts",
        "_expected",
        "_fault",
        "_found",
        "_fresh",
        "_given_up",
        "_journal_length",
        "_max_steps",
        "_never_awaited",
        "_open",
        "_outcome",
        "_root",
        "_run_body",
        "_timers",
        "_told",
        "abandoned",
        "closed",
        "ended",
        "fields",
        "function",
        "lead",
        "max_step_id_bytes",
        "on_nested",
        "on_page",
        "run",
        "values",
    )

    def __init__(
        self,
        function: Function,
        run: RunInfo,
        values: Values,
        run_body: Callable[[Invocation], Coroutine[Any, Any, Any]],
        *,
        max_steps: int = 100_000,
        max_step_id_bytes: int = 1024,
        clock: Callable[[], float] = time.monotonic,
        most_callbacks: int | None = None,
    ) -> None:
        loop = ReplayLoop(run.created_at)  # type: ignore[abstract]  # the rest raises, see there
        super().__init__(loop, Restless(clock, most_callbacks))
        self.function = function
        self.run = run
        self.values = values
        self._run_body = run_body
        """Runs the code of the function's body; of what that calls the replay machine knows nothing."""
        self.fields = {"app": run.app, "function": function.id, "run_id": run.run_id, "attempt": run.attempt}
        """What log lines of the body carry."""
        self.loop.on_timer_cancelled = self._timer_cancelled
        self.loop.on_refusal = self._refuse
        self.loop.on_error = self._unseen_error
        self.loop.on_abandoned = self.abandon
        self.on_page: Callable[[Sequence[Planned]], bool] | None = None
        self.on_nested: Callable[[NestedStepError], None] | None = None
        self.lead = True
        self.ended = False
        self.closed = False
        self.abandoned = 0
        self._max_steps = max_steps
        self.max_step_id_bytes = max_step_id_bytes
        self._counts: dict[str, int] = {}
        self._found: dict[StepKey, Found] = {}
        self._open: dict[StepKey, Found] = {}
        self._timers: dict[int, Found] = {}
        self._fresh: list[Found] = []
        """Found since the last turn was given."""
        self._given_up: list[StepKey] = []
        self._all_given_up: list[StepKey] = []
        self._never_awaited: list[tuple[int, str, str]] = []
        """Calls of steps that were dropped: their numbers, ids and lines."""
        self._told: set[StepKey] = set()
        """Keys of open steps that the executor knows."""
        self._root: asyncio.Task[Any] | None = None
        self._outcome: Returned | Raised | None = None
        self._fault: Raised | None = None
        self._journal_length = 0
        """How many entries it was started with."""
        self._expected: Sequence[Expected] = ()
        """What it must find after those; empty once that was checked."""

    # What the worker calls.

    def start(self, journal: Sequence[Entry], expected: Sequence[Expected] = ()) -> Turn:
        """Run the body dry, then give it the journal; raises ValueError if that has gaps."""
        self.begin(len(journal), expected)
        return self.resume(journal)

    def resume(self, entries: Sequence[Entry]) -> Turn:
        """Give the body new results; raises ValueError if they do not follow those before."""
        self.feed(entries)
        return self.come_to_rest()

    def begin(self, journal_length: int, expected: Sequence[Expected] = ()) -> None:
        """Begin as `start` does; `feed` gives the journal, and `go_on` does the rest."""
        self._told.update(each.key for each in expected)
        self.replaying = journal_length > 0
        self._journal_length, self._expected = journal_length, expected
        self._is_dry = False

    def promote(self) -> Turn:
        """Make a replica the lead: gives all that it has kept to itself, as one turn.

        `found` are the unfinished steps, `cancelled` all that it gave up; the executor knows which of both are news.
        """
        self.lead = True
        return Turn(self.unfinished(), tuple(self._all_given_up), self._outcome)

    def unfinished(self) -> Sequence[Planned]:
        """Give the steps that have no result and are not cancelled, in the order in which they were found."""
        if self.ended:
            return []
        return [found.planned for found in self._open.values()]

    def closure(self, key: StepKey) -> Closure | None:
        """Give the code of a step that the body has found; None if it has found no such closure."""
        found = self._found.get(key)
        target = found.planned.target if found else None
        return target if isinstance(target, Closure) else None

    def was_cancelled(self, key: StepKey) -> bool:
        """Whether the body has found the step and given it up."""
        found = self._found.get(key)
        return found is not None and found.state == CANCELLED

    def close(self) -> None:
        """Drop the body. Its `finally` blocks may run, but start nothing."""
        if not self.closed:
            self.closed = True
            self.loop.close()
            # What knows each other is parted: it would be garbage in circles, for a collection to find.
            self._root = self.on_page = self.on_nested = None
            for found in self._open.values():
                found.future = None
            self._found.clear()
            self._open.clear()
            self._fresh.clear()
            self._timers.clear()

    def abandon(self, place: str) -> None:
        """Note that code goes on though it was ended. Nothing is run of it any more, but it keeps what it has."""
        self.abandoned += 1
        endings.warn(self.run.run_id, self.function.id, place)

    # What the steps of user code call.

    @property
    def lively(self) -> bool:
        """Whether the body does now for the first time what it does."""
        return self.lead and not self.replaying and not self.loop.is_closed()

    def in_body(self) -> bool:
        """Whether the code that asks is the body's, and not, say, a step's."""
        return asyncio._get_running_loop() is self.loop or in_branch_of(self)

    def check_in_body(self, step_id: str) -> None:
        """Raise NestedStepError unless the code that asks is the body's."""
        if not self.in_body():
            raise started_outside(step_id, self.on_nested)

    def plan(
        self,
        step_id: str,
        kind: StepKind,
        target: Target,
        decode: Callable[[Payload], Any] | None,
        retry: Retry | None = None,
        attempt_timeout: float | None = None,
        step_timeout: float | None = None,
        source: str = "",
    ) -> asyncio.Future[Any]:
        """Start a step and give the future of its result."""
        if self.loop.is_closed():
            return self.loop.create_future()  # only user code that is being ended comes here: nothing comes any more
        self.check_in_body(step_id)
        found = self._add(step_id, kind, target, decode, retry, attempt_timeout, step_timeout, source)
        found.future = future = StepFuture(loop=self.loop)
        future.found, future.give_up = found, self.give_up
        return future

    def give_up(self, found: Found) -> None:
        """Note that the body no longer wants a step."""
        if found.state == OPEN and not self.loop.is_closed():
            found.state, found.future = CANCELLED, None
            key = found.planned.key
            self._open.pop(key, None)
            if key in self._told:
                self._told.discard(key)
                self._given_up.append(key)

    def note_never_awaited(self, number: int, step_id: str, source: str) -> None:
        """Note that the call of a step was dropped before anything had awaited it."""
        if not self.ended:
            self._never_awaited.append((number, step_id, source))

    # How it works inside.

    def _add(
        self,
        step_id: str,
        kind: StepKind,
        target: Target,
        decode: Callable[[Payload], Any] | None,
        retry: Retry | None = None,
        attempt_timeout: float | None = None,
        step_timeout: float | None = None,
        source: str = "",
    ) -> Found:
        index = self._counts.get(step_id, 0)
        self._counts[step_id] = index + 1
        planned = Planned(StepKey(step_id, index), kind, target, retry, attempt_timeout, step_timeout, source)
        found = Found(planned, decode)
        if len(self._found) >= self._max_steps:
            message = (
                f"run {self.run.run_id} found step {len(self._found) + 1}, over --max-steps={self._max_steps}: "
                "split the work over several runs with step.invoke, or raise the limit"
            )
            self._stop(Raised(Failure("TooManyStepsError", message, retryable=False)))
            return found
        self._found[planned.key] = self._open[planned.key] = found
        self._fresh.append(found)
        return found

    def _stop(self, fault: Raised) -> None:
        """End the body where it stands, with a failure that is not its own."""
        if self._fault is None:
            self._fault = fault
        self.loop.stopped = True

    def _refuse(self, error: Exception) -> None:
        self._stop(Raised(self.values.failure(error), error))

    def _unseen_error(self, context: dict[str, Any]) -> None:
        """Log what plain asyncio would log, but once."""
        if self.lively:
            what = context.get("message", "an error was not seen")
            log_failure(_logger, logging.ERROR, "run %s: %s", self.run.run_id, what, error=context["exception"])

    @property
    def _found_count(self) -> int:
        return len(self._found)

    def _enter(self) -> None:
        if self._root is None:
            context = contextvars.Context()  # not the caller's: a body is the same wherever it runs
            context.run(enter_body, self.fields)
            self._root = context.run(self.loop.create_task, self._run_body(self), context=context)

    def _look_between(self) -> None:
        if self._fresh and self.on_page is not None and self.lead and not self.replaying:
            self._tell_page(self.on_page)

    def _spins(self, places: Sequence[str]) -> None:
        assert self._root is not None
        self._refuse(self._restless.error(self.function.id, places or [of_awaitable(self._root.get_coro())]))

    def _look(self) -> None:
        if self.loop.new_timers:
            self._plan_timers()
        root = self._root
        assert root is not None
        if self._fault is not None:
            self._end(self._fault)
        elif root.done():
            outcome = outcome_of(root, self.function, self.values, self._place())
            if self._never_awaited and isinstance(outcome, Returned):
                dropped = never_awaited(self.function.id, self._never_awaited)
                outcome = Raised(self.values.failure(dropped), dropped)
            self._end(outcome)
        elif not self._open:
            error = ForeignAwaitError(
                f"the body of {self.function.id!r} waits{line_in(coroutine_stack(root.get_coro()))} for something that "
                "no step will bring: wrap the code that brings it in a function of its own and await it with "
                "step.run(...)"
            )
            self._refuse(error)
            assert self._fault is not None
            self._end(self._fault)

    def _plan_timers(self) -> None:
        timers, self.loop.new_timers = self.loop.new_timers, []
        for handle in timers:
            if not handle.cancelled():
                delay = handle.when() - self.loop.time()
                found = self._add(TIMER_ID, StepKind.SLEEP, Sleep(delay=delay), nothing)
                found.handle = handle
                self._timers[id(handle)] = found

    def _give(self, entry: Entry) -> bool:
        if self._fault is not None:
            return False
        found = self._found.get(entry.key)
        if found is None or not is_same(entry, found.planned, self.run.app):
            self._diverge(entry, found)
            return False
        self._told.discard(entry.key)
        if self.ended:
            return False
        self.loop.advance(entry.recorded_at)
        if found.state != OPEN:
            return False
        found.state = RESOLVED
        del self._open[entry.key]
        if found.handle is not None:
            self.loop.advance(found.handle.when())
            self._timers.pop(id(found.handle), None)
            self.loop.ready(found.handle)
        elif found.future is not None:
            # Each knows the other: they would be garbage by the thousand, if nobody parted them.
            future, found.future = found.future, None
            if not future.done():
                settle(found, future, entry, self.values)
        return True

    def _timer_cancelled(self, handle: asyncio.TimerHandle) -> None:
        found = self._timers.pop(id(handle), None)
        if found is not None:
            self.give_up(found)

    def _end(self, outcome: Returned | Raised) -> None:
        """Take the body's end. If it returned, whatever is open is given up.

        If it raised nothing is given up with it: the executor may try the body again, which then wants the same steps.
        """
        self._outcome = outcome
        if isinstance(outcome, Returned):
            left = list(self._open.values())
            if left and self.lively:
                tell_cut_off(self.run, [found.planned for found in left if found.handle is None], self.loop.waiting())
            for found in left:
                self.give_up(found)
        else:
            self._given_up.clear()
        self.ended = True
        self.loop.close()

    def _tell_page(self, tell: Callable[[Sequence[Planned]], bool]) -> None:
        page = self._news()
        if page and tell(page):
            self._told.update(each.key for each in page)
            self._fresh.clear()

    def _news(self) -> list[Planned]:
        """Give the steps that the executor does not know."""
        return [each.planned for each in self._fresh if each.state == OPEN and each.planned.key not in self._told]

    def _turn(self) -> Turn:
        found: list[Planned] = []
        if not self.ended:
            found = self._news()
            self._told.update(each.key for each in found)
        self._fresh.clear()
        cancelled, self._given_up = self._given_up, []
        self._all_given_up += cancelled
        return Turn(found, cancelled, self._outcome)

    def _rest(self) -> None:
        if not self._expected:
            return
        expected, self._expected = self._expected, ()
        for each in expected if self._fault is None else ():
            found = self._found.get(each.key)
            if found is None or not is_same(each, found.planned, self.run.app):
                self._diverge(each, found)
                if self._fault is not None:
                    return

    def _place(self) -> str:
        """Say where in a replay the body has ended; "" if it has ended where it had not been before."""
        missing = self.replaying or any(each.key not in self._found for each in self._expected)
        if not missing:
            return ""
        return f"{REPLAY}, after entry {self.sequence} of {self._journal_length} of the run's journal."

    def not_found(self, key: StepKey) -> NonDeterminismError:
        """Make the error for a step which the body has found in another worker only."""
        near = (each.planned for each in islice(self._open.values(), SHOWN + 1))
        return not_found(self.run.run_id, self.run.app, self.function.id, key, near, self.ended)

    def _diverge(self, recorded: Entry | Expected, found: Found | None) -> None:
        """End the body, as it has not found what was recorded, unless it has raised before it came there."""
        raised = self._outcome if isinstance(self._outcome, Raised) else None
        if raised is not None and found is None:
            return
        same_key = found.planned if found is not None else None
        near = (each.planned for each in islice(self._open.values(), SHOWN + 1))
        error = diverged(self.run.run_id, self.run.app, self.function.id, recorded, same_key, near, self.ended)
        error.__cause__ = raised.error if raised is not None else None
        self._refuse(error)
        assert self._fault is not None
        self._end(self._fault)
