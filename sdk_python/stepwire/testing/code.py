"""Runs the code of steps: async functions on the loop, others in threads. It knows nothing of runs."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stepwire.signatures import is_async

HEAD_START_SECONDS = 0.05
"""How long a sync step runs before the next one begins: those which are quick end in the order in which they began."""
THREADS = 64
PATIENCE_SECONDS = 5.0
"""How long cancelled step code may take to end."""


class Code:
    """Runs callables for one test run. Close it after use; a thread that does not end is left to itself.

    Several may share `threads` from `make_threads`, which whoever made them shuts down.
    """

    def __init__(self, threads: ThreadPoolExecutor | None = None) -> None:
        self._threads = threads or make_threads()
        self._owns_threads = threads is None
        self._door = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Make a task that ends with the test run at the latest."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def call(self, function: Callable[[], Any], enter: Callable[[], None]) -> Any:
        """Call a function in the context that `enter` prepares; gives what it returns, awaited if it is awaitable."""
        if is_async(function):
            enter()
            return await function()
        value = await self._in_thread(function, enter)
        if inspect.isawaitable(value):
            enter()
            return await value
        return value

    async def _in_thread(self, function: Callable[[], Any], enter: Callable[[], None]) -> Any:
        context = contextvars.copy_context()
        context.run(enter)
        async with self._door:
            future = asyncio.get_running_loop().run_in_executor(self._threads, context.run, _guarded, function)
            await asyncio.wait([future], timeout=HEAD_START_SECONDS)
        return await future

    async def close(self) -> None:
        """Cancel what runs and wait a moment for its end; start nothing more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=PATIENCE_SECONDS)
        if self._owns_threads:
            self._threads.shutdown(wait=False, cancel_futures=True)


def make_threads() -> ThreadPoolExecutor:
    """Make the threads for sync step code; they are started as they are needed."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="stepwire-step")


def _guarded(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except StopIteration as error:
        raise RuntimeError("the step's code raised StopIteration") from error
