"""A run's body in this process: replayed over its journal, then fed with new results as they come.

Pure: it is given entries and gives turns. Who asks and where the entries come from is the caller's affair.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stepwire.errors import (
    Failure,
    ForeignAwaitError,
    InvalidStepError,
    NonDeterminismError,
    StepError,
)
from stepwire.payload import Payload
from stepwire.replay.loop import ReplayFuture, ReplayLoop
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
    TimedOut,
    Turn,
)

if TYPE_CHECKING:
    from stepwire.app import Function
    from stepwire.values import Values

TIMER_ID = "stepwire.timer"
"""Id of the steps that durable timers are."""
SHOWN = 5
"""Steps that a divergence shows of those which the body has found."""


class Found:
    """A step that the body has found, and what awaits it."""

    __slots__ = ("decode", "future", "handle", "planned", "state")

    def __init__(self, planned: Planned, decode: Callable[[Payload], Any]) -> None:
        self.planned = planned
        self.decode = decode
        self.future: ReplayFuture | None = None
        self.handle: asyncio.TimerHandle | None = None
        self.state = "open"  # or "resolved", "cancelled"


class StepFuture(ReplayFuture):
    """What a body awaits of a step. Cancelling it cancels the step."""

    def __init__(self, invocation: Invocation, found: Found) -> None:
        super().__init__(loop=invocation.loop)
        self._invocation = invocation
        self._found = found

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the future and its step."""
        if not super().cancel(msg):
            return False
        self._invocation.give_up(self._found)
        return True

    __hash__ = ReplayFuture.__hash__


class Invocation:
    """One invocation of a function. Not thread-safe: one call at a time.

    `sequence` is that of the last entry delivered; `replaying` tells whether recorded results are still to come.
    """

    def __init__(
        self,
        function: Function,
        run: RunInfo,
        values: Values,
        *,
        max_steps: int = 100_000,
        max_step_id_bytes: int = 1024,
    ) -> None:
        self.function = function
        self.run = run
        self.values = values
        self.loop = ReplayLoop(run.created_at)  # type: ignore[abstract]  # the rest raises, see there
        self.loop.on_timer_cancelled = self._timer_cancelled
        self.sequence = 0
        self.replaying = False
        self.ended = False
        self.closed = False
        self._max_steps = max_steps
        self._max_step_id_bytes = max_step_id_bytes
        self._counts: dict[str, int] = {}
        self._found: dict[StepKey, Found] = {}
        self._open: dict[StepKey, Found] = {}
        self._timers: dict[int, Found] = {}
        self._fresh: list[Found] = []
        """Found since the last turn was given."""
        self._given_up: list[StepKey] = []
        self._told: set[StepKey] = set()
        """Keys of open steps that the executor knows."""
        self._root: asyncio.Task[Any] | None = None
        self._outcome: Returned | Raised | None = None
        self._fault: Failure | None = None

    # What the worker calls.

    def start(self, journal: Sequence[Entry], expected: Sequence[Expected] = ()) -> Turn:
        """Run the body dry, then give it the journal; raises ValueError if that has gaps."""
        self._told.update(each.key for each in expected)
        self.replaying = bool(journal)
        self._root = self.loop.create_task(self._body())
        self._run_dry()
        self._deliver(journal)
        if self._outcome is None:
            self._check_expected(expected)
        return self._turn()

    def resume(self, entries: Sequence[Entry]) -> Turn:
        """Give the body new results; raises ValueError if they do not follow those before."""
        self._deliver(entries)
        return self._turn()

    def unfinished(self) -> Sequence[Planned]:
        """Give the steps that have no result and are not cancelled, in the order in which they were found."""
        return [found.planned for found in self._open.values()]

    def closure(self, key: StepKey) -> Closure | None:
        """Give the code of a step that the body has found; None if it has found no such closure."""
        found = self._found.get(key)
        target = found.planned.target if found else None
        return target if isinstance(target, Closure) else None

    def was_cancelled(self, key: StepKey) -> bool:
        """Whether the body has found the step and given it up."""
        found = self._found.get(key)
        return found is not None and found.state == "cancelled"

    def close(self) -> None:
        """Drop the body. Its `finally` blocks may run, but start nothing."""
        if not self.closed:
            self.closed = True
            self.loop.close()
            self._found.clear()
            self._open.clear()
            self._fresh.clear()
            self._timers.clear()

    # What the steps of user code call.

    def plan(
        self,
        step_id: str,
        kind: StepKind,
        target: Target,
        decode: Callable[[Payload], Any],
        *,
        retry: Retry | None = None,
        attempt_timeout: float | None = None,
        step_timeout: float | None = None,
        source: str = "",
    ) -> asyncio.Future[Any]:
        """Start a step and give the future of its result."""
        if self.closed:
            raise GeneratorExit  # only user code that is being closed comes here
        found = self._add(step_id, kind, target, decode, retry, attempt_timeout, step_timeout, source)
        found.future = StepFuture(self, found)
        return found.future

    def give_up(self, found: Found) -> None:
        """Note that the body no longer wants a step."""
        if found.state == "open":
            found.state = "cancelled"
            key = found.planned.key
            self._open.pop(key, None)
            if key in self._told:
                self._told.discard(key)
                self._given_up.append(key)

    # How it works inside.

    async def _body(self) -> Any:
        from stepwire.context import Context
        from stepwire.step import Step, SyncStep

        context = Context(self)
        if self.function.is_async:
            return await self.function.body(context, Step(self))
        from stepwire.replay.threads import call_in_thread

        return await call_in_thread(self, self.function.body, context, SyncStep(self))

    def _add(
        self,
        step_id: str,
        kind: StepKind,
        target: Target,
        decode: Callable[[Payload], Any],
        retry: Retry | None = None,
        attempt_timeout: float | None = None,
        step_timeout: float | None = None,
        source: str = "",
    ) -> Found:
        index = self._counts.get(step_id, 0)
        if index == 0:
            size = len(step_id.encode())
            if size > self._max_step_id_bytes:
                limit = self._max_step_id_bytes
                raise InvalidStepError(
                    f"step id {step_id[:40]!r}… has {size} bytes, over --max-step-id-bytes={limit}: choose a shorter one"
                )
        self._counts[step_id] = index + 1
        planned = Planned(StepKey(step_id, index), kind, target, retry, attempt_timeout, step_timeout, source)
        found = Found(planned, decode)
        if len(self._found) >= self._max_steps:
            self._stop(
                Failure(
                    "TooManyStepsError",
                    f"run {self.run.run_id} found step {len(self._found) + 1}, over --max-steps={self._max_steps}: "
                    "split the work over several runs with step.invoke, or raise the limit",
                    retryable=False,
                )
            )
            return found
        self._found[planned.key] = self._open[planned.key] = found
        self._fresh.append(found)
        return found

    def _stop(self, failure: Failure) -> None:
        """End the body where it stands, with a failure that is not its own."""
        if self._fault is None:
            self._fault = failure
        self.loop.stopped = True

    def _run_dry(self) -> None:
        self.loop.drain()
        for handle in self.loop.new_timers:
            if not handle.cancelled():
                delay = handle.when() - self.loop.time()
                found = self._add(TIMER_ID, StepKind.SLEEP, Sleep(delay=delay), lambda _: None)
                found.handle = handle
                self._timers[id(handle)] = found
        self.loop.new_timers.clear()
        root = self._root
        assert root is not None
        if self._fault is not None:
            self._end(Raised(self._fault))
        elif root.done():
            self._end(self._result(root))
        elif not self._open:
            message = (
                f"the body of {self.function.id!r} waits for something that no step will bring: "
                "everything that it awaits must come from step.run(...) and its like"
            )
            self._end(Raised(self.values.failure(ForeignAwaitError(message))))

    def _deliver(self, entries: Sequence[Entry]) -> None:
        for number, entry in enumerate(entries):
            if entry.sequence != self.sequence + 1:
                raise ValueError(f"journal entry {entry.sequence} follows {self.sequence}: there is a gap")
            self.sequence = entry.sequence
            if self.ended:
                continue
            self.replaying = number + 1 < len(entries)
            self._give(entry)
        self.replaying = False

    def _give(self, entry: Entry) -> None:
        found = self._found.get(entry.key)
        if found is None or found.planned.kind is not entry.kind:
            self._end(Raised(self._diverged(entry, found)))
            return
        self._told.discard(entry.key)
        self.loop.advance(entry.recorded_at)
        if found.state != "open":
            return
        found.state = "resolved"
        del self._open[entry.key]
        if found.handle is not None:
            self.loop.advance(found.handle.when())
            self._timers.pop(id(found.handle), None)
            self.loop.ready(found.handle)
        elif found.future is not None and not found.future.done():
            self._settle(found, found.future, entry)
        self._run_dry()

    def _settle(self, found: Found, future: asyncio.Future[Any], entry: Entry) -> None:
        outcome = entry.outcome
        if isinstance(outcome, Failure):
            future.set_exception(StepError(entry.key.id, entry.key.index, outcome, entry.attempts))
        elif isinstance(outcome, TimedOut):
            future.set_result(None)
        else:
            try:
                value = found.decode(outcome)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(value)

    def _timer_cancelled(self, handle: asyncio.TimerHandle) -> None:
        found = self._timers.pop(id(handle), None)
        if found is not None:
            self.give_up(found)

    def _result(self, root: asyncio.Task[Any]) -> Returned | Raised:
        try:
            value = root.result()
            return Returned(self.values.encode(value, self.function.output_type, f"output of {self.function.id!r}"))
        except asyncio.CancelledError:
            return Raised(Failure("CancelledError", f"the body of {self.function.id!r} cancelled itself"))
        except RuntimeError as error:
            if "attached to a different loop" not in str(error):
                return Raised(self.values.failure(error), error)
            message = (
                f"the body of {self.function.id!r} awaited something of another event loop: "
                "wrap the code that does this in a function of its own and call it with step.run(...)"
            )
            foreign = ForeignAwaitError(message)
            foreign.__cause__ = error
            return Raised(self.values.failure(foreign), foreign)
        except StepError as error:
            failure = self.values.failure(error)
            return Raised(_final(failure), error)
        except BaseException as error:
            return Raised(self.values.failure(error), error)

    def _end(self, outcome: Returned | Raised) -> None:
        """Take the body's end: whatever is open is given up."""
        self._outcome = outcome
        self.ended = True
        self.loop.stopped = True
        for found in list(self._open.values()):
            self.give_up(found)

    def _turn(self) -> Turn:
        """Give what has happened since the last turn."""
        found = [each.planned for each in self._fresh if each.state == "open" and each.planned.key not in self._told]
        self._fresh.clear()
        self._told.update(each.key for each in found)
        cancelled, self._given_up = self._given_up, []
        outcome, self._outcome = self._outcome, None
        return Turn(found, cancelled, outcome)

    def _check_expected(self, expected: Sequence[Expected]) -> None:
        for each in expected:
            found = self._found.get(each.key)
            if found is None or found.planned.kind is not each.kind:
                self._end(Raised(self._diverged(each, found)))
                return

    def _diverged(self, recorded: Entry | Expected, found: Found | None) -> Failure:
        """Describe a body that does other things than its journal holds: both sides, with their source lines."""
        known = f"{recorded.kind.name.lower()} step {str(recorded.key)!r} at {recorded.source or 'an unknown line'}"
        shown = (
            [found] if found is not None else list(self._open.values())[:SHOWN] or list(self._found.values())[-SHOWN:]
        )
        others = "; ".join(
            f"{each.planned.kind.name.lower()} step {str(each.planned.key)!r} at {each.planned.source or 'an unknown line'}"
            for each in shown
        )
        where = f"at place {recorded.sequence} of" if isinstance(recorded, Entry) else "as unfinished in"
        error = NonDeterminismError(
            f"run {self.run.run_id}: {where} the journal stands {known}, but the body of {self.function.id!r} "
            f"found {others or 'no step at all'}. A function must do the same in every replay: take clocks, random numbers and "
            "I/O into steps, and start new runs (or give the app a new version) after changing its steps"
        )
        return self.values.failure(error)


def _final(failure: Failure) -> Failure:
    """Make a failure one that is not retried."""
    import dataclasses

    return dataclasses.replace(failure, retryable=False)


def is_async(body: Callable[..., Any]) -> bool:
    """Whether calling `body` gives a coroutine."""
    return inspect.iscoroutinefunction(body) or inspect.iscoroutinefunction(getattr(body, "__call__", None))  # noqa: B004
