"""What a function's body starts: steps. `Step` is for async functions; `SyncStep` is the same for sync ones."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from stepwire import app as apps
from stepwire.body.branches import awaited, callables, several, side_by_side
from stepwire.body.call import GroupCall, StepCall
from stepwire.body.checks import (
    check_event,
    check_id,
    check_map,
    check_text,
    fields_of,
    limit_of,
    names_arguments,
    source,
    unix_time,
)
from stepwire.durations import seconds
from stepwire.errors import InvalidStepError
from stepwire.events import Event, ReceivedEvent, as_event, from_output, outgoing
from stepwire.payload import Payload
from stepwire.replay.found import nothing
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

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Duration = float | timedelta
Retries = int | Retry | None
Match = Mapping[str, str | float | bool | None]


@names_arguments
class Step:
    """Starts steps of an async function. Every method gives a coroutine: await it, gather it, make a task of it.

    Durations are in seconds, or timedeltas. Bad ids, options and arguments raise InvalidStepError, a step that is
    started by a step's code NestedStepError; awaiting raises StepError when the step has failed for good.
    """

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._numbers = count()

    @overload
    def run(
        self, id: str, fn: Callable[..., Any], /, *args: Any, output_type: type[T], **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., Awaitable[T]], /, *args: Any, retries: Retries, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., T], /, *args: Any, retries: Retries, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., Awaitable[T]], /, *args: Any, timeout: Duration | None, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., T], /, *args: Any, timeout: Duration | None, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., Awaitable[T]], /, *args: Any, attempt_timeout: Duration | None, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., T], /, *args: Any, attempt_timeout: Duration | None, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, id: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    def run(  # type: ignore[misc]  # the last two overloads stand for calls without options
        self,
        id: str,
        fn: Callable[..., Any],
        /,
        *args: Any,
        retries: Retries = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        output_type: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Run `fn(*args, **kwargs)` once, in some worker, and give its result.

        `retries` after the first attempt, or a Retry. `timeout` is for the whole step, `attempt_timeout` for one
        attempt. The result comes back as `output_type`, else as `fn` is annotated.
        """
        if not callable(fn):
            raise InvalidStepError(
                f"step {id!r} is to run {fn!r}, which can't be called: give the function, not its result"
            )
        code = functools.partial(fn, *args, **kwargs) if args or kwargs else fn
        target = Closure(code, _type_of(fn)) if output_type is None else Closure(code, output_type, converts=True)
        return self._start(id, StepKind.CLOSURE, target, None, retries, timeout, attempt_timeout)

    @overload
    def call(self, name: str, input: Any = None, *, output_type: type[T], **options: Any) -> Coroutine[Any, Any, T]: ...
    @overload
    def call(
        self,
        name: str,
        input: Any = None,
        *,
        id: str | None = None,
        retries: Retries = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        output_type: Any = None,
    ) -> Coroutine[Any, Any, Any]: ...
    def call(  # type: ignore[misc]  # the first overload leaves out the other options
        self,
        name: str,
        input: Any = None,
        *,
        id: str | None = None,
        retries: Retries = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        output_type: Any = None,
    ) -> Coroutine[Any, Any, Any]:
        """Run a task by its name, in any worker of the app that has it, whatever its language; see `run`.

        The step's id is the task's name unless `id` is given.
        """
        check_text(name, "a task's name")
        data = self._invocation.values.encode(input, None, f"input of task {name!r}")
        step_id = name if id is None else id
        return self._start(step_id, StepKind.TASK, Task(name, data), output_type, retries, timeout, attempt_timeout)

    def sleep(self, id: str, duration: Duration) -> Coroutine[Any, Any, None]:
        """Sleep, durably."""
        delay = seconds(duration, f"the duration of sleep {id!r}", InvalidStepError)
        return self._start(id, StepKind.SLEEP, Sleep(delay=delay), decode=nothing)

    def sleep_until(self, id: str, when: datetime | float) -> Coroutine[Any, Any, None]:
        """Sleep until a time: an aware datetime, or Unix time in seconds. A time in the past ends at once."""
        end = unix_time(id, when, self._invocation.loop.time())
        return self._start(id, StepKind.SLEEP, Sleep(until=end), decode=nothing)

    def send_events(self, id: str, events: Iterable[Event | tuple[str, Any]]) -> Coroutine[Any, Any, list[str]]:
        """Send events, exactly once; gives their ids."""
        try:
            listed = [as_event(event) for event in events]
        except TypeError as error:
            raise InvalidStepError(f"step {id!r}: {error}") from None
        if not listed:
            raise InvalidStepError(f"step {id!r} sends no events: give it at least one")
        for event in listed:
            check_event(id, event)
        target = SendEvents([outgoing(event, self._invocation.values) for event in listed])
        return self._start(id, StepKind.SEND_EVENTS, target, decode=_plain)

    @overload
    def invoke(
        self,
        id: str,
        function: str | Callable[..., Any] | apps.Function,
        data: Any = None,
        *,
        timeout: Duration | None = None,
        output_type: type[T],
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def invoke(
        self,
        id: str,
        function: str | Callable[..., Any] | apps.Function,
        data: Any = None,
        *,
        timeout: Duration | None = None,
        output_type: Any = None,
    ) -> Coroutine[Any, Any, Any]: ...
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
        app, function_id = _named(id, function)
        target = Invoke(app, function_id, self._invocation.values.encode(data, None, f"data of invoke {id!r}"))
        if output_type is None and not isinstance(function, str):
            output_type = function.output_type if isinstance(function, apps.Function) else _type_of(function)
        return self._start(id, StepKind.INVOKE, target, output_type, timeout=timeout)

    def wait_for_event(
        self, id: str, name: str, *, match: Match | None = None, timeout: Duration | None = None
    ) -> Coroutine[Any, Any, ReceivedEvent | None]:
        """Wait for an event with this name whose data equals `match` (dotted paths to values).

        Gives None if the time runs out. Events that arrived since the run began count. An event is given to one wait of
        a run only: waits in a loop get one event after the other; of waits side by side the one started first gets it.
        """
        check_text(name, f"the name of the event that wait {id!r} is for")
        limit = None if timeout is None else seconds(timeout, f"the timeout of wait {id!r}", InvalidStepError)
        target = WaitForEvent(name, fields_of(id, match or {}), limit)
        decode = functools.partial(from_output, values=self._invocation.values)
        return self._start(id, StepKind.WAIT_FOR_EVENT, target, decode=decode)

    @overload
    def parallel(
        self, *branches: Callable[[], Awaitable[T]] | Awaitable[T], race: Literal[False] = False
    ) -> Coroutine[Any, Any, list[T]]: ...
    @overload
    def parallel(
        self, *branches: Callable[[], Awaitable[T]] | Awaitable[T], race: Literal[True]
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def parallel(
        self, branches: Sequence[Callable[[], Awaitable[T]] | Awaitable[T]], /, *, race: Literal[False] = False
    ) -> Coroutine[Any, Any, list[T]]: ...
    @overload
    def parallel(
        self, branches: Sequence[Callable[[], Awaitable[T]] | Awaitable[T]], /, *, race: Literal[True]
    ) -> Coroutine[Any, Any, T]: ...
    def parallel(self, *branches: Any, race: bool = False) -> Coroutine[Any, Any, Any]:
        """Run branches side by side: awaitables, or callables that give one; as arguments, or as one tuple or list.

        Gives their results in order. With `race` it gives the result of the branch that ends first, or its error.
        Branches that are no longer needed, because one has failed or won, are cancelled.
        """
        together = _together(several(branches), race)
        return GroupCall(next(self._numbers), self._invocation, together, "step.parallel", source())

    @overload
    def map(
        self, id: str, fn: Callable[[Item], Awaitable[T]], items: Iterable[Item], /, **options: Any
    ) -> Coroutine[Any, Any, list[T]]: ...
    @overload
    def map(
        self, id: str, fn: Callable[[Item], T], items: Iterable[Item], /, **options: Any
    ) -> Coroutine[Any, Any, list[T]]: ...
    def map(
        self,
        id: str,
        fn: Callable[..., Any],
        items: Iterable[Any],
        /,
        *,
        concurrency: int | None = None,
        **options: Any,
    ) -> Coroutine[Any, Any, list[Any]]:
        """Run `fn(item)` as a step for each item, at most `concurrency` at a time; gives the results in order.

        Takes the options of `run`. The first step that fails for good cancels the others.
        """
        check_id(id, self._invocation.max_step_id_bytes)
        check_map(id, fn, items, concurrency)
        at = source()
        work = list(enumerate(items))
        results: list[Any] = [None] * len(work)
        waiting = iter(work)

        async def lane() -> None:
            for position, item in waiting:
                call = self.run(id, fn, item, **options)
                assert isinstance(call, StepCall)
                results[position] = await call.at(at)

        lanes = len(work) if concurrency is None else min(len(work), concurrency)

        async def every() -> list[Any]:
            await side_by_side([lane() for _ in range(lanes)], race=False)
            return results

        return GroupCall(next(self._numbers), self._invocation, every(), id, at)

    # How it works inside.

    def _start(
        self,
        id: str,
        kind: StepKind,
        target: Target,
        output_type: Any = None,
        retries: Retries = None,
        timeout: Duration | None = None,
        attempt_timeout: Duration | None = None,
        *,
        decode: Callable[[Payload], Any] | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Check what users gave; the step is planned when the coroutine first runs."""
        check_id(id, self._invocation.max_step_id_bytes)
        self._invocation.check_in_body(id)
        retry = None if retries is None else apps.as_retry(retries, f"step {id!r}", InvalidStepError)
        step_timeout = None if timeout is None else limit_of(timeout, f"the timeout of step {id!r}")
        if attempt_timeout is not None:
            attempt_timeout = limit_of(attempt_timeout, f"the attempt_timeout of step {id!r}")
        if decode is None and kind is not StepKind.CLOSURE:  # code says itself what it gives
            what = f"the output of step {id!r}"
            decode = functools.partial(self._invocation.values.decode, type_=output_type, what=what)
        plan = (id, kind, target, decode, retry, attempt_timeout, step_timeout)
        return StepCall(next(self._numbers), self._invocation, plan, source())


@names_arguments
class SyncStep:
    """Starts steps of a sync function. Methods, arguments and errors are those of Step; they return the results."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._step = Step(invocation)

    @overload
    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, output_type: type[T], **kwargs: Any) -> T: ...
    @overload
    def run(self, id: str, fn: Callable[..., Awaitable[T]], /, *args: Any, retries: Retries, **kwargs: Any) -> T: ...
    @overload
    def run(self, id: str, fn: Callable[..., T], /, *args: Any, retries: Retries, **kwargs: Any) -> T: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., Awaitable[T]], /, *args: Any, timeout: Duration | None, **kwargs: Any
    ) -> T: ...
    @overload
    def run(self, id: str, fn: Callable[..., T], /, *args: Any, timeout: Duration | None, **kwargs: Any) -> T: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., Awaitable[T]], /, *args: Any, attempt_timeout: Duration | None, **kwargs: Any
    ) -> T: ...
    @overload
    def run(
        self, id: str, fn: Callable[..., T], /, *args: Any, attempt_timeout: Duration | None, **kwargs: Any
    ) -> T: ...
    @overload
    def run(self, id: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def run(self, id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def run(self, id: str, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """See Step.run."""
        return self._wait(self._step.run, id, fn, *args, **options)

    @overload
    def call(self, name: str, input: Any = None, *, output_type: type[T], **options: Any) -> T: ...
    @overload
    def call(self, name: str, input: Any = None, **options: Any) -> Any: ...
    def call(self, name: str, input: Any = None, **options: Any) -> Any:
        """See Step.call."""
        return self._wait(self._step.call, name, input, **options)

    def sleep(self, id: str, duration: Duration) -> None:
        """See Step.sleep."""
        self._wait(self._step.sleep, id, duration)

    def sleep_until(self, id: str, when: datetime | float) -> None:
        """See Step.sleep_until."""
        self._wait(self._step.sleep_until, id, when)

    def send_events(self, id: str, events: Iterable[Event | tuple[str, Any]]) -> list[str]:
        """See Step.send_events."""
        ids: list[str] = self._wait(self._step.send_events, id, events)
        return ids

    @overload
    def invoke(
        self,
        id: str,
        function: str | Callable[..., Any] | apps.Function,
        data: Any = None,
        *,
        timeout: Duration | None = None,
        output_type: type[T],
    ) -> T: ...
    @overload
    def invoke(
        self, id: str, function: str | Callable[..., Any] | apps.Function, data: Any = None, **options: Any
    ) -> Any: ...
    def invoke(
        self, id: str, function: str | Callable[..., Any] | apps.Function, data: Any = None, **options: Any
    ) -> Any:
        """See Step.invoke."""
        return self._wait(self._step.invoke, id, function, data, **options)

    def wait_for_event(
        self, id: str, name: str, *, match: Match | None = None, timeout: Duration | None = None
    ) -> ReceivedEvent | None:
        """See Step.wait_for_event."""
        event: ReceivedEvent | None = self._wait(self._step.wait_for_event, id, name, match=match, timeout=timeout)
        return event

    @overload
    def parallel(self, *branches: Callable[[], T], race: Literal[False] = False) -> list[T]: ...
    @overload
    def parallel(self, *branches: Callable[[], T], race: Literal[True]) -> T: ...
    @overload
    def parallel(self, branches: Sequence[Callable[[], T]], /, *, race: Literal[False] = False) -> list[T]: ...
    @overload
    def parallel(self, branches: Sequence[Callable[[], T]], /, *, race: Literal[True]) -> T: ...
    def parallel(self, *branches: Any, race: bool = False) -> Any:
        """Run callables side by side, each in a thread of its own that may hold several steps; see Step.parallel."""
        code = callables(several(branches))
        here = branch_of(self._invocation, "step.parallel")
        threads = [Branch(self._invocation, branch).run() for branch in code]
        return here.wait_for(side_by_side(threads, race=race))

    @overload
    def map(self, id: str, fn: Callable[[Item], Awaitable[T]], items: Iterable[Item], /, **options: Any) -> list[T]: ...
    @overload
    def map(self, id: str, fn: Callable[[Item], T], items: Iterable[Item], /, **options: Any) -> list[T]: ...
    def map(self, id: str, fn: Callable[..., Any], items: Iterable[Any], /, **options: Any) -> Any:
        """See Step.map."""
        return self._wait(self._step.map, id, fn, items, **options)

    def _wait(self, start: Callable[..., Coroutine[Any, Any, Any]], id: str, /, *args: Any, **options: Any) -> Any:
        return branch_of(self._invocation, id).wait_for(start(id, *args, **options))


async def _together(branches: Sequence[Any], race: bool) -> Any:
    return await side_by_side([awaited(branch) for branch in branches], race=race)


def _named(id: str, function: str | Callable[..., Any] | apps.Function) -> tuple[str, str]:
    """Give the app and the id of a function that is to be invoked."""
    if isinstance(function, apps.Function):
        return "", function.id
    name = function if isinstance(function, str) else apps.declared_as(function)
    if not name:
        raise InvalidStepError(f"step {id!r} invokes {function!r}, which is not declared with @app.function")
    check_text(name, f"the function that step {id!r} invokes")
    app, slash, function_id = name.rpartition("/")
    if not function_id or (slash and not app):
        raise InvalidStepError(f"step {id!r} invokes {name!r}: give a function's id, or app/id")
    return app, function_id


def _type_of(fn: Callable[..., Any]) -> Any | None:
    return None if getattr(fn, "__name__", "") == "<lambda>" else return_type(fn)


def _plain(payload: Payload) -> Any:
    """Decode what the executor itself has encoded: JSON without a codec."""
    return json.loads(payload.data or b"null")
