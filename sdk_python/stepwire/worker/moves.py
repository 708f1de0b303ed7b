"""How bodies move: those of async functions on the user's loop, in slices; those of sync functions in threads.

A body makes one move at a time. A move ends when the body has come to rest. It can't hold up the others: on the loop it
is broken off after a slice, and goes on after everything else has had its turn; a thread that does not come back is
abandoned, and its run fails.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections import Counter
from typing import Protocol

from stepwire.errors import NoThreadError, SpinningBodyError
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import Turn
from stepwire.worker.board import Board
from stepwire.worker.live import Live, Move
from stepwire.worker.threads import Threads

log = logging.getLogger("stepwire.worker")

SLICE_SECONDS = 0.02
WATCH_SECONDS = 2.0
"""How often is looked after bodies in threads, while there are any that move."""
LONGEST_MOVE_SECONDS = 60.0
"""How long sync code of a body may take between two steps."""
LONGEST_END_SECONDS = 10.0
"""How long it may go on when its body is no longer wanted."""
AGAIN_SECONDS = 1.0
"""When a dropped body is ended for which no thread could be started."""
MOST_ABANDONED = 100
"""Bodies of one function that are abandoned here before the worker takes no more of them."""


class Owner(Protocol):
    """What the moves need of the invocations. All of it is called on the user's loop."""

    def moved(self, live: Live, move: Move, turn: Turn) -> None:
        """Take what has come of a move."""

    def release(self, live: Live) -> None:
        """Begin the attempts that have waited for the body."""

    def broken(self, live: Live, error: BaseException) -> None:
        """Take what no body should do."""

    def starved(self, live: Live, error: NoThreadError) -> None:
        """Take that a body can't move, as it gets no thread."""


class Moves:
    """Moves bodies; `abandoned` counts, by function, those whose code goes on though they were ended."""

    def __init__(self, threads: Threads, owner: Owner) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._owner = owner
        self._in_threads: dict[Live, float] = {}
        """Bodies that move in threads, and since when."""
        self._overdue: set[Live] = set()
        self._watching = False
        self.abandoned: Counter[str] = Counter()
        self.board: Board | None = None

    def make(self, live: Live, move: Move) -> None:
        """Move a body, after the moves that it has still to make."""
        live.moves.append(move)
        if not live.moving:
            self._next(live)

    def drop(self, live: Live) -> None:
        """End a body: at once, or when the thread that moves it comes back."""
        live.moves.clear()
        if live.invocation is not None and not (live.moving and not live.invocation.function.is_async):
            self._close(live, live.invocation)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()

    def _next(self, live: Live) -> None:
        invocation = live.invocation
        assert invocation is not None
        while live.moves:
            move = live.moves.popleft()
            live.moving, live.before = True, move.before
            if not invocation.function.is_async:
                self._in_threads[live] = math.inf  # it has still to get its thread
                self._watch_soon()
                try:
                    self._threads.run(functools.partial(self._move_in_thread, live, invocation, move))
                except NoThreadError as error:
                    live.moving = False
                    del self._in_threads[live]
                    self._owner.starved(live, error)
                return
            if not self._move(live, invocation, move, begin=True):
                return
        self._owner.release(live)

    # On the loop.

    def _move(self, live: Live, invocation: Invocation, move: Move, *, begin: bool) -> bool:
        """Move a body for a slice; says whether it has come to rest."""
        turn: Turn | BaseException | None
        place = self._put_on_board(live)
        try:
            if begin:
                invocation.feed(move.entries)
            turn = invocation.go_on(SLICE_SECONDS)
        except BaseException as error:
            turn = error
        self._clear(place)
        if turn is None:
            self._loop.call_soon(self._go_on, live, invocation, move)
            return False
        live.moving = False
        self._moved(live, invocation, move, turn)
        return True

    def _go_on(self, live: Live, invocation: Invocation, move: Move) -> None:
        if not live.dropped and self._move(live, invocation, move, begin=False):
            self._next(live)

    def _moved(self, live: Live, invocation: Invocation, move: Move, turn: Turn | BaseException) -> None:
        if isinstance(turn, BaseException):
            self._owner.broken(live, turn)
        else:
            self._owner.moved(live, move, invocation.promote() if move.promoted else turn)

    # In threads.

    def _move_in_thread(self, live: Live, invocation: Invocation, move: Move) -> None:
        turn: Turn | BaseException
        self._in_threads[live] = self._loop.time()
        place = self._put_on_board(live)
        try:
            invocation.feed(move.entries)
            turn = invocation.come_to_rest()
        except BaseException as error:
            turn = error
        finally:
            self._clear(place)
        try:
            self._loop.call_soon_threadsafe(self._moved_in_thread, live, invocation, move, turn)
        except RuntimeError:  # the loop is closed: the worker has ended
            invocation.close()

    def _moved_in_thread(self, live: Live, invocation: Invocation, move: Move, turn: Turn | BaseException) -> None:
        live.moving = False
        self._in_threads.pop(live, None)
        if live in self._overdue:  # it came back after all
            self._overdue.discard(live)
            self._threads.lend(-1)
            self.abandoned[invocation.function.id] -= 1
        if live.dropped:
            self._close(live, invocation)
            return
        self._moved(live, invocation, move, turn)
        self._next(live)

    def _watch_soon(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.call_later(WATCH_SECONDS, self._watch)

    def _watch(self) -> None:
        """Abandon the threads that do not come back."""
        self._watching = False
        now = self._loop.time()
        for live, begun in list(self._in_threads.items()):
            if now - begun > (LONGEST_END_SECONDS if live.dropped else LONGEST_MOVE_SECONDS):
                self._abandon(live, now - begun)
        if self._in_threads:
            self._watch_soon()

    def _abandon(self, live: Live, seconds: float) -> None:
        invocation = live.invocation
        assert invocation is not None
        del self._in_threads[live]
        self._overdue.add(live)
        self._threads.lend(1)
        self.abandoned[invocation.function.id] += 1
        branch = invocation.moving
        place = branch.place if branch is not None else "something"
        if live.dropped:
            log.warning(
                "run %s: code of its function %r still runs at %s, %.0f s after it was last moved, though the body is "
                "over: it is abandoned, but holds its thread",
                live.run_id,
                invocation.function.id,
                place,
                seconds,
            )
            return
        error = SpinningBodyError(
            f"the body of {invocation.function.id!r} does not come to rest at {place}: it has run for {seconds:.0f} s "
            "without starting a step or returning. Wrap what takes so long in a function of its own and call it with "
            "step.run(...)"
        )
        self._owner.broken(live, error)

    def _put_on_board(self, live: Live) -> int:
        """Have the board name a body while it moves."""
        board = self.board
        return -1 if board is None else board.put(f"the body of run {live.run_id} of {live.info.function_id}")

    def _clear(self, place: int) -> None:
        if self.board is not None:
            self.board.clear(place)

    # The end.

    def _close(self, live: Live, invocation: Invocation) -> None:
        """End a body; that of a sync function in a thread, since its own code may take its time to end."""
        if invocation.function.is_async:
            invocation.close()
            self._count(invocation)
            return
        try:
            self._threads.run(functools.partial(self._close_in_thread, invocation))
        except NoThreadError:
            self._loop.call_later(AGAIN_SECONDS, self._close, live, invocation)

    def _close_in_thread(self, invocation: Invocation) -> None:
        invocation.close()
        if invocation.abandoned:
            try:
                self._loop.call_soon_threadsafe(self._count, invocation)
            except RuntimeError:  # the loop is closed: nobody counts any more
                return

    def _count(self, invocation: Invocation) -> None:
        if invocation.abandoned:
            self.abandoned[invocation.function.id] += 1
