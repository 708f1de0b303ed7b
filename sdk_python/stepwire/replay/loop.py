"""The deterministic event loop that a function's body runs on.

It is drained synchronously: `drain` runs callbacks until none is ready, and returns. It has no clock and no I/O; its
time stands still until somebody moves it. Timers in the future are handed to the invocation, which makes durable steps
of them.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from itertools import count
from typing import Any

from stepwire import places
from stepwire.durations import LONGEST_SECONDS
from stepwire.errors import ForeignAwaitError, InvalidStepError
from stepwire.failures import type_name
from stepwire.replay import endings
from stepwire.replay.unordered import Unordered, caller_of_ensure_future

MOST_REFUSALS = 10_000
"""So many calls in a row that are refused with an error are no mistakes."""


class ReplayFuture(asyncio.Future[Any]):
    """A future whose hash is a number: sets of them iterate in the same order in every process."""

    _number = 0

    def __hash__(self) -> int:
        if not self._number:
            loop: Any = self.get_loop()
            self._number = next(loop.future_numbers)
        return self._number


class ReplayTask(asyncio.Task[Any]):
    """A task whose hash is its number."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self.number = number  # first: asyncio puts a task into a set as soon as it is made
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.number


class ReplayHandle(asyncio.Handle):
    """A callback that is to be run. The loop is never in debug mode, of which others ask it for each."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: Sequence[Any], loop: asyncio.AbstractEventLoop, context: Any
    ) -> None:
        made: Any = self
        made._context = copy_context() if context is None else context
        made._loop, made._callback, made._args = loop, callback, args
        made._cancelled, made._repr, made._source_traceback = False, None, None


class ReplayLoop(asyncio.AbstractEventLoop):
    """See the module. `now` is in Unix seconds.

    Tasks and futures are counted apart, because versions of Python differ in how many futures they make on the way.
    """

    def __init__(self, now: float) -> None:
        self.task_numbers = count(1)
        self.newest_task = 0
        self.future_numbers = count(1)
        self.new_timers: list[asyncio.TimerHandle] = []
        """Timers that were set since somebody last took them, cancelled ones included."""
        self.on_timer_cancelled: Callable[[asyncio.TimerHandle], None] = _ignore
        self.on_error: Callable[[dict[str, Any]], None] = _ignore
        """Told of exceptions that nobody will see, at no certain time."""
        self.on_refusal: Callable[[Exception], None] = _ignore
        """Told of what no replay could repeat: it must end the body."""
        self.on_abandoned: Callable[[str], None] = _ignore
        """Told the places of code that goes on though it was ended."""
        self._refusals = 0
        """Calls since the last drain began that were refused with an error."""
        self.stopped = False
        """Set to stop in the middle: nothing moves any more."""
        self._now = now
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks = endings.Live[ReplayTask](lambda task: not task.done())
        self._generators = endings.Live[AsyncGenerator[Any, Any]](endings.unended)
        self._unordered = Unordered()
        self._closed = False

    # What somebody outside does.

    def drain(self, most: int) -> bool:
        """Run until nothing is ready, or `most` callbacks have run; says whether there are more.

        The caller has made this the running loop.
        """
        self._refusals = 0
        ready = self._ready
        for _ in range(most):
            if not ready or self.stopped:
                return False
            handle: Any = ready.popleft()
            if not handle._cancelled:
                try:  # what `Handle._run` does, in one frame less for each callback
                    handle._context.run(handle._callback, *handle._args)
                except BaseException as error:
                    self._went_through(handle, error)
        return bool(ready) and not self.stopped

    def _went_through(self, handle: asyncio.Handle, error: BaseException) -> None:
        """Take what a callback has raised. A task lets only through what ends other loops, and has kept it."""
        if not isinstance(getattr(getattr(handle, "_callback", None), "__self__", None), asyncio.Task):
            self.call_exception_handler({"message": f"a callback has raised {type_name(error)}", "exception": error})

    def places(self) -> list[str]:
        """Give where the code stands that is about to run, without repetition."""
        return list(dict.fromkeys(filter(None, map(places.of_handle, self._ready))))

    def advance(self, now: float) -> None:
        """Move the clock; it never goes back."""
        self._now = max(self._now, now)

    def ready(self, handle: asyncio.Handle) -> None:
        """Have a handle run in the next drain."""
        self._ready.append(handle)

    def waiting(self) -> list[str]:
        """Give where the user's code stands in tasks that wait for timers, and the like."""
        self._tasks.prune()
        waits = [task for task in self._tasks if type(getattr(task, "_fut_waiter", None)) is ReplayFuture]
        return [place for place in (places.of_awaitable(task.get_coro()) for task in waits) if place]

    def close(self) -> None:
        """Drop everything, without a sound. Coroutines are closed here and now, not by a later garbage collection."""
        if self._closed:
            return
        self._tasks.prune()  # errors that nobody has seen are told now or never
        self._closed = self.stopped = True
        with self.running():
            for _ in range(endings.ROUNDS):  # code that is ended may make new ones
                tasks, generators = self._tasks.take(), self._generators.take()
                if not tasks and not generators:
                    break
                for place in (*map(endings.end_task, tasks), *map(endings.end_generator, generators)):
                    if place:
                        self.on_abandoned(place)
        self._ready.clear()
        self.new_timers.clear()
        self.on_timer_cancelled = self.on_error = self.on_refusal = self.on_abandoned = _ignore

    def is_hopeless(self, error: Exception) -> bool:
        """Count a call of the body that is refused with an error; end the body with it if there is no end to them.

        A body that catches each error and calls again would never come to an await: what it gets then never comes.
        """
        self._refusals += 1
        if self._refusals < MOST_REFUSALS:
            return False
        self.on_refusal(error)
        return True

    def running(self) -> Running:
        """Make this the running loop, though another loop or task may be running in this thread."""
        return Running(self)

    # What asyncio asks of a loop.

    def time(self) -> float:
        """Give the time of the last delivered result, in Unix seconds."""
        return self._now

    def call_soon(  # type: ignore[override]  # typeshed ties the arguments to the callback
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run a callback in this drain, after those that are ready already."""
        handle = ReplayHandle(callback, args, self, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a durable timer, `delay` in seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a durable timer; one that is due already runs in this drain, one at infinity never does."""
        if math.isnan(when) or LONGEST_SECONDS < when - self._now < math.inf:
            error = InvalidStepError(
                f"the function's body set a timer of {when - self._now:g} s, but the limit is {LONGEST_SECONDS:g} s "
                "(--max-sleep)"
            )
            if not self.is_hopeless(error):
                raise error
            when = math.inf
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if when <= self._now:
            self._ready.append(handle)
        elif when < math.inf:
            setattr(handle, "_scheduled", True)  # noqa: B010 - so that its cancellation is told
            self.new_timers.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if not self._closed:
            self.on_timer_cancelled(handle)

    def create_future(self) -> ReplayFuture:
        """Make a future."""
        return ReplayFuture(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None, **more: Any) -> Any:
        """Make a task."""
        frame = caller_of_ensure_future(sys._getframe(1))
        if frame is not None:
            try:
                task: ReplayTask = self._unordered.take(frame, coro, self._new_task)
            except ForeignAwaitError as error:
                self.on_refusal(error)
            else:
                return task
        return self._new_task(coro, name=name, context=context, **more)

    def _new_task(self, coro: Any, *, name: str | None = None, **options: Any) -> ReplayTask:
        number = self.newest_task = next(self.task_numbers)
        task = ReplayTask(coro, number, loop=self, name=f"Task-{number}" if name is None else name, **options)
        self._tasks.add(task)
        return task

    def get_task_factory(self) -> None:
        """There is none."""
        return

    def get_debug(self) -> bool:
        """Never in debug mode."""
        return False

    def is_running(self) -> bool:
        """Whether it is being drained."""
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Pass errors on that nobody will see; say nothing about tasks that are pending when they are dropped."""
        if not self._closed and "exception" in context:
            self.on_error(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """See call_exception_handler."""
        self.call_exception_handler(context)

    async def shutdown_asyncgens(self) -> None:
        """Close the async generators that were left in the middle, in the order in which they were begun."""
        for generator in self._generators.take():
            if not self._closed and not endings.is_awaiting(generator):
                await generator.aclose()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: there is none."""


class Running:
    """In this context a replay loop is the running one."""

    __slots__ = ("_hooks", "_loop", "_outer", "_task")

    def __init__(self, loop: ReplayLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        outer = self._outer = asyncio._get_running_loop()
        if outer is self._loop:
            return
        task = self._task = asyncio.current_task(outer) if outer is not None else None
        self._hooks = sys.get_asyncgen_hooks()
        if task is not None and outer is not None:
            asyncio.tasks._leave_task(outer, task)
        asyncio._set_running_loop(self._loop)
        # A strong reference to each generator: a garbage collection must not decide when its `finally` runs.
        sys.set_asyncgen_hooks(firstiter=self._loop._generators.add, finalizer=_leave)

    def __exit__(self, *_: object) -> None:
        outer = self._outer
        if outer is self._loop:
            return
        sys.set_asyncgen_hooks(*self._hooks)
        asyncio._set_running_loop(outer)
        if self._task is not None and outer is not None:
            asyncio.tasks._enter_task(outer, self._task)


def _ignore(_: object) -> None:
    """Take the place of who is to be told of something."""


def _leave(generator: AsyncGenerator[Any, Any]) -> None:
    """Take the place of a finalizer; the loop's own reference keeps generators until they are closed."""


def _foreign(name: str) -> Callable[..., ReplayFuture]:
    def method(self: ReplayLoop, *args: Any, **kwargs: Any) -> ReplayFuture:
        error = ForeignAwaitError(
            f"the function's body asked its event loop for {name}(), which a replay cannot repeat: "
            "wrap the code that does this in a function of its own and call it with step.run(...)"
        )
        if not self.is_hopeless(error):
            raise error
        return self.create_future()

    method.__name__ = name
    return method


_OWN = set(vars(ReplayLoop))
for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in _OWN:
        setattr(ReplayLoop, _name, _foreign(_name))
