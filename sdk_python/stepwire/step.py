"""What a function's body starts: steps. `Step` is for async functions; `SyncStep` is the same for sync ones."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import math
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from stepwire import app as apps
from stepwire.durations import seconds
from stepwire.errors import InvalidStepError, NestedStepError
from stepwire.events import Event, ReceivedEvent, as_event, from_output, outgoing
from stepwire.payload import Payload
from stepwire.replay.model import (
    Closure,
    Invoke,
    Retry,
    SendEvents,
    Sleep,
    StepKind,
    Target,
    Task,
    WaitForEvent,
)
from stepwire.replay.threads import Branch, branch_of
from stepwire.values import return_type

if TYPE_CHECKING:
    from stepwire.replay.invocation import Invocation

T = TypeVar("T")
Duration = float | timedelta
_OWN_FOLDER = str(Path(__file__).parent)
RESERVED = "stepwire."


class Step:
    """Starts steps of an async function. Every method gives a coroutine: await it, gather it, make a task of it."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    @overload
    def run(
        self,
        id: str,
        fn: Callable[..., Coroutine[Any, Any, T]],
        *args: Any,
        retries: int | Retry | None = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        output_type: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def run(
        self,
        id: str,
        fn: Callable[..., T],
        *args: Any,
        retries: int | Retry | None = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        output_type: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...

    def run(
        self,
        id: str,
        fn: Callable[..., Any],
        *args: Any,
        retries: int | Retry | None = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        output_type: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Run `fn(*args, **kwargs)` once, in some worker, and give its result.

        `retries` after the first attempt, or a Retry. `timeout` is for the whole step, `attempt_timeout` for one attempt; in
        seconds or as a timedelta. The result comes back as `output_type`, else as `fn` is annotated.
        Raises StepError when it has failed for good.
        """
        if not callable(fn):
            raise InvalidStepError(
                f"step {id!r} is to run {fn!r}, which can't be called: give the function, not its result"
            )
        code = functools.partial(fn, *args, **kwargs) if args or kwargs else fn
        type_ = output_type if output_type is not None else _type_of(fn)
        return self._start(id, StepKind.CLOSURE, Closure(code, type_), type_, retries, timeout, attempt_timeout)

    def call(
        self,
        name: str,
        input: Any = None,
        *,
        id: str | None = None,
        retries: int | Retry | None = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        output_type: Any = None,
    ) -> Coroutine[Any, Any, Any]:
        """Run a task by its name, in any worker of the app that has it, whatever its language; see `run`.

        The step's id is the task's name unless `id` is given.
        """
        step_id = name if id is None else id
        data = self._invocation.values.encode(input, None, f"input of task {name!r}")
        return self._start(step_id, StepKind.TASK, Task(name, data), output_type, retries, timeout, attempt_timeout)

    def sleep(self, id: str, duration: Duration) -> Coroutine[Any, Any, None]:
        """Sleep for some seconds, or a timedelta, durably."""
        delay = seconds(duration, f"the duration of sleep {id!r}", InvalidStepError)
        return self._start(id, StepKind.SLEEP, Sleep(delay=delay), decode=_nothing)

    def sleep_until(self, id: str, when: datetime | float) -> Coroutine[Any, Any, None]:
        """Sleep until a time: an aware datetime, or Unix time in seconds. A time in the past ends at once."""
        return self._start(id, StepKind.SLEEP, Sleep(until=_unix_time(id, when)), decode=_nothing)

    def send_events(self, id: str, events: Sequence[Event | tuple[str, Any]]) -> Coroutine[Any, Any, list[str]]:
        """Send events, exactly once; gives their ids."""
        values = self._invocation.values
        target = SendEvents([outgoing(as_event(event), values) for event in events])
        if not target.events:
            raise InvalidStepError(f"step {id!r} sends no events: give it at least one")
        return self._start(id, StepKind.SEND_EVENTS, target, decode=_plain)

    def invoke(
        self,
        id: str,
        function: str | Callable[..., Any] | apps.Function,
        data: Any = None,
        *,
        timeout: Duration | None = None,
        output_type: Any = None,
    ) -> Coroutine[Any, Any, Any]:
        """Start a run of another function and give its result.

        `function` is its id, "app/id", or what was declared. If its run fails, so does the step, with StepError.
        """
        app, function_id = self._function(id, function)
        target = Invoke(app, function_id, self._invocation.values.encode(data, None, f"data of invoke {id!r}"))
        if output_type is None and callable(function):
            output_type = _type_of(function)
        return self._start(id, StepKind.INVOKE, target, output_type, timeout=timeout)

    def wait_for_event(
        self,
        id: str,
        name: str,
        *,
        match: Mapping[str, str | float | bool | None] | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[Any, Any, ReceivedEvent | None]:
        """Wait for an event with this name whose data equals `match` (dotted paths to values); None if the time runs out.

        Events that arrived since the run began count.
        """
        fields = {path: _json_of(id, path, value) for path, value in (match or {}).items()}
        limit = None if timeout is None else seconds(timeout, f"the timeout of wait {id!r}", InvalidStepError)
        values = self._invocation.values
        decode = functools.partial(from_output, values=values)
        return self._start(id, StepKind.WAIT_FOR_EVENT, WaitForEvent(name, fields, limit), decode=decode)

    @overload
    async def parallel(self, *branches: Any) -> list[Any]: ...

    @overload
    async def parallel(self, *branches: Any, race: bool) -> Any: ...

    async def parallel(self, *branches: Any, race: bool = False) -> Any:
        """Run branches side by side: awaitables, or callables that give one; as arguments or as one sequence.

        Gives their results in order; with `race` the first result. Branches that are no longer needed, because one has
        failed or won, are cancelled.
        """
        return await _side_by_side([_awaited(branch) for branch in _several(branches)], race=race)

    async def map(
        self,
        id: str,
        fn: Callable[..., Any],
        items: Iterable[Any],
        *,
        concurrency: int | None = None,
        retries: int | Retry | None = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        output_type: Any = None,
    ) -> list[Any]:
        """Run `fn(item)` as a step for each item, at most `concurrency` at a time; gives the results in order."""
        if concurrency is not None and concurrency < 1:
            raise InvalidStepError(f"step {id!r}: concurrency is {concurrency}, but must be at least 1")
        pending = list(items)
        results: list[Any] = [None] * len(pending)
        work = iter(enumerate(pending))

        async def lane() -> None:
            for index, item in work:
                results[index] = await self.run(
                    id,
                    fn,
                    item,
                    retries=retries,
                    timeout=timeout,
                    attempt_timeout=attempt_timeout,
                    output_type=output_type,
                )

        await _side_by_side([lane() for _ in range(min(len(pending), concurrency or len(pending)))], race=False)
        return results

    # How it works inside.

    def _start(
        self,
        id: str,
        kind: StepKind,
        target: Target,
        output_type: Any = None,
        retries: int | Retry | None = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        *,
        decode: Callable[[Payload], Any] | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Check what users gave; the step is planned when the coroutine first runs."""
        _check_id(id)
        retry = apps.as_retry(retries, f"step {id!r}", InvalidStepError)
        step_timeout = None if timeout is None else seconds(timeout, f"the timeout of step {id!r}", InvalidStepError)
        if attempt_timeout is not None:
            attempt_timeout = seconds(attempt_timeout, f"the attempt_timeout of step {id!r}", InvalidStepError)
        if decode is None:
            values = self._invocation.values
            decode = functools.partial(values.decode, type_=output_type, what=f"the output of step {id!r}")
        return self._wait(id, kind, target, decode, retry, attempt_timeout, step_timeout, _source())

    async def _wait(
        self,
        id: str,
        kind: StepKind,
        target: Target,
        decode: Callable[[Payload], Any],
        retry: Retry | None,
        attempt_timeout: float | None,
        step_timeout: float | None,
        source: str,
    ) -> Any:
        invocation = self._invocation
        if asyncio._get_running_loop() is not invocation.loop:
            raise NestedStepError(
                f"step {id!r} was started outside of its function's body, probably inside another step: "
                "start steps in the body only, one after the other or side by side"
            )
        return await invocation.plan(
            id,
            kind,
            target,
            decode,
            retry=retry,
            attempt_timeout=attempt_timeout,
            step_timeout=step_timeout,
            source=source,
        )

    def _function(self, id: str, function: str | Callable[..., Any] | apps.Function) -> tuple[str, str]:
        if isinstance(function, apps.Function):
            return "", function.id
        name = function if isinstance(function, str) else apps.declared_as(function)
        if not name:
            raise InvalidStepError(f"step {id!r} invokes {function!r}, which is not declared with @app.function")
        app, slash, function_id = name.rpartition("/")
        if not function_id or (slash and not app):
            raise InvalidStepError(f"step {id!r} invokes {name!r}: give a function's id, or app/id")
        return app, function_id


class SyncStep:
    """Starts steps of a sync function. Methods and arguments are those of Step; they return when the result is there."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._step = Step(invocation)

    def run(self, id: str, fn: Callable[..., T], *args: Any, **options: Any) -> T:
        """See Step.run."""
        return cast(T, self._wait(self._step.run, id, fn, *args, **options))

    def call(self, name: str, input: Any = None, **options: Any) -> Any:
        """See Step.call."""
        return self._wait(self._step.call, name, input, **options)

    def sleep(self, id: str, duration: Duration) -> None:
        """See Step.sleep."""
        self._wait(self._step.sleep, id, duration)

    def sleep_until(self, id: str, when: datetime | float) -> None:
        """See Step.sleep_until."""
        self._wait(self._step.sleep_until, id, when)

    def send_events(self, id: str, events: Sequence[Event | tuple[str, Any]]) -> list[str]:
        """See Step.send_events."""
        return cast("list[str]", self._wait(self._step.send_events, id, events))

    def invoke(self, id: str, function: Any, data: Any = None, **options: Any) -> Any:
        """See Step.invoke."""
        return self._wait(self._step.invoke, id, function, data, **options)

    def wait_for_event(self, id: str, name: str, **options: Any) -> ReceivedEvent | None:
        """See Step.wait_for_event."""
        return cast("ReceivedEvent | None", self._wait(self._step.wait_for_event, id, name, **options))

    def map(self, id: str, fn: Callable[..., T], items: Iterable[Any], **options: Any) -> list[T]:
        """See Step.map."""
        return cast("list[T]", self._wait(self._step.map, id, fn, items, **options))

    @overload
    def parallel(self, *branches: Any) -> list[Any]: ...

    @overload
    def parallel(self, *branches: Any, race: bool) -> Any: ...

    def parallel(self, *branches: Any, race: bool = False) -> Any:
        """Run callables side by side, each in a thread of its own that may hold several steps; see Step.parallel."""
        threads = [Branch(self._invocation, branch).run() for branch in _callables(_several(branches))]
        return self._wait(_side_by_side, threads, race=race)

    def _wait(self, start: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> Any:
        return branch_of(self._invocation).wait_for(start(*args, **options))


async def _side_by_side(branches: Sequence[Coroutine[Any, Any, Any]], *, race: bool) -> Any:
    """Await all branches, or the first; what is not needed any more is cancelled."""
    if not branches:
        if race:
            raise InvalidStepError("a race needs at least one branch")
        return []
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(branch) for branch in branches]
    try:
        when = asyncio.FIRST_COMPLETED if race else asyncio.FIRST_EXCEPTION
        await asyncio.wait(tasks, return_when=when)
    finally:
        for task in tasks:
            task.cancel()
    if race:
        return next(task for task in tasks if task.done()).result()
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            task.result()
    return [task.result() for task in tasks]


async def _awaited(branch: Any) -> Any:
    value = branch() if callable(branch) else branch
    return await value if inspect.isawaitable(value) else value


def _several(branches: tuple[Any, ...]) -> Sequence[Any]:
    return branches[0] if len(branches) == 1 and isinstance(branches[0], list | tuple) else branches


def _callables(branches: Sequence[Any]) -> Sequence[Callable[[], Any]]:
    for branch in branches:
        if not callable(branch):
            raise InvalidStepError(
                f"step.parallel of a sync function was given {branch!r}: put lambda: before the call"
            )
    return branches


def _check_id(id: object) -> None:
    if not isinstance(id, str):
        raise InvalidStepError(f"a step's id is {id!r}, but must be a text")
    if not id:
        raise InvalidStepError("a step's id is empty: give each step a name that says what it does")
    if id.startswith(RESERVED):
        raise InvalidStepError(f"a step's id is {id!r}, but ids that start with {RESERVED!r} are Stepwire's own")
    if not id.isascii():
        try:
            id.encode()
        except UnicodeEncodeError:
            raise InvalidStepError(
                f"a step's id is {id!r}, which is not valid Unicode: it has a lone surrogate"
            ) from None


def _unix_time(id: str, when: datetime | float) -> float:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise InvalidStepError(f"sleep {id!r} is until {when}, which has no time zone: use an aware datetime")
        return when.timestamp()
    if isinstance(when, bool) or not isinstance(when, int | float) or math.isnan(when):
        raise InvalidStepError(f"sleep {id!r} is until {when!r}, but must be an aware datetime or Unix time in seconds")
    return float(when)


def _json_of(id: str, path: object, value: object) -> str:
    number = isinstance(value, float) and not math.isfinite(value)
    if not isinstance(path, str) or number or not isinstance(value, str | int | float | bool | type(None)):
        raise InvalidStepError(
            f"wait {id!r} matches {path!r} with {value!r}: paths are texts, values are texts, numbers, booleans or None"
        )
    return json.dumps(value)


def _type_of(fn: Callable[..., Any]) -> Any | None:
    return None if getattr(fn, "__name__", "") == "<lambda>" else return_type(fn)


def _source() -> str:
    """Give file and line of the user's call."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN_FOLDER):
        frame = frame.f_back
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"


def _nothing(_: Payload) -> None:
    return None


def _plain(payload: Payload) -> Any:
    """Decode what the executor itself has encoded: JSON without a codec."""
    return json.loads(payload.data or b"null")
