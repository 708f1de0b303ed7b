"""Sync code as a coroutine: a thread that moves only while somebody waits for it.

Exactly one thread of an invocation moves at a time, so that sync functions are as deterministic as async ones. What the
thread wants to await it hands over, and gets the result back.

No thread can be killed. That of a body which is dropped gets GeneratorExit where it waits for a step, and at every
further step. After ten of them, or if it does not come to its end in time, it is abandoned: it is given nothing more,
and holds what it has until the process ends.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Protocol

from stepwire import places
from stepwire.errors import NestedStepError, NoThreadError
from stepwire.replay.endings import PATIENCE
from stepwire.replay.loop import ReplayLoop
from stepwire.replay.model import RunInfo
from stepwire.replay.mover import SyncCode
from stepwire.replay.outside import started_outside

RELEASE_SECONDS = 5.0
"""How long the code of a thread may take to end."""


class Owner(Protocol):
    """An invocation, as a thread of its sync code sees it."""

    run: RunInfo
    loop: ReplayLoop
    moving: SyncCode | None
    on_nested: Callable[[NestedStepError], None] | None

    def is_spinning(self, branch: SyncCode) -> bool:
        """Count a request of sync code, and say whether the body is to stop."""

    def abandon(self, place: str) -> None:
        """Note that code goes on though it was ended."""


class Branch:
    """One thread of sync code of an invocation."""

    def __init__(self, invocation: Owner, code: Callable[[], Any]) -> None:
        self._invocation = invocation
        self._code = code
        self._context = contextvars.copy_context()
        self._go = threading.Semaphore(0)
        self._parked = threading.Semaphore(0)
        self._request: Coroutine[Any, Any, Any] | None = None
        self._answer: tuple[Any, BaseException | None] = (None, None)
        self._result: tuple[Any, BaseException | None] = (None, None)
        self._done = False
        self._released = False
        self._refusals = 0

    async def run(self) -> Any:
        """Move the thread from one request to the next until its code has ended."""
        name = f"stepwire-{self._invocation.run.run_id[-6:]}"
        self._thread = threading.Thread(target=self._context.run, args=(self._main,), name=name, daemon=True)
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as refused:
            starved = NoThreadError(
                f"run {self._invocation.run.run_id} can't have one more thread for its body or a branch of "
                f"step.parallel ({refused}): for very many branches use step.map, or an async function"
            )
            self._invocation.loop.on_refusal(starved)  # user code is not to take it for the branch's own failure
            raise starved from refused
        invocation = self._invocation
        try:
            while True:
                invocation.moving = self
                self._go.release()
                self._parked.acquire()
                invocation.moving = None
                if self._done:
                    break
                if invocation.is_spinning(self):
                    await invocation.loop.create_future()  # which is where it ends
                request, self._request = self._request, None
                assert request is not None
                try:
                    self._answer = (await request, None)
                except BaseException as raised:
                    if invocation.loop.is_closed():
                        raise
                    self._answer = (None, raised)
        finally:
            self._release()
        (value, error), self._result = self._result, (None, None)
        if error is not None:
            raise error
        return value

    @property
    def thread_id(self) -> int | None:
        """Its thread, by Python's number; None before it has begun."""
        return self._thread.ident

    @property
    def place(self) -> str:
        """Where its code stands."""
        return places.of_thread(self._thread.ident)

    def wait_for(self, request: Coroutine[Any, Any, Any]) -> Any:
        """Have the loop await `request`, and give its result; called by the thread."""
        if self._released:
            request.close()
            self._refuse()
        self._request = request
        self._parked.release()
        self._go.acquire()
        if self._released:
            self._refuse()
        return self._take_answer()

    def _take_answer(self) -> Any:
        (value, error), self._answer = self._answer, (None, None)
        if error is not None:
            raise error
        return value

    def _refuse(self) -> NoReturn:
        """End the code: Python's own way to close a coroutine, here for a thread."""
        self._refusals += 1
        if self._refusals > PATIENCE:
            self._parked.release()
            threading.Event().wait()  # for ever
        raise GeneratorExit

    def _main(self) -> None:
        self._go.acquire()
        _here.branch = self
        try:
            if not self._released:
                self._result = (self._code(), None)
        except BaseException as error:
            self._result = (None, error)
        finally:
            self._done = True
            self._parked.release()

    def _release(self) -> None:
        """Let the thread end, if it has not."""
        if self._done:
            return
        self._released = True
        self._go.release()
        self._parked.acquire(timeout=RELEASE_SECONDS)
        if not self._done:
            self._invocation.abandon(self.place)
        if self._request is not None:
            self._request.close()


class _Here(threading.local):
    branch: Branch | None = None


_here = _Here()


def in_branch_of(invocation: Owner) -> bool:
    """Whether this thread runs sync code of the invocation's body."""
    branch = _here.branch
    return branch is not None and branch._invocation is invocation


def branch_of(invocation: Owner, step_id: str) -> Branch:
    """Give the branch that this thread is, to start a step; raises NestedStepError if it is none of this body's."""
    branch = _here.branch
    if branch is None or branch._invocation is not invocation:
        raise started_outside(step_id, invocation.on_nested)
    return branch
