"""Branches that run side by side: what `step.parallel` and `step.map` are made of."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from stepwire.errors import InvalidStepError


async def side_by_side(branches: Sequence[Coroutine[Any, Any, Any]], *, race: bool) -> Any:
    """Await all branches and give their results in order, or that of the first one to end.

    When one has failed or won, the others are cancelled, and awaited until they have ended: they may have steps in
    their `finally` blocks.
    """
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[Any]] = [loop.create_task(branch) for branch in branches]
    if not tasks:
        if race:
            raise InvalidStepError("step.parallel has no branches to race: give it at least one")
        await asyncio.sleep(0)  # a loop that asks for nothing again and again can be found out only where it lets go
        return []
    try:
        when = asyncio.FIRST_COMPLETED if race else asyncio.FIRST_EXCEPTION
        await asyncio.wait(tasks, return_when=when)
        ended = [task for task in tasks if task.done()]
        failed = [task for task in ended if task.cancelled() or task.exception() is not None]
        pending = [task for task in tasks if not task.done()]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        if race:
            return ended[0].result()
        if failed:
            return failed[0].result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
            elif not task.cancelled():
                task.exception()  # seen: nobody else will ask


async def awaited(branch: Any) -> Any:
    """Await a branch as users give it: an awaitable, or a callable that gives one, or a value."""
    value = branch() if callable(branch) else branch
    return await value if inspect.isawaitable(value) else value


def several(branches: tuple[Any, ...]) -> Sequence[Any]:
    """Give the branches of a call, which come as arguments or as one tuple or list. Raises InvalidStepError."""
    given = branches[0] if len(branches) == 1 and isinstance(branches[0], list | tuple) else branches
    for branch in given:
        if not callable(branch) and not inspect.isawaitable(branch):
            raise InvalidStepError(
                f"step.parallel was given {branch!r}, which is no branch: give it lambda: step.run(...)"
            )
    return given


def callables(branches: Sequence[Any]) -> Sequence[Callable[[], Any]]:
    """Check the branches of a sync function. Raises InvalidStepError."""
    for branch in branches:
        if not callable(branch):
            raise InvalidStepError(
                f"step.parallel of a sync function was given {branch!r}: put lambda: before the call"
            )
    return branches
