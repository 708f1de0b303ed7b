"""Attempts in hand: runs step code on the user's loop or in threads, and makes reports of how it ended."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stepwire import wire
from stepwire.app import App
from stepwire.attempt import AttemptContext, enter_attempt
from stepwire.errors import Failure
from stepwire.replay.model import StepKey
from stepwire.values import Values
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

Report = Callable[[int, worker_pb2.WorkerMessage], None]
_PROPAGATOR = TraceContextTextMapPropagator()


class Running:
    """One attempt that runs here."""

    __slots__ = ("attempt", "begun", "context", "future", "what")

    def __init__(self, attempt: value_pb2.Attempt, number: int) -> None:
        self.attempt = attempt
        self.context = AttemptContext(attempt.run_id, attempt.key.id, attempt.key.index, number)
        self.begun = 0.0
        self.future: asyncio.Future[Any] | None = None
        self.what = f"the output of step {attempt.key.id!r}"


class Attempts:
    """Runs attempts. `report` is given the fence and the message, on the user's loop."""

    def __init__(self, app: App, slots: int, report: Report) -> None:
        self._app = app
        self._report = report
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="stepwire-step")
        self._running: dict[int, Running] = {}
        self.values = Values(app.codec)

    def __len__(self) -> int:
        return len(self._running)

    def of_run(self, run_id: str) -> bool:
        """Whether an attempt of a run runs here."""
        return any(running.attempt.run_id == run_id for running in self._running.values())

    def start(
        self,
        attempt: value_pb2.Attempt,
        number: int,
        code: Callable[[], Any],
        output_type: Any,
        traceparent: str,
    ) -> None:
        """Run code as an attempt; async code on this loop, other code in a thread."""
        running = Running(attempt, number)
        self._running[attempt.fence] = running
        context = contextvars.copy_context()
        context.run(_enter, running.context, traceparent)
        loop = asyncio.get_running_loop()
        if is_async(code):
            work: asyncio.Future[Any] = loop.create_task(_call(running, code), context=context)
        else:
            work = loop.run_in_executor(self._pool, context.run, _timed, running, code)
        self._follow(running, work, output_type, context)

    def start_task(self, start: worker_pb2.AttemptStart) -> None:
        """Run a task by its name."""
        task = self._app.tasks.get(start.task.name)
        if task is None:
            message = (
                f"this worker has no task {start.task.name!r}: it has {', '.join(sorted(self._app.tasks)) or 'none'}"
            )
            self._send(start.attempt, failure=Failure("TaskNotFoundError", message, retryable=False))
            return
        code: Callable[[], Any] = task.body
        if task.takes_input:
            what = f"the input of task {task.name!r}"
            try:
                value = self.values.decode(wire.payload(start.task.input), task.input_type, what)
            except Exception as error:
                self._send(start.attempt, failure=self.values.failure(error))
                return
            code = functools.partial(task.body, value)
        self.start(start.attempt, start.number, code, task.output_type, start.traceparent)

    def cancel(self, fence: int, reason: str) -> None:
        """Stop an attempt; nothing is reported of it."""
        running = self._running.pop(fence, None)
        if running is not None:
            running.context.cancel(reason)
            if isinstance(running.future, asyncio.Task):
                running.future.cancel(reason)

    def cancel_run(self, run_id: str, reason: str) -> list[int]:
        """Stop all attempts of a run; gives their fences."""
        fences = [fence for fence, running in self._running.items() if running.attempt.run_id == run_id]
        for fence in fences:
            self.cancel(fence, reason)
        return fences

    def give_up(self, reason: str) -> list[value_pb2.Attempt]:
        """Stop everything; gives the attempts."""
        attempts = [running.attempt for running in self._running.values()]
        for attempt in attempts:
            self.cancel(attempt.fence, reason)
        return attempts

    def close(self) -> None:
        """Let the threads end; those which run code are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _follow(
        self, running: Running, work: asyncio.Future[Any], output_type: Any, context: contextvars.Context
    ) -> None:
        running.future = work
        work.add_done_callback(functools.partial(self._done, running, output_type, context))

    def _done(
        self, running: Running, output_type: Any, context: contextvars.Context, work: asyncio.Future[Any]
    ) -> None:
        if self._running.get(running.attempt.fence) is not running:
            if not work.cancelled():
                work.exception()  # it was cancelled: what became of it is of no interest
            return
        elapsed = time.monotonic() - running.begun if running.begun else 0.0
        if work.cancelled():
            self._finish(running, elapsed, error=asyncio.CancelledError("the step's code cancelled itself"))
            return
        error = work.exception()
        value = None if error is not None else work.result()
        if error is None and inspect.isawaitable(value):  # a sync callable that gave a coroutine
            task = asyncio.get_running_loop().create_task(_await(value), context=context)
            self._follow(running, task, output_type, context)
        else:
            self._finish(running, elapsed, error, value, output_type)

    def _finish(
        self, running: Running, elapsed: float, error: BaseException | None, value: Any = None, output_type: Any = None
    ) -> None:
        del self._running[running.attempt.fence]
        if error is None:
            try:
                output = self.values.encode(value, output_type, running.what)
            except Exception as worse:
                error = worse
            else:
                message = worker_pb2.WorkerMessage()
                run = message.step_run
                run.attempt.CopyFrom(running.attempt)
                run.output.data, run.output.encoding = output.data, output.encoding
                if output.metadata:
                    run.output.metadata.update(output.metadata)
                _set(run.elapsed, elapsed)
                self._report(running.attempt.fence, message)
                return
        self._send(running.attempt, self.values.failure(error), elapsed)

    def _send(self, attempt: value_pb2.Attempt, failure: Failure, elapsed: float = 0.0) -> None:
        failed = opcode_pb2.StepFailed(attempt=attempt, failure=wire.to_failure(failure))
        _set(failed.elapsed, elapsed)
        self._report(attempt.fence, worker_pb2.WorkerMessage(step_failed=failed))


def key_of(attempt: value_pb2.Attempt) -> StepKey:
    """Give the key of an attempt's step."""
    return StepKey(attempt.key.id, attempt.key.index)


def is_async(code: Callable[[], Any]) -> bool:
    """Whether calling `code` gives a coroutine for sure."""
    while isinstance(code, functools.partial):
        code = code.func
    return inspect.iscoroutinefunction(code) or inspect.iscoroutinefunction(getattr(type(code), "__call__", None))  # noqa: B004


def _enter(context: AttemptContext, traceparent: str) -> None:
    enter_attempt(context)
    if traceparent:
        otel_context.attach(_PROPAGATOR.extract({"traceparent": traceparent}))


async def _call(running: Running, code: Callable[[], Any]) -> Any:
    running.begun = time.monotonic()
    return await code()


async def _await(value: Any) -> Any:
    return await value


def _timed(running: Running, code: Callable[[], Any]) -> Any:
    running.begun = time.monotonic()
    try:
        return code()
    except (SystemExit, KeyboardInterrupt, StopIteration) as error:  # neither may leave a thread by a future
        raise RuntimeError(f"step code raised {type(error).__name__}: {error}") from error


def _set(message: Any, seconds: float) -> None:
    message.seconds = int(seconds)
    message.nanos = int((seconds - int(seconds)) * 1e9)
