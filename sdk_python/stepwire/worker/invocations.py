"""Live invocations: the bodies that this worker holds, least recently used first.

What the executor says of a body is a move for it (`moves.py`); what comes of that is told the executor.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from stepwire import wire
from stepwire.app import App
from stepwire.body.code import run_body
from stepwire.errors import Failure, NoThreadError
from stepwire.failures import log_failure
from stepwire.history import History, digest_of, name
from stepwire.replay.invocation import Invocation
from stepwire.replay.model import Planned, Raised, Returned, StepKey, StepKind, Turn
from stepwire.values import Values
from stepwire.worker.failure_log import FailureLog
from stepwire.worker.live import Live, Move, Permission, Shell
from stepwire.worker.moves import MOST_ABANDONED, Moves
from stepwire.worker.pages import pages_of
from stepwire.worker.threads import Threads
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

log = logging.getLogger("stepwire.worker")

MOST_MOVING = 32
"""Bodies of sync functions that move at the same time."""


class Invocations:
    """Holds live invocations, at most `most` of those that have nothing in hand."""

    def __init__(
        self,
        app: App,
        most: int,
        shell: Shell,
        make_threads: Callable[[str, int], Threads] = Threads,
        history: History | None = None,
    ) -> None:
        self._app = app
        self._most = most
        self._shell = shell
        self._history = history
        self._live: OrderedDict[str, Live] = OrderedDict()
        self.moves = Moves(make_threads("stepwire-body", MOST_MOVING), self)
        self._clock = asyncio.get_running_loop().time
        self.values = Values(app.codec)
        self.failures = FailureLog(asyncio.get_running_loop())
        self.limits = worker_pb2.Limits()
        self.eager = True
        """Whether lone steps are run at once where that is permitted."""

    def __len__(self) -> int:
        return len(self._live)

    def get(self, run_id: str, fence: int) -> Live | None:
        """Give an invocation; None if this one is not held."""
        live = self._live.get(run_id)
        return live if live is not None and live.fence == fence else None

    # What the executor asks for.

    def invoke(self, message: worker_pb2.Invoke) -> None:
        """Start a body, or wait for the rest of its journal."""
        self.drop(message.run_id)
        info = wire.run_info(message, self._app.name)
        live = Live(message.run_id, message.invocation, message.lead, info, message.journal_length)
        live.permission = Permission(message.eager_fence, message.eager_traceparent)
        self._live[live.run_id] = live
        self._evict()
        self._read(live, message.journal, message.planned)

    def chunk(self, message: worker_pb2.JournalChunk) -> None:
        """Take more of a journal."""
        live = self.get(message.run_id, message.invocation)
        if live is not None and live.invocation is None:
            self._read(live, message.entries, message.planned)

    def resume(self, message: worker_pb2.Resume) -> None:
        """Give a body new results, or make it the lead."""
        live = self.get(message.run_id, message.invocation)
        if live is None or live.invocation is None:
            self.need_journal(message.run_id, message.invocation)
            return
        self._live.move_to_end(live.run_id)
        try:
            entries = [wire.entry(each) for each in message.entries]
        except ValueError as error:
            self.broken(live, error)
            return
        permission = Permission(message.eager_fence, message.eager_traceparent)
        promoted = message.lead and not live.lead
        before = -1 if promoted else live.given
        live.lead = live.lead or message.lead
        live.given += len(entries)
        self.moves.make(live, Move(entries, permission, promoted, before, live.given))

    def need_journal(self, run_id: str, fence: int, returned: Sequence[value_pb2.Attempt] = ()) -> None:
        """Ask for a run's journal again, and give back attempts that can't begin without it."""
        need = worker_pb2.NeedJournal(run_id=run_id, invocation=fence, returned_attempts=returned)
        self._shell.say(run_id, worker_pb2.WorkerMessage(need_journal=need))

    def wait(self, live: Live, start: worker_pb2.AttemptStart) -> bool:
        """Keep an attempt until the body has moved as far as it was told to; False if it has."""
        self._live.move_to_end(live.run_id)
        if (live.invocation is not None and not live.moving) or live.failure is not None:
            return False
        live.waiting.append(start)
        return True

    def take_waiting(self, fence: int | None = None) -> list[worker_pb2.AttemptStart]:
        """Give, and let go of, the attempt with a fence if it waits for its body; all such ones without a fence."""
        taken: list[worker_pb2.AttemptStart] = []
        for live in self._live.values():
            if live.waiting:
                keep = [] if fence is None else [each for each in live.waiting if each.attempt.fence != fence]
                taken += [each for each in live.waiting if each not in keep]
                live.waiting = keep
        return taken

    def not_found(self, live: Live, start: worker_pb2.AttemptStart) -> None:
        """Report that the body has not found a step that the executor knows of, or has raised before it came there."""
        key = start.attempt.key
        if live.failure is None and live.invocation is not None:
            error = live.invocation.not_found(StepKey(key.id, key.index))
            self._fail(live, self.values.failure(error), error, key)
        elif live.failure is not None:
            live.waiting.append(start)  # it is given back
            self._fail(live, live.failure)

    def drop(self, run_id: str) -> None:
        """Drop a run's body, without a word, and the attempts that wait for it."""
        live = self._live.pop(run_id, None)
        if live is not None:
            live.dropped = True
            live.waiting.clear()
            self.moves.drop(live)

    def drop_all(self) -> None:
        """Drop all bodies: they do not outlive their stream."""
        for run_id in list(self._live):
            self.drop(run_id)

    def close(self) -> None:
        """Drop everything and let the threads end."""
        self.drop_all()
        self.moves.close()

    # How a body moves.

    def _read(
        self, live: Live, entries: Sequence[opcode_pb2.JournalEntry], planned: Sequence[worker_pb2.PlannedStep]
    ) -> None:
        """Take a piece of the journal; begin when it is whole."""
        try:
            live.journal += [wire.entry(each) for each in entries]
            live.expected += [wire.expected(each) for each in planned]
        except ValueError as error:
            self.broken(live, error)
            return
        if len(live.journal) < live.journal_length:
            return
        function = self._app.functions.get(live.info.function_id)
        if function is None:
            known = ", ".join(sorted(self._app.functions)) or "none"
            message = f"this worker has no function {live.info.function_id!r}: it has {known}"
            self._fail(live, Failure("FunctionNotFoundError", message))
            return
        abandoned = self.moves.abandoned[function.id]
        if abandoned >= MOST_ABANDONED:
            message = (
                f"this worker takes no more bodies of {function.id!r}: the code of {abandoned} of them goes on though "
                "they are over. See the warnings in its log for the lines, mend them, and start the worker again"
            )
            self._fail(live, Failure("TooManyAbandonedError", message))
            return
        limits = self.limits
        invocation = live.invocation = Invocation(
            function,
            live.info,
            self.values,
            run_body,
            max_steps=limits.max_steps or 100_000,
            max_step_id_bytes=limits.max_step_id_bytes or 1024,
            clock=self._clock,
        )
        invocation.lead = live.lead
        invocation.on_nested = functools.partial(self._shell.nested, live.run_id)
        if function.is_async:
            invocation.on_page = functools.partial(self._tell_page, live)
        journal, expected, live.journal, live.expected = live.journal, live.expected, [], []
        live.given = len(journal)
        invocation.begin(len(journal), expected)
        self.moves.make(live, Move(journal, live.permission, given=live.given))

    def starved(self, live: Live, error: NoThreadError) -> None:
        """Take that a body can't move: a lead fails, by the body's policy; a replica goes, and what needs it fails."""
        if live.lead:
            self.broken(live, error)
            return
        log.warning("run %s can't be replayed in this worker: %s", live.run_id, error)
        for start in live.waiting:
            self._shell.refuse(start, error, live.info.function_id)
        self._evicted(live)

    def release(self, live: Live) -> None:
        """Begin the attempts that have waited for the body."""
        waiting, live.waiting = live.waiting, []
        for start in waiting:
            self._shell.run_closure(start)

    def moved(self, live: Live, move: Move, turn: Turn) -> None:
        """Take what has come of a move."""
        if self._history is not None:
            for entry in move.entries:
                self._history.note(
                    "delivered",
                    run=live.run_id,
                    invocation=live.fence,
                    sequence=entry.sequence,
                    step=name(entry.key),
                    digest=digest_of(entry.outcome),
                )
            self._note_found(live, move.given, turn.found)
        self._report(live, move.permission, turn)

    def _note_found(self, live: Live, until: int, found: Sequence[Planned]) -> None:
        """Note what a body has found after result `live.before` and not later than after `until`."""
        if self._history is not None and found:
            self._history.note(
                "found",
                run=live.run_id,
                invocation=live.fence,
                body_attempt=live.info.attempt,
                before=live.before,
                sequence=until,
                steps=[[name(planned.key), planned.kind.name] for planned in found],
            )

    def unread(self, run_id: str, fence: int, error: Exception) -> None:
        """Take that a message for a body could not be handled: the body fails, by its policy."""
        live = self.get(run_id, fence)
        if live is not None and live.lead:
            self.broken(live, error)
            return
        failed = opcode_pb2.RunFailed(
            run_id=run_id, invocation=fence, failure=wire.to_failure(self.values.failure(error))
        )
        self._shell.say(run_id, worker_pb2.WorkerMessage(run_failed=failed))
        if live is not None:
            self.drop(run_id)

    # What the executor is told.

    def _report(self, live: Live, permission: Permission, turn: Turn) -> None:
        """Tell what a lead has done in a turn: last that it has run dry, or has ended.

        A replica only remembers what keeps it from finding more.
        """
        if not live.lead:
            if isinstance(turn.outcome, Raised):
                live.failure = turn.outcome.failure
            return
        if turn.cancelled:
            keys = [wire.to_key(key) for key in turn.cancelled]
            cancelled = opcode_pb2.StepCancelled(run_id=live.run_id, invocation=live.fence, keys=keys)
            self._shell.say(live.run_id, worker_pb2.WorkerMessage(step_cancelled=cancelled))
        if isinstance(turn.outcome, Returned):
            output = wire.to_payload(turn.outcome.output)
            finished = opcode_pb2.RunFinished(run_id=live.run_id, invocation=live.fence, output=output)
            self._shell.say(live.run_id, worker_pb2.WorkerMessage(run_finished=finished))
            self.drop(live.run_id)
        elif isinstance(turn.outcome, Raised):
            self._fail(live, turn.outcome.failure, turn.outcome.error)
        else:
            self._tell_found(live, permission, turn.found)

    def _tell_found(self, live: Live, permission: Permission, found: Sequence[Planned]) -> None:
        """Report steps in pages; an empty report too, since it says that the body has run dry."""
        invocation = live.invocation
        assert invocation is not None
        try:
            if self._is_lone(live, permission, found):
                report = self._steps_found(live, [wire.to_planned(found[0], permission.fence)], last=True)
                self._shell.run_lone(live, found[0], permission, report)
                return
            pages = list(pages_of(found))
        except ValueError as error:  # a time out of range
            self._fail(live, self.values.failure(error))
            return
        for number, page in enumerate(pages, 1):
            self._shell.say(live.run_id, self._steps_found(live, page, last=number == len(pages)))

    def _tell_page(self, live: Live, found: Sequence[Planned]) -> bool:
        """Report steps of a body that still moves, so that others may begin with them; False if the turn's end must."""
        assert live.invocation is not None
        try:
            pages = list(pages_of(found))
        except ValueError:
            return False
        self._note_found(live, live.invocation.sequence, found)
        for page in pages:
            self._shell.say(live.run_id, self._steps_found(live, page, last=False))
        self._shell.flush()
        return True

    def _is_lone(self, live: Live, permission: Permission, found: Sequence[Planned]) -> bool:
        if not (permission.fence and self.eager and len(found) == 1 and found[0].kind is StepKind.CLOSURE):
            return False
        return live.invocation is not None and len(live.invocation.unfinished()) == 1

    def _steps_found(
        self, live: Live, steps: Sequence[opcode_pb2.StepPlanned], *, last: bool
    ) -> worker_pb2.WorkerMessage:
        assert live.invocation is not None
        found = opcode_pb2.StepsFound(
            run_id=live.run_id,
            invocation=live.fence,
            sequence=live.invocation.sequence,
            steps=steps,
            quiescent=last,
        )
        return worker_pb2.WorkerMessage(steps_found=found)

    def run_failed(self, run_id: str, failure: Failure) -> None:
        """Log that a run has failed of which a body is here, though not by that."""
        live = self._live.get(run_id)
        if live is not None:
            self.failures.run_failed(live.info, failure)

    def _fail(
        self,
        live: Live,
        failure: Failure,
        error: BaseException | None = None,
        not_found: value_pb2.StepKey | None = None,
    ) -> None:
        self.failures.body_failed(live.info, self._app.functions.get(live.info.function_id), failure, error)
        failed = opcode_pb2.RunFailed(
            run_id=live.run_id, invocation=live.fence, failure=wire.to_failure(failure), not_found=not_found
        )
        self._shell.say(live.run_id, worker_pb2.WorkerMessage(run_failed=failed))
        if live.waiting:
            self.need_journal(live.run_id, live.fence, [start.attempt for start in live.waiting])
        self.drop(live.run_id)

    def broken(self, live: Live, error: BaseException) -> None:
        """Take what no body should do, or what this version of the SDK can't read."""
        log_failure(log, logging.ERROR, "run %s can't go on in this worker", live.run_id, error=error)
        failure = self.values.failure(error)
        if live.lead:
            self._fail(live, failure)
        else:
            live.failure = failure
            live.moves.clear()
            self.release(live)

    def _evict(self) -> None:
        """Keep to the most: the least recently used bodies go that have nothing to do here."""
        if len(self._live) <= self._most:
            return
        for live in list(self._live.values())[:-1]:
            if len(self._live) <= self._most:
                return
            if live.invocation is not None and not live.moving and not self._shell.is_busy(live.run_id):
                self._evicted(live)

    def _evicted(self, live: Live) -> None:
        evicted = worker_pb2.Evicted(run_id=live.run_id, invocation=live.fence)
        self._shell.say(live.run_id, worker_pb2.WorkerMessage(evicted=evicted))
        self.drop(live.run_id)
