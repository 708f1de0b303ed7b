"""Live invocations: the bodies that this worker holds, least recently used first.

Bodies of async functions move on the user's loop, in plain callbacks; those of sync functions in a thread, one move at
a time for each.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stepwire import wire
from stepwire.app import App
from stepwire.errors import Failure
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import Closure, Entry, Planned, Raised, Returned, RunInfo, StepKey, StepKind, Turn
from stepwire.values import Values
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

Send = Callable[[worker_pb2.WorkerMessage], None]
PAGE_STEPS = 1_000
PAGE_BYTES = 256 * 1024


class Live:
    """A body in this worker."""

    def __init__(self, run_id: str, fence: int, lead: bool, function_id: str, journal_length: int) -> None:
        self.run_id = run_id
        self.fence = fence
        self.lead = lead
        self.function_id = function_id
        self.journal_length = journal_length
        self.journal: list[Entry] = []
        self.expected: list[Any] = []
        self.info: RunInfo | None = None
        self.invocation: Invocation | None = None
        self.moves: deque[Callable[[], Turn]] = deque()
        self.after: deque[Callable[[Turn], None]] = deque()
        """What to do with the turn of each move."""
        self.waiting: list[worker_pb2.AttemptStart] = []
        """Attempts that came before their closures were reached."""
        self.moving = False
        self.eager_traceparent = ""
        self.dropped = False


class Invocations:
    """Holds live invocations.

    `send` takes messages for the executor, `eager` runs a lone step, `ready` runs attempts that waited for their body,
    `busy` says whether attempts of a run are in hand, and `unbegun` is told of attempts that go with a dropped body.
    """

    def __init__(
        self,
        app: App,
        most: int,
        send: Send,
        eager: Callable[[Live, Planned, int, worker_pb2.WorkerMessage], None],
        ready: Callable[[Live, list[worker_pb2.AttemptStart]], None],
        busy: Callable[[str], bool],
        unbegun: Callable[[list[value_pb2.Attempt]], None],
    ) -> None:
        self._app = app
        self._most = most
        self._send = send
        self._eager = eager
        self._ready = ready
        self._busy = busy
        self._unbegun = unbegun
        self._live: OrderedDict[str, Live] = OrderedDict()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="stepwire-body")
        self.values = Values(app.codec)
        self.limits = worker_pb2.Limits()

    def __len__(self) -> int:
        return len(self._live)

    def get(self, run_id: str, fence: int) -> Live | None:
        """Give an invocation; None if this one is not held."""
        live = self._live.get(run_id)
        return live if live is not None and live.fence == fence else None

    def invoke(self, message: worker_pb2.Invoke) -> None:
        """Start a body, or wait for the rest of its journal."""
        self.drop(message.run_id)
        live = Live(message.run_id, message.invocation, message.lead, message.function_id, message.journal_length)
        live.eager_traceparent = message.eager_traceparent
        live.info = _run_info(message, self._app.name)
        live.journal = [wire.entry(each) for each in message.journal]
        live.expected = [wire.expected(each) for each in message.planned]
        self._live[live.run_id] = live
        self._evict()
        self._begin(live, message.eager_fence)

    def chunk(self, message: worker_pb2.JournalChunk) -> None:
        """Take more of a journal."""
        live = self.get(message.run_id, message.invocation)
        if live is not None:
            live.journal += [wire.entry(each) for each in message.entries]
            live.expected += [wire.expected(each) for each in message.planned]
            self._begin(live, 0)

    def resume(self, message: worker_pb2.Resume) -> None:
        """Give a body new results, or make it the lead."""
        live = self.get(message.run_id, message.invocation)
        if live is None or live.invocation is None:
            self.need_journal(message.run_id, message.invocation)
            return
        self._live.move_to_end(live.run_id)
        promoted = message.lead and not live.lead
        live.lead = message.lead
        live.eager_traceparent = message.eager_traceparent
        invocation, eager = live.invocation, message.eager_fence
        entries = [wire.entry(each) for each in message.entries]
        self._move(live, lambda: invocation.resume(entries), lambda turn: self._report(live, turn, eager, promoted))

    def need_journal(self, run_id: str, fence: int) -> None:
        """Ask for a run's journal again."""
        need = worker_pb2.NeedJournal(run_id=run_id, invocation=fence)
        self._send(worker_pb2.WorkerMessage(need_journal=need))

    def wait(self, live: Live, start: worker_pb2.AttemptStart) -> bool:
        """Keep an attempt until the body has moved as far as it was told to; False if it has."""
        if live.invocation is not None and not live.moving:
            return False
        live.waiting.append(start)
        return True

    def diverged(self, live: Live, key: StepKey) -> None:
        """Report that the body has not found a step that the executor knows of."""
        message = (
            f"run {live.run_id}: step {str(key)!r} was found in another worker, but not here by the body of "
            f"{live.function_id!r}: a function must do the same in every replay"
        )
        self._fail(live, Failure("NonDeterminismError", message, retryable=False))

    def drop(self, run_id: str) -> None:
        """Drop a run's body, without a word."""
        live = self._live.pop(run_id, None)
        if live is not None:
            live.dropped = True
            live.moves.clear()
            live.after.clear()
            if live.waiting:
                self._unbegun([start.attempt for start in live.waiting])
                live.waiting = []
            if live.invocation is not None and not live.moving:
                live.invocation.close()

    def drop_all(self) -> None:
        """Drop all bodies: they do not outlive their stream."""
        for run_id in list(self._live):
            self.drop(run_id)

    def close(self) -> None:
        """Drop everything and let the threads end."""
        self.drop_all()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, live: Live, eager_fence: int) -> None:
        if len(live.journal) < live.journal_length:
            return
        function = self._app.functions.get(live.function_id)
        if function is None:
            message = f"this worker has no function {live.function_id!r}"
            self._fail(live, Failure("FunctionNotFoundError", message))
            return
        assert live.info is not None
        limits = self.limits
        invocation = live.invocation = Invocation(
            function,
            live.info,
            self.values,
            max_steps=limits.max_steps or 100_000,
            max_step_id_bytes=limits.max_step_id_bytes or 1024,
        )
        journal, expected = live.journal, live.expected
        live.journal, live.expected = [], []
        self._move(
            live,
            lambda: invocation.start(journal, expected),
            lambda turn: self._report(live, turn, eager_fence, promoted=False),
        )

    def _move(self, live: Live, move: Callable[[], Turn], after: Callable[[Turn], None]) -> None:
        """Move a body, after the moves that it has still to make."""
        live.moves.append(move)
        live.after.append(after)
        if not live.moving:
            self._next(live)

    def _next(self, live: Live) -> None:
        while live.moves and not live.dropped:
            move = live.moves.popleft()
            assert live.invocation is not None
            if not live.invocation.function.is_async:
                live.moving = True
                tell: Any = asyncio.get_running_loop().call_soon_threadsafe
                self._pool.submit(move).add_done_callback(functools.partial(tell, self._moved, live))
                return
            self._after(live, move())

    def _moved(self, live: Live, done: Any) -> None:
        """Go on after a move in a thread."""
        live.moving = False
        if live.dropped:
            if live.invocation is not None:
                live.invocation.close()
            return
        self._after(live, done.result())
        self._next(live)

    def _after(self, live: Live, turn: Turn) -> None:
        live.after.popleft()(turn)
        if not live.dropped and live.waiting and not live.moves:
            waiting, live.waiting = live.waiting, []
            self._ready(live, waiting)

    def _report(self, live: Live, turn: Turn, eager_fence: int, promoted: bool) -> None:
        """Tell the executor what a lead has found; of a replica only that it has diverged."""
        invocation = live.invocation
        assert invocation is not None
        diverged = isinstance(turn.outcome, Raised) and turn.outcome.failure.type == "NonDeterminismError"
        if not live.lead and not diverged:
            return
        if turn.cancelled:
            keys = [wire.to_key(key) for key in turn.cancelled]
            cancelled = opcode_pb2.StepCancelled(run_id=live.run_id, invocation=live.fence, keys=keys)
            self._send(worker_pb2.WorkerMessage(step_cancelled=cancelled))
        if isinstance(turn.outcome, Returned):
            output = wire.to_payload(turn.outcome.output)
            finished = opcode_pb2.RunFinished(run_id=live.run_id, invocation=live.fence, output=output)
            self._send(worker_pb2.WorkerMessage(run_finished=finished))
            self.drop(live.run_id)
        elif isinstance(turn.outcome, Raised):
            self._fail(live, turn.outcome.failure)
        else:
            self._tell_found(live, invocation, turn, eager_fence, promoted)

    def _tell_found(self, live: Live, invocation: Invocation, turn: Turn, eager_fence: int, promoted: bool) -> None:
        found = invocation.unfinished() if promoted else turn.found
        lone = eager_fence and len(found) == 1 and found[0].kind is StepKind.CLOSURE
        if lone and len(invocation.unfinished()) == 1:
            report = opcode_pb2.StepsFound(
                run_id=live.run_id, invocation=live.fence, sequence=invocation.sequence, quiescent=True
            )
            report.steps.append(wire.to_planned(found[0], eager_fence))
            self._eager(live, found[0], eager_fence, worker_pb2.WorkerMessage(steps_found=report))
            return
        pages = list(_pages(found)) or [[]]
        for number, page in enumerate(pages, 1):
            report = opcode_pb2.StepsFound(
                run_id=live.run_id,
                invocation=live.fence,
                sequence=invocation.sequence,
                steps=page,
                quiescent=number == len(pages),
            )
            self._send(worker_pb2.WorkerMessage(steps_found=report))

    def _fail(self, live: Live, failure: Failure) -> None:
        failed = opcode_pb2.RunFailed(run_id=live.run_id, invocation=live.fence, failure=wire.to_failure(failure))
        self._send(worker_pb2.WorkerMessage(run_failed=failed))
        self.drop(live.run_id)

    def _evict(self) -> None:
        """Keep to the most: the least recently used body goes that has nothing to do here."""
        if len(self._live) <= self._most:
            return
        for live in list(self._live.values())[:-1]:
            if live.invocation is not None and not live.moving and not live.moves and not self._busy(live.run_id):
                evicted = worker_pb2.Evicted(run_id=live.run_id, invocation=live.fence)
                self._send(worker_pb2.WorkerMessage(evicted=evicted))
                self.drop(live.run_id)
                return


def _run_info(message: worker_pb2.Invoke, app: str) -> RunInfo:
    events = [wire.event(each) for each in message.events]
    created_at = wire.unix_time(message.created_at)
    return RunInfo(message.run_id, message.attempt, events, created_at, app, message.function_id)


def closure_of(live: Live, key: StepKey) -> Closure | None:
    """Give a closure that a body has found."""
    return live.invocation.closure(key) if live.invocation is not None else None


def _pages(found: Sequence[Planned]) -> Any:
    page: list[opcode_pb2.StepPlanned] = []
    size = 0
    for step in found:
        message = wire.to_planned(step)
        page.append(message)
        size += message.ByteSize() if step.kind is not StepKind.CLOSURE else 100
        if size > PAGE_BYTES or len(page) >= PAGE_STEPS:
            yield page
            page, size = [], 0
    if page:
        yield page
