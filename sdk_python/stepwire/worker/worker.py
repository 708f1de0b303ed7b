"""One worker: ties the stream, the live invocations and the attempts together, on the user's loop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Mapping

from stepwire import wire
from stepwire.app import App
from stepwire.errors import ExecutorError
from stepwire.replay.model import Closure, Planned
from stepwire.version import VERSION
from stepwire.worker.attempts import Attempts, key_of
from stepwire.worker.invocations import Invocations, Live, closure_of
from stepwire.worker.outbox import Outbox
from stepwire.worker.transport import Handlers, Transport
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

log = logging.getLogger("stepwire.worker")

PROTOCOL = 1
DEFAULT_EXECUTOR = "127.0.0.1:8377"
DEFAULT_SLOTS = 32
DEFAULT_MAX_INVOCATIONS = 1_000
DEFAULT_DRAIN_SECONDS = 30.0
LINGER_SECONDS = 0.01
"""A lone step that ends sooner is reported together with its plan."""


class Worker:
    """Serves an app until it is drained.

    `slots` attempts run at once, `max_invocations` bodies are kept live. `drain_seconds` is how long a drain may take
    before unfinished attempts are given back.
    """

    def __init__(
        self,
        app: App,
        executor: str = DEFAULT_EXECUTOR,
        *,
        slots: int = DEFAULT_SLOTS,
        max_invocations: int = DEFAULT_MAX_INVOCATIONS,
        labels: Mapping[str, str] | None = None,
        instance_id: str | None = None,
        drain_seconds: float = DEFAULT_DRAIN_SECONDS,
    ) -> None:
        self.app = app
        self.instance_id = instance_id or f"{socket.gethostname()[:64]}-{os.getpid()}-{uuid.uuid4().hex[:4]}"
        self._executor = executor
        self._slots = slots
        self._max_invocations = max_invocations
        self._labels = dict(labels or {})
        self._drain_seconds = drain_seconds
        self._outbox = Outbox()
        self._stream = 0
        self._out: list[tuple[int, worker_pb2.WorkerMessage]] = []
        """What this turn of the loop has to say: results with their fence, others with 0."""
        self._draining = False
        self._held: dict[int, worker_pb2.WorkerMessage] = {}
        """Reports of lone steps that are held back until the step ends or the linger is over, by fence."""

    async def run(self) -> None:
        """Serve until `drain` is through. Raises ExecutorError if the executor refuses this worker."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[ExecutorError | None] = self._loop.create_future()
        self._attempts = Attempts(self.app, self._slots, self._report)
        self._invocations = Invocations(
            self.app,
            self._max_invocations,
            self._send,
            self._run_eagerly,
            self._run_waiting,
            self._attempts.of_run,
            self._give_back_unbegun,
        )
        handlers = Handlers(
            post=self._post,
            hello=self._hello,
            welcomed=self._welcomed,
            received=self._received,
            lost=self._lost,
            ended=self._end,
            counts=lambda: (self._outbox.in_hand, len(self._invocations)),
        )
        self._transport = Transport(self._executor, self._outbox, handlers)
        self._transport.start()
        try:
            error = await asyncio.shield(self._ended)
        finally:
            self._transport.cut()
            self._attempts.give_up("the worker ends")
            self._invocations.close()
            self._attempts.close()
        if error is not None:
            raise error
        log.info("drained")

    def drain(self) -> None:
        """Take nothing new, finish what is in hand, and end. A second call ends at once.

        Call it on the worker's loop.
        """
        if self._draining:
            self._give_back()
            return
        self._draining = True
        log.info("draining: %d attempts in hand", self._outbox.in_hand)
        if not self._stream:
            self._transport.cut()
            return
        for fence in list(self._held):
            self._tell_held(fence)
        self._say_draining([])
        self._invocations.drop_all()
        self._loop.call_later(self._drain_seconds, self._give_back)
        self._end_if_drained()

    # The transport's side.

    def _post(self, *call: object) -> None:
        try:
            self._loop.call_soon_threadsafe(*call)  # type: ignore[arg-type]
        except RuntimeError:
            log.debug("the loop has ended; nothing more is told to it")

    def _hello(self) -> worker_pb2.Hello:
        hello = worker_pb2.Hello(
            min_protocol=PROTOCOL,
            max_protocol=PROTOCOL,
            capabilities=[worker_pb2.CAPABILITY_EAGER],
            sdk_name="stepwire-python",
            sdk_version=VERSION,
            instance_id=self.instance_id,
            app=self.app.name,
            app_version=self.app.version,
            tasks=sorted(self.app.tasks),
            labels=self._labels,
            slots=self._slots,
            max_invocations=self._max_invocations,
            attempts_in_hand=self._outbox.holdings(self._slots),
        )
        for function in self.app.functions.values():
            names = [trigger.event_name for trigger in function.triggers]
            wire.put_function(hello.functions.add(), function.id, names, function.retry, function.run_timeout)
        return hello

    def _welcomed(self, stream: int, welcome: worker_pb2.Welcome) -> None:
        self._stream = stream
        self._invocations.drop_all()
        self._invocations.limits = welcome.limits
        if welcome.limits.max_output_bytes:
            self._attempts.values.max_output_bytes = welcome.limits.max_output_bytes
            self._invocations.values.max_output_bytes = welcome.limits.max_output_bytes
        for attempt in welcome.unwanted_attempts:
            self._attempts.cancel(attempt.fence, "the executor no longer wants it")
        if self._draining:
            self._say_draining([])
            self._end_if_drained()

    def _lost(self, stream: int) -> None:
        if stream == self._stream:
            self._stream = 0
            self._invocations.drop_all()

    def _end(self, error: ExecutorError | None) -> None:
        if not self._ended.done():
            self._ended.set_result(error)

    def _received(self, stream: int, messages: list[worker_pb2.ExecutorMessage]) -> None:
        if stream != self._stream:
            return
        for message in messages:
            match message.WhichOneof("kind"):
                case "run_steps":
                    self._run_steps(message.run_steps)
                case "recorded":
                    self._recorded(message.recorded)
                case "resume":
                    self._invocations.resume(message.resume)
                case "invoke":
                    self._invocations.invoke(message.invoke)
                case "journal_chunk":
                    self._invocations.chunk(message.journal_chunk)
                case "cancel":
                    self._cancel(message.cancel)

    # What the executor asks for.

    def _run_steps(self, message: worker_pb2.RunSteps) -> None:
        if self._draining:
            self._say_draining([start.attempt for start in message.attempts])  # they were sent before that was known
            return
        begun = [start for start in message.attempts if start.HasField("task") or not self._waits(start)]
        self._outbox.take(start.attempt for start in begun)
        for start in begun:
            if start.HasField("task"):
                self._attempts.start_task(start)
            else:
                self._run_closure(start)

    def _waits(self, start: worker_pb2.AttemptStart) -> bool:
        """Keep an attempt whose body moves still. It is not in hand until it begins: its body may go before that."""
        live = self._invocations.get(start.attempt.run_id, start.closure.invocation)
        return live is not None and self._invocations.wait(live, start)

    def _run_closure(self, start: worker_pb2.AttemptStart) -> None:
        attempt = start.attempt
        live = self._invocations.get(attempt.run_id, start.closure.invocation)
        if live is None:
            self._outbox.forget([attempt.fence])
            self._invocations.need_journal(attempt.run_id, start.closure.invocation)
            return
        key = key_of(attempt)
        code = closure_of(live, key)
        assert live.invocation is not None
        if code is None:
            self._outbox.forget([attempt.fence])
            self._invocations.diverged(live, key)
        elif live.invocation.was_cancelled(key):
            self._outbox.forget([attempt.fence])
            cancelled = opcode_pb2.StepCancelled(run_id=live.run_id, invocation=live.fence, keys=[attempt.key])
            self._send(worker_pb2.WorkerMessage(step_cancelled=cancelled))
        else:
            self._attempts.start(attempt, start.number, code.run, code.output_type, start.traceparent)

    def _run_waiting(self, live: Live, starts: list[worker_pb2.AttemptStart]) -> None:
        self._outbox.take(start.attempt for start in starts)
        for start in starts:
            self._run_closure(start)

    def _give_back_unbegun(self, attempts: list[value_pb2.Attempt]) -> None:
        """Tell that attempts will not begin here; after a lost stream the next Hello does so by not naming them."""
        if self._draining:
            self._say_draining(attempts)

    def _run_eagerly(self, live: Live, step: Planned, fence: int, report: worker_pb2.WorkerMessage) -> None:
        """Run a lone step at once; its plan is told together with its result, or when it takes longer."""
        attempt = value_pb2.Attempt(run_id=live.run_id, key=wire.to_key(step.key), fence=fence)
        assert isinstance(step.target, Closure)
        self._outbox.take([attempt])
        self._held[fence] = report
        self._loop.call_later(LINGER_SECONDS, self._tell_held, fence)
        self._attempts.start(attempt, 1, step.target.run, step.target.output_type, live.eager_traceparent)

    def _tell_held(self, fence: int) -> None:
        report = self._held.pop(fence, None)
        if report is not None:
            self._send(report)

    def _recorded(self, message: worker_pb2.Recorded) -> None:
        self._outbox.forget(attempt.fence for attempt in message.attempts)
        for refusal in message.refusals:
            log.info("a result of step %r was refused: %s", refusal.attempt.key.id, refusal.reason)
            self._outbox.forget([refusal.attempt.fence])
        self._end_if_drained()

    def _cancel(self, message: worker_pb2.Cancel) -> None:
        if message.HasField("attempt"):
            self._attempts.cancel(message.attempt.fence, message.reason)
            self._outbox.forget([message.attempt.fence])
        else:
            self._outbox.forget(self._attempts.cancel_run(message.run_id, message.reason))
            self._invocations.drop(message.run_id)
        self._end_if_drained()

    # What the executor is told.

    def _report(self, fence: int, message: worker_pb2.WorkerMessage) -> None:
        self._tell_held(fence)
        self._queue(fence, message)

    def _send(self, message: worker_pb2.WorkerMessage) -> None:
        self._queue(0, message)

    def _queue(self, fence: int, message: worker_pb2.WorkerMessage) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((fence, message))

    def _flush(self) -> None:
        """Hand over what this turn has to say, in its order."""
        out, self._out = self._out, []
        others: list[worker_pb2.WorkerMessage] = []
        for fence, message in out:
            if fence:
                if others:
                    self._outbox.send(self._stream, others)
                    others = []
                self._outbox.report(fence, message, wake=False)
            else:
                others.append(message)
        if others:
            self._outbox.send(self._stream, others)
        self._outbox.wake()

    def _say_draining(self, returned: list[value_pb2.Attempt]) -> None:
        self._send(worker_pb2.WorkerMessage(draining=worker_pb2.Draining(returned_attempts=returned)))

    def _give_back(self) -> None:
        """End the drain: what still runs is given back."""
        returned = self._attempts.give_up("the worker is stopped")
        if returned:
            log.warning("giving back %d attempts that have not finished", len(returned))
            self._outbox.forget(attempt.fence for attempt in returned)
            self._say_draining(returned)
        self._flush()
        self._transport.stop()

    def _end_if_drained(self) -> None:
        if self._draining and not self._outbox.in_hand and not self._out:
            self._transport.stop()
        elif self._draining and not self._outbox.in_hand:
            self._loop.call_soon(self._end_if_drained)
