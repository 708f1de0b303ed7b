"""The deterministic event loop that a function's body runs on.

It is drained synchronously: `drain` runs callbacks until none is ready, and returns. It has no clock and no I/O; its
time stands still until somebody moves it. Timers in the future are handed to the invocation, which makes durable steps
of them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from itertools import count
from typing import Any, NoReturn

from stepwire.errors import ForeignAwaitError


class ReplayFuture(asyncio.Future[Any]):
    """A future whose hash is its number: sets of them iterate in the same order in every process."""

    def __init__(self, *, loop: ReplayLoop) -> None:
        self._number = next(loop.numbers)
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class ReplayTask(asyncio.Task[Any]):
    """A task whose hash is its number."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, loop: ReplayLoop, **options: Any) -> None:
        self._number = next(loop.numbers)
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class ReplayLoop(asyncio.AbstractEventLoop):
    """See the module. `now` is in Unix seconds."""

    def __init__(self, now: float) -> None:
        self.numbers = count()
        self.new_timers: list[asyncio.TimerHandle] = []
        """Timers that were set since somebody last took them, cancelled ones included."""
        self.on_timer_cancelled: Callable[[asyncio.TimerHandle], None] = lambda _: None
        self.stopped = False
        """Set to stop in the middle: nothing moves any more."""
        self._now = now
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: weakref.WeakSet[ReplayTask] = weakref.WeakSet()
        self._closed = False

    # What somebody outside does.

    def drain(self) -> None:
        """Run until nothing is ready, whoever's loop or task is running outside."""
        ready = self._ready
        with running(self):
            while ready and not self.stopped:
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()

    def advance(self, now: float) -> None:
        """Move the clock; it never goes back."""
        self._now = max(self._now, now)

    def ready(self, handle: asyncio.Handle) -> None:
        """Have a handle run in the next drain."""
        self._ready.append(handle)

    def close(self) -> None:
        """Drop everything, without a sound. Coroutines are closed here and now, not by a later garbage collection."""
        self._closed = self.stopped = True
        self._ready.clear()
        with running(self):
            for task in sorted(self._tasks, key=hash):
                coroutine = task.get_coro()
                if not task.done() and coroutine is not None:
                    try:
                        coroutine.close()
                    except (RuntimeError, ValueError):
                        continue  # it ignores its end, or is running: there is nothing more that could be done for it

    # What asyncio asks of a loop.

    def time(self) -> float:
        """Give the time of the last delivered result, in Unix seconds."""
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Run a callback in this drain, after those that are ready already."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a durable timer."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a durable timer; one that is due already runs in this drain."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if when <= self._now:
            self._ready.append(handle)
        else:
            setattr(handle, "_scheduled", True)  # noqa: B010 - so that its cancellation is told
            self.new_timers.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.on_timer_cancelled(handle)

    def create_future(self) -> ReplayFuture:
        """Make a future."""
        return ReplayFuture(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None, **more: Any) -> Any:
        """Make a task."""
        if name is not None:
            more["name"] = name
        if context is not None:
            more["context"] = context
        task = ReplayTask(coro, loop=self, **more)
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
        """Stay silent: what is never awaited has no effect on the run, and would be told anew in every replay."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Stay silent."""

    async def shutdown_asyncgens(self) -> None:
        """Do nothing."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing."""


def _foreign(name: str) -> Callable[..., NoReturn]:
    def method(self: ReplayLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise ForeignAwaitError(
            f"the function's body asked its event loop for {name}(), which a replay cannot repeat: "
            "wrap the code that does this in a function of its own and call it with step.run(...)"
        )

    method.__name__ = name
    return method


_OWN = set(vars(ReplayLoop))
for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in _OWN:
        setattr(ReplayLoop, _name, _foreign(_name))


@contextmanager
def running(loop: ReplayLoop) -> Iterator[None]:
    """Make `loop` the running one, though another loop or task may be running in this thread."""
    outer = asyncio._get_running_loop()
    task = asyncio.current_task(outer) if outer is not None else None
    if task is not None and outer is not None:
        asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None and outer is not None:
            asyncio.tasks._enter_task(outer, task)
