"""Attempts that run here: step code on the user's loop or in threads, and the reports of how it ended."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stepwire import forks, wire
from stepwire.app import App
from stepwire.attempt import AttemptContext, enter_attempt
from stepwire.errors import Failure, NestedStepError, NoThreadError
from stepwire.failures import coroutine_stack
from stepwire.history import History, name
from stepwire.replay.model import StepKey
from stepwire.signatures import is_async
from stepwire.values import Values
from stepwire.worker.board import Board
from stepwire.worker.failure_log import FailureLog
from stepwire.worker.threads import Threads
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

log = logging.getLogger("stepwire.worker")

ABANDONED_SECONDS = 10.0
"""Code that still runs so long after it was cancelled is reported: nobody waits for it, but it holds what it has."""

CUT_OFF_SECONDS = 0.01
"""After so long it is known whether a task was cancelled together with the worker's."""

Report = Callable[[int, worker_pb2.WorkerMessage], None]
_PROPAGATOR = TraceContextTextMapPropagator()


class Running:
    """One attempt that runs here. A `lone` one is reported on the loop, after its plan."""

    __slots__ = ("attempt", "begun", "code", "context", "ended", "lone", "output_type", "place", "task", "traceparent")

    def __init__(
        self,
        attempt: value_pb2.Attempt,
        number: int,
        code: Callable[[], Any],
        output_type: Any,
        traceparent: str,
        lone: bool,
        app: str,
        function_id: str,
    ) -> None:
        self.attempt = attempt
        self.code = code
        self.output_type = output_type
        self.traceparent = traceparent
        self.lone = lone
        self.context = AttemptContext(attempt.run_id, attempt.key.id, attempt.key.index, number, app, function_id)
        self.begun = 0.0
        self.place = -1
        """Where it stands on the board."""
        self.ended = False
        """Whether sync code has left its thread."""
        self.task: asyncio.Task[None] | None = None


class Attempts:
    """Runs attempts, and makes one report of each, unless it was cancelled.

    `report` is given the fence and the message on the user's loop, `report_from_thread` the same in the thread of sync
    code.
    """

    def __init__(
        self,
        app: App,
        report: Report,
        report_from_thread: Report,
        make_threads: Callable[[str], Threads] = Threads,
        history: History | None = None,
    ) -> None:
        self._app = app
        self._report = report
        self._report_from_thread = report_from_thread
        self._history = history
        self._loop = asyncio.get_running_loop()
        self._threads = make_threads("stepwire-step")
        self._running: dict[int, Running] = {}
        self._generation = forks.generation
        self._leaving: set[asyncio.Task[None]] = set()
        """Cancelled tasks that have still to end; asyncio itself does not keep them alive."""
        self.values = Values(app.codec)
        self.failures = FailureLog(self._loop)
        self.board: Board | None = None
        self.is_cut_off = False
        """Whether the worker's own task was cancelled. If tasks of attempts are, too, then not by their code."""
        self.on_cut_off: Callable[[value_pb2.Attempt], None] = lambda _: None

    def __len__(self) -> int:
        return len(self._running)

    @property
    def fences(self) -> list[int]:
        """What runs here."""
        return list(self._running)

    def of_run(self, run_id: str) -> bool:
        """Whether an attempt of a run runs here."""
        return any(running.attempt.run_id == run_id for running in list(self._running.values()))

    def fail_nested(self, run_id: str, error: NestedStepError) -> None:
        """Have the attempts of a run fail with an error, however their code ends; called in any thread.

        One of them has started a step in a thread of its own; if several run here nobody can tell which.
        """
        contexts = [each.context for each in list(self._running.values()) if each.attempt.run_id == run_id]
        names = " or ".join(sorted({repr(context.step) for context in contexts}))
        for context in contexts:
            context.nested = context.nested or NestedStepError(f"{error} (step {names} was running)")

    def start(
        self,
        attempt: value_pb2.Attempt,
        number: int,
        code: Callable[[], Any],
        output_type: Any,
        traceparent: str,
        function_id: str = "",
        *,
        lone: bool = False,
    ) -> None:
        """Run code as an attempt; async code on this loop, other code in a thread."""
        running = Running(attempt, number, code, output_type, traceparent, lone, self._app.name, function_id)
        self._running[attempt.fence] = running
        if self._history is not None:
            key = name(key_of(attempt))
            self._history.note("started", run=attempt.run_id, step=key, fence=attempt.fence, number=number)
        if self.board is not None:
            label = str(key_of(attempt))
            running.place = self.board.put(f"attempt {number} of step {label!r} of run {attempt.run_id}")
        if is_async(code):
            running.task = self._loop.create_task(self._run_async(running))
        else:
            context = contextvars.copy_context()
            try:
                self._threads.run(functools.partial(context.run, self._run_sync, running))
            except NoThreadError as error:
                running.ended = True
                self._end(running, self._failed(running, error))

    def start_task(self, start: worker_pb2.AttemptStart) -> None:
        """Run a task by its name."""
        task = self._app.tasks.get(start.task.name)
        if task is None:
            known = ", ".join(sorted(self._app.tasks)) or "none"
            message = f"this worker has no task {start.task.name!r}: it has {known}"
            self._refuse(start, Failure("TaskNotFoundError", message, retryable=False))
            return
        code: Callable[[], Any] = task.body
        if task.takes_input:
            what = f"the input of task {task.name!r}"
            try:
                value = self.values.decode(wire.payload(start.task.input), task.input_type, what)
            except BaseException as error:  # a codec or a validator may be anybody's
                self._refuse(start, self.values.failure(error), error)
                return
            code = functools.partial(task.body, value)
        self.start(start.attempt, start.number, code, task.output_type, start.traceparent, start.task.function_id)

    def cancel(self, fence: int, reason: str) -> None:
        """Stop an attempt; nothing is reported of it."""
        running = self._running.pop(fence, None)
        if running is None:
            return
        self._note_end(running, "cancelled")
        running.context.cancel(reason)
        if not self._loop.is_closed():
            self._loop.call_later(ABANDONED_SECONDS, self._tell_abandoned, running)
        if running.task is not None:
            self._leaving.add(running.task)
            running.task.add_done_callback(self._leaving.discard)
            running.task.cancel(reason)

    def _tell_abandoned(self, running: Running) -> None:
        """Say that cancelled code goes on; its slot has long been free."""
        at, context = running.task, running.context
        if at.done() if at is not None else running.ended:
            return
        log.warning(
            "step %r (%s) of run %s still runs %g s after it was cancelled (%s): it is abandoned, %s",
            context.step,
            line_of(running.code),
            context.run_id,
            ABANDONED_SECONDS,
            context.reason,
            "but holds its thread; let it look at current_attempt().cancelled now and then"
            if at is None
            else "but goes on; let it end when it is cancelled",
        )

    def time_out(self, fence: int, reason: str, failure: Failure, *, retried: bool) -> None:
        """Stop an attempt that has failed since its time is over."""
        running = self._running.get(fence)
        if running is not None:
            self.failures.timed_out(running.context, failure, _place(running), retried=retried)
            self.cancel(fence, reason)

    def cancel_run(self, run_id: str, reason: str) -> list[int]:
        """Stop all attempts of a run; gives their fences."""
        fences = [fence for fence, running in list(self._running.items()) if running.attempt.run_id == run_id]
        for fence in fences:
            self.cancel(fence, reason)
        return fences

    def give_up(self, reason: str) -> list[value_pb2.Attempt]:
        """Stop everything; gives the attempts."""
        attempts = [running.attempt for running in list(self._running.values())]
        for attempt in attempts:
            self.cancel(attempt.fence, reason)
        return attempts

    def close(self) -> None:
        """Let the threads end; those which run code are not waited for."""
        self.failures.close()
        self._threads.close()

    # On the loop.

    async def _run_async(self, running: Running) -> None:
        _enter(running)
        running.begun = self._loop.time()
        await self._finish(running, running.code)

    async def _finish(self, running: Running, begin: Callable[[], Awaitable[Any]]) -> None:
        """Await step code, and report how it ended: whatever it raises is its own failure, and not the worker's."""
        try:
            value = await begin()
            self._end_child(None)
            message = self._succeeded(running, value)
        except BaseException as error:
            self._end_child(error)
            if self._loop.is_closed():  # this coroutine was in the loop's care, and is closed because of that
                raise
            if running.attempt.fence not in self._running:
                return  # it was cancelled: what became of it is of no interest
            cut = issubclass(type(error), asyncio.CancelledError)  # `isinstance` asks the exception itself, too
            if cut and running.task is not None and running.task.cancelling():
                self._loop.call_later(CUT_OFF_SECONDS, self._cut_off, running, error)
                return
            message = self._failed(running, error)
        self._end(running, message)

    def _end(self, running: Running, message: worker_pb2.WorkerMessage) -> None:
        if self._running.pop(running.attempt.fence, None) is not None:
            self._note_end(running, message.WhichOneof("kind"))
            self._report(running.attempt.fence, message)

    def _cut_off(self, running: Running, error: BaseException) -> None:
        """Take that others have cancelled a step's task: with the worker's own, or this one alone."""
        if not self.is_cut_off:
            self._end(running, self._failed(running, error))
        elif self._running.pop(running.attempt.fence, None) is not None:
            self._note_end(running, "cancelled")
            self.on_cut_off(running.attempt)

    def _go_on(self, running: Running, work: Awaitable[Any], context: contextvars.Context) -> None:
        """Await what sync code has given, on the loop."""
        if running.attempt.fence in self._running:
            running.task = self._loop.create_task(self._finish(running, lambda: work), context=context)
        elif inspect.iscoroutine(work):
            work.close()

    # In a thread.

    def _run_sync(self, running: Running) -> None:
        try:
            self._run_in_thread(running)
        finally:
            running.ended = True

    def _run_in_thread(self, running: Running) -> None:
        if running.context.cancelled:
            return
        _enter(running)
        running.begun = self._loop.time()
        try:
            value = running.code()
            self._end_child(None)
            if inspect.isawaitable(value):  # a lambda that calls async code, for example
                self._on_loop(self._go_on, running, value, contextvars.copy_context())
                return
            message = self._succeeded(running, value)
        except BaseException as error:
            self._end_child(error)
            message = self._failed(running, error)
        if running.lone:
            self._on_loop(self._end, running, message)
        elif self._running.pop(running.attempt.fence, None) is not None:
            self._note_end(running, message.WhichOneof("kind"))
            self._report_from_thread(running.attempt.fence, message)

    def _end_child(self, error: BaseException | None) -> None:
        """End this process, if step code has forked it and lets it come back from the step: it is no worker."""
        if forks.generation != self._generation:
            forks.end_child(error)

    def _note_end(self, running: Running, outcome: str | None) -> None:
        if self.board is not None:
            self.board.clear(running.place)
        if self._history is not None:
            attempt = running.attempt
            key = name(key_of(attempt))
            self._history.note("finished", run=attempt.run_id, step=key, fence=attempt.fence, outcome=outcome)

    def _on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: the worker has ended, and has given the attempt back
            return

    # Reports.

    def _succeeded(self, running: Running, value: Any) -> worker_pb2.WorkerMessage:
        if running.context.nested is not None:
            raise running.context.nested
        elapsed = self._loop.time() - running.begun
        attempt = running.attempt
        output = self.values.encode(value, running.output_type, f"the output of step {attempt.key.id!r}")
        message = worker_pb2.WorkerMessage()
        run = message.step_run
        run.attempt.CopyFrom(attempt)
        run.output.data, run.output.encoding = output.data, output.encoding
        if output.metadata:
            run.output.metadata.update(output.metadata)
        wire.put_duration(run.elapsed, elapsed)
        return message

    def _failed(self, running: Running, error: BaseException) -> worker_pb2.WorkerMessage:
        elapsed = self._loop.time() - running.begun if running.begun else 0.0
        error = running.context.nested or error
        failure = self.values.failure(error)
        if running.attempt.fence in self._running:  # else it was cancelled
            self.failures.attempt_failed(running.attempt.fence, running.context, failure, error)
        return _failed(running.attempt, failure, elapsed)

    def refuse(self, start: worker_pb2.AttemptStart, error: Exception, function_id: str = "") -> None:
        """Report an attempt that is in hand and could not begin, or only in part."""
        self._running.pop(start.attempt.fence, None)
        self._refuse(start, self.values.failure(error), error, function_id)

    def _refuse(
        self,
        start: worker_pb2.AttemptStart,
        failure: Failure,
        error: BaseException | None = None,
        function_id: str = "",
    ) -> None:
        """Report an attempt that could not begin."""
        attempt, app = start.attempt, self._app.name
        key, function_id = attempt.key, function_id or start.task.function_id
        context = AttemptContext(attempt.run_id, key.id, key.index, start.number, app, function_id)
        self.failures.attempt_failed(attempt.fence, context, failure, error)
        self._report(attempt.fence, _failed(attempt, failure, 0.0))


def key_of(attempt: value_pb2.Attempt) -> StepKey:
    """Give the key of an attempt's step."""
    return StepKey(attempt.key.id, attempt.key.index)


def line_of(code: Callable[[], Any]) -> str:
    """Give file and line of a function, like "flow.py:42", for logs."""
    while isinstance(code, functools.partial):
        code = code.func
    found = getattr(inspect.unwrap(code), "__code__", None)
    return f"{Path(found.co_filename).name}:{found.co_firstlineno}" if found else "no line of Python"


def _failed(attempt: value_pb2.Attempt, failure: Failure, elapsed: float) -> worker_pb2.WorkerMessage:
    failed = opcode_pb2.StepFailed(attempt=attempt, failure=wire.to_failure(failure))
    wire.put_duration(failed.elapsed, elapsed)
    return worker_pb2.WorkerMessage(step_failed=failed)


def _place(running: Running) -> str:
    """Give where async code stands, as text; that of a thread is not looked for."""
    coroutine = running.task.get_coro() if running.task is not None else None
    return coroutine_stack(coroutine) if coroutine is not None else ""


def _enter(running: Running) -> None:
    """Set the context of the task or thread that the code runs in."""
    enter_attempt(running.context)
    if running.traceparent:
        otel_context.attach(_PROPAGATOR.extract({"traceparent": running.traceparent}))
