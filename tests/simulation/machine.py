"""The machine that everything is simulated on: one clock, and processes that each have an event loop of their own.

Nothing here knows Stepwire. Time passes only when no process can move. What is random comes from one seed, so that the
same seed does the same in every process and in every order of hashes.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import zlib
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NoReturn

import grpc.aio  # noqa: F401 - imported before any loop runs: it looks for one

EVERY_INSTANT = -1


class Machine:
    """The clock, the processes, and what will happen at which time."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.now = 1_000.0
        """Seconds of the monotonic clock."""
        self.errors: list[str] = []
        """What no process should have let happen."""
        self.fingerprint = 0
        """Of all that was sent, in its order and with its times."""
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._ready: dict[Process, None] = {}

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Have something happen at a time; never stopped, and no process's own."""
        self._order += 1
        heapq.heappush(self._agenda, (when, self._order, call))

    def after(self, delay: float, call: Callable[[], None]) -> None:
        """Have something happen a number of seconds from now."""
        self.at(self.now + delay, call)

    def mark(self, data: bytes) -> None:
        """Take something that was sent into the fingerprint."""
        self.fingerprint = zlib.crc32(data, zlib.crc32(b"%.9f" % self.now, self.fingerprint))

    def run(self, until: Callable[[], bool], deadline: float, most_moves: int = 200_000) -> bool:
        """Let everything move until something is so; False if it is not so by then (seconds of the clock)."""
        moves, ready, agenda = 0, self._ready, self._agenda
        while True:
            while ready and moves <= most_moves:
                moves += 1
                (next(iter(ready)) if len(ready) == 1 else self._choose()).move()
            if until():
                return True
            if moves > most_moves:
                self.errors.append(f"after {most_moves} moves there is no end")
                return False
            if not agenda or agenda[0][0] > deadline:
                return False
            when, _, call = heapq.heappop(agenda)
            if when > self.now:
                self.now = when
            call()

    def _choose(self) -> Process:
        ready = self._ready
        at = int(self.dice.random() * len(ready))
        for process in ready:
            if not at:
                return process
            at -= 1
        raise AssertionError


class Process(asyncio.AbstractEventLoop):
    """One simulated process, as the loop that its code runs on. It ends with `kill`, which nothing in it sees.

    An instant is a point at which it could have been killed: between two durable writes, before and after a send.
    `moving` is the name of the one that moves now.
    """

    moving = ""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.alive = True
        self.frozen = False
        self.instants = 0
        """How many instants it has lived through."""
        self.kill_at = 0
        """The instant at which it is to die, from 1; 0 for none."""
        self.on_death: Callable[[], None] = lambda: None
        self._callbacks: deque[asyncio.Handle] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        machine.at(machine.now, self._offer)

    def kill(self) -> None:
        """End it here and now."""
        if self.alive:
            self.alive = False
            self._callbacks.clear()
            self.machine._ready.pop(self, None)
            self.machine.at(self.machine.now, self._bury)
            self.on_death()

    def freeze(self) -> None:
        """Let nothing in it move, while time goes on for others."""
        self.frozen = True
        self.machine._ready.pop(self, None)

    def thaw(self) -> None:
        """Let it go on."""
        self.frozen = False
        self._offer()

    def instant(self) -> bool:
        """Live through an instant; False if it dies there: nothing that it does afterwards is to have an effect."""
        if self.alive:
            self.instants += 1
            if self.instants == self.kill_at:
                self.kill()
        return self.alive

    async def survive(self) -> None:
        """Live through an instant, in a coroutine; does not come back from its death."""
        if not self.instant():
            await self.create_future()

    def move(self) -> None:
        """Run what is ready now."""
        callbacks = self._callbacks
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        Process.moving = self.name
        try:
            for _ in range(len(callbacks)):
                if not callbacks:
                    break
                handle = callbacks.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            asyncio._set_running_loop(outer)
        if not callbacks:
            self.machine._ready.pop(self, None)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task from outside of the process."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            return self.create_task(coroutine)
        finally:
            asyncio._set_running_loop(outer)

    def _offer(self) -> None:
        if self._callbacks and self.alive and not self.frozen:
            self.machine._ready[self] = None

    def _bury(self) -> None:
        """Close the coroutines of the dead, without a sound; what they still try to do has no effect."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            tasks, self._tasks = sorted(self._tasks, key=task_number), set()
            for task in tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coroutine: Any = task.get_coro()
                if not task.done() and coroutine is not None and coroutine.cr_frame is not None:
                    try:
                        coroutine.close()
                    except Exception as error:
                        if "ignored GeneratorExit" not in str(error) and "already executing" not in str(error):
                            self.machine.errors.append(f"{self.name}, when it was closed: {error!r}")
        finally:
            asyncio._set_running_loop(outer)

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self.machine.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if self.alive:
            self._callbacks.append(handle)
            if not self.frozen:
                self.machine._ready[self] = None
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if not self.alive:
            raise RuntimeError("Event loop is closed")
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.machine.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def strike() -> None:
            if self.alive and not handle._cancelled:
                self._callbacks.append(handle)
                self._offer()

        self.machine.at(when, strike)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        return

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def get_task_factory(self) -> None:
        return None

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return not self.alive

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.alive:
            self.machine.errors.append(f"{self.name}: {context.get('message')}: {context.get('exception')!r}")

    async def shutdown_asyncgens(self) -> None:
        return None


def task_number(task: asyncio.Task[Any]) -> int:
    """Give an order of tasks that is the same everywhere: that of their making."""
    return int(task.get_name().rpartition("-")[2]) if task.get_name().startswith("Task-") else 0


def unsupported(name: str) -> Callable[..., NoReturn]:
    def method(self: Process, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"a simulated process has no {name}")

    return method


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in vars(Process):
        setattr(Process, _name, unsupported(_name))
Process.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
