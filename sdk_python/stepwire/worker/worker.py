"""One worker: ties the stream, the live invocations and the attempts together, on the user's loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence

from stepwire import wire
from stepwire.app import App
from stepwire.arguments import check_kind, text
from stepwire.channel import executor_address
from stepwire.errors import NestedStepError, StepwireError
from stepwire.history import history_of
from stepwire.replay.model import Closure, Planned
from stepwire.security import Security
from stepwire.version import VERSION
from stepwire.visible import one_line
from stepwire.worker.attempts import Attempts, key_of
from stepwire.worker.board import Board
from stepwire.worker.held import Held
from stepwire.worker.invocations import Invocations
from stepwire.worker.link import Handlers
from stepwire.worker.live import Live, Permission
from stepwire.worker.options import check_app, check_options
from stepwire.worker.outbox import Outbox
from stepwire.worker.threads import Threads
from stepwire.worker.transport import Transport
from stepwire_proto.v1 import opcode_pb2, value_pb2, worker_pb2

log = logging.getLogger("stepwire.worker")

PROTOCOL = 1
DEFAULT_EXECUTOR = "127.0.0.1:8377"
DEFAULT_SLOTS = 32
DEFAULT_MAX_INVOCATIONS = 1_000
DEFAULT_DRAIN_SECONDS = 30.0
GOODBYE_SECONDS = 4.0
"""How long the end of a stream is waited for that another thread has ended; the transport cuts it sooner."""
MOST_CANCELLATIONS = 3


class Worker:
    """Serves an app until it is drained.

    `executor` is HOST:PORT, or several that stand by for each other, with commas between them.
    `slots` attempts run at once, `max_invocations` bodies are kept live. `labels` are shown to people. `instance_id` is
    unique to this worker; by default it is made of the host's name and the process id. `drain_seconds` is how long a
    drain may take before unfinished attempts are given back. `security` is the token and TLS, by default what the
    variables say; its files are read for each connection. Raises StepwireError if it is not fit for the address.
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
        security: Security | None = None,
    ) -> None:
        check_kind(app, App, "what a worker serves")
        check_kind(security, Security, "the security of a worker")
        if instance_id is not None:
            text(instance_id, "a worker's instance_id")
        self.app = app
        self.instance_id = instance_id or f"{socket.gethostname()[:64]}-{os.getpid()}-{uuid.uuid4().hex[:4]}"
        self._history = self._make_history(f"worker-{self.instance_id}")
        check_options(slots=slots, max_invocations=max_invocations, drain_seconds=drain_seconds, labels=labels or {})
        self._executor = executor = executor_address(executor)
        self._security = security or Security.from_environment()
        self._security.check(executor)
        self._slots = slots
        self._max_invocations = max_invocations
        self._labels = dict(labels or {})
        self.drain_seconds = drain_seconds
        self._outbox = self._make_outbox()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stream = 0
        """Number of the stream that is open, as far as this loop has been told; 0 if none is."""
        self._out: list[tuple[int, worker_pb2.WorkerMessage]] = []
        """What this turn of the loop has to say: results with their fence, others with 0."""
        self.board: Board | None = None
        """Where it is written what runs here, for a supervisor."""
        self._draining = False
        self._closing = False
        """Whether the last word has been said."""
        self._deadline: asyncio.TimerHandle | None = None
        self._announced = 0
        """The last stream on which another thread has said Draining."""

    async def run(self) -> None:
        """Serve until `drain` is through; once only. Raises ExecutorError if the executor refuses this worker.

        A cancellation drains, as SIGTERM does in a worker process, and is raised when that is through. A second one
        gives back at once what has not finished; a third one does not even wait for that.
        """
        if self._loop is not None:
            raise StepwireError(f"worker {self.instance_id} has run already: make a new Worker")
        check_app(self.app)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Exception | None] = self._loop.create_future()
        self._held = Held(self._loop, self.send)
        self._attempts = Attempts(self.app, self._report, self._report_from_thread, self._make_threads, self._history)
        self._invocations = Invocations(self.app, self._max_invocations, self, self._make_threads, self._history)
        self._attempts.on_cut_off = self._take_back
        self._invocations.failures = self._attempts.failures
        self._attempts.board = self._invocations.moves.board = self.board
        handlers = Handlers(
            post=self._post,
            hello=self._hello,
            welcomed=self._welcomed,
            received=self._received,
            lost=self._lost,
            ended=self._end,
            counts=lambda: (self._outbox.in_hand, len(self._invocations)),
        )
        self._transport = self._make_transport(handlers)
        if self._draining:
            return
        self._transport.start()
        try:
            error = await self._until_ended()
        finally:
            self._transport.cut()
            if self._deadline is not None:
                self._deadline.cancel()
            self._attempts.give_up("the worker ends")
            self._invocations.close()
            self._attempts.close()
        if error is not None:
            raise error
        log.info("drained")

    async def _until_ended(self) -> Exception | None:
        first: asyncio.CancelledError | None = None
        for _ in range(MOST_CANCELLATIONS):
            try:
                error = await asyncio.shield(self._ended)
            except asyncio.CancelledError as cancelled:
                first = first or cancelled
                self._attempts.is_cut_off = True
                self.drain()
            else:
                break
        if first is not None:
            raise first
        return error

    def _take_back(self, attempt: value_pb2.Attempt) -> None:
        """Give back an attempt whose task was cancelled together with this worker's, as a loop does at its end."""
        self._outbox.forget([attempt.fence])
        self._say_draining([attempt])
        self._end_if_drained()

    def drain(self) -> None:
        """Take nothing new, finish what is in hand, and end. A second call ends at once.

        Call it on the worker's loop.
        """
        again, self._draining = self._draining, True
        if self._loop is None:
            return
        if again:
            self._give_back()
            return
        log.info("draining: %d attempts in hand", self._outbox.in_hand)
        self._invocations.eager = False
        self._deadline = self._loop.call_later(self.drain_seconds, self._give_back)
        if self._stream:
            if self._announced == self._stream:
                self._held.clear()
            self._held.tell_all()
            unbegun = self._invocations.take_waiting()
            self._invocations.drop_all()
            self._say_draining([start.attempt for start in unbegun])
        self._end_if_drained()

    # What another thread does while user code blocks the loop; see `signals.py`.

    def announce_drain(self) -> None:
        """Say Draining on the stream that is open, once for each, after the plans of lone steps that have begun."""
        stream = self._outbox.stream
        if stream != self._announced:
            self._announced = stream
            draining = worker_pb2.WorkerMessage(draining=worker_pb2.Draining())
            self._outbox.put(stream, [(0, message) for message in (*self._outbox.last_plans(), draining)])

    def surrender(self) -> None:
        """Give back what is in hand and end the stream; returns when it has ended, or after some seconds."""
        if self._loop is None:
            return
        stream = self._outbox.stream
        self.announce_drain()
        self._outbox.put(stream, list(self._out))  # what the loop had to say when it was blocked
        returned = self._outbox.surrender()
        draining = worker_pb2.Draining(returned_attempts=returned, done=True)
        self._outbox.put(stream, [(0, worker_pb2.WorkerMessage(draining=draining))])
        if returned:
            log.warning("giving back %d attempts that have not finished", len(returned))
        self._transport.stop()
        self._transport.wait(GOODBYE_SECONDS)

    # What it is made of; a simulation has others.

    _make_history = staticmethod(history_of)
    _make_outbox = Outbox
    _make_threads = Threads

    def _make_transport(self, handlers: Handlers) -> Transport:
        return Transport(self._executor, self._security, self._outbox, handlers)

    # The transport's side.

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(call, *arguments)

    def _hello(self) -> worker_pb2.Hello:
        in_hand, plans = self._outbox.holdings(self._slots)
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
            attempts_in_hand=in_hand,
            draining=self._draining or self._announced > 0,
            eager_plans=plans,
        )
        for function in self.app.functions.values():
            names = [trigger.event_name for trigger in function.triggers]
            wire.put_function(hello.functions.add(), function.id, names, function.retry, function.run_timeout)
        return hello

    def _welcomed(self, stream: int, welcome: worker_pb2.Welcome) -> None:
        self._forget_stream()
        self._stream = stream
        if self._history is not None:
            self._history.note("connected", session=welcome.session_id, resumed=welcome.resumed, slots=self._slots)
        self._invocations.limits = welcome.limits
        self._attempts.values.max_output_bytes = welcome.limits.max_output_bytes
        self._invocations.values.max_output_bytes = welcome.limits.max_output_bytes
        for fence in self._attempts.fences:
            if not self._outbox.holds(fence):
                self._attempts.cancel(fence, "the executor no longer wants it")
        self._attempts.failures.forget(self._outbox.holds)
        if self._draining:
            self._say_draining([])
            self._end_if_drained()

    def _lost(self, stream: int) -> None:
        if stream == self._stream:
            self._forget_stream()

    def _forget_stream(self) -> None:
        """Drop what does not outlive a stream: bodies, and whatever was to be said of them."""
        self._stream = 0
        self._held.clear()
        self._out = [each for each in self._out if each[0]]
        self._invocations.drop_all()

    def _end(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(error)

    def _received(self, stream: int, messages: Sequence[worker_pb2.ExecutorMessage]) -> None:
        if stream != self._stream:
            return
        for message in messages:
            try:
                self._take(message)
            except Exception as error:  # others came with it, and must not be lost
                log.exception("a message of the executor could not be handled")
                self._not_taken(message, error)

    def _take(self, message: worker_pb2.ExecutorMessage) -> None:
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

    def _not_taken(self, message: worker_pb2.ExecutorMessage, error: Exception) -> None:
        kind = message.WhichOneof("kind")
        if kind in ("resume", "invoke", "journal_chunk"):
            its = getattr(message, kind)
            self._invocations.unread(its.run_id, its.invocation, error)

    # What the executor asks for.

    def _run_steps(self, message: worker_pb2.RunSteps) -> None:
        if self._draining:  # they were sent before that was known
            self._say_draining([start.attempt for start in message.attempts])
            return
        for start in message.attempts:
            if not start.HasField("task"):
                self.run_closure(start)
            elif self._outbox.take(self._stream, start.attempt):
                self._begin(start, functools.partial(self._attempts.start_task, start))

    def refuse(self, start: worker_pb2.AttemptStart, error: Exception, function_id: str = "") -> None:
        """Report an attempt that can't begin as failed; it is tried again by its policy."""
        if self._outbox.holds(start.attempt.fence) or self._outbox.take(self._stream, start.attempt):
            self._attempts.refuse(start, error, function_id)

    def _begin(self, start: worker_pb2.AttemptStart, begin: Callable[[], None]) -> None:
        """Begin an attempt; what keeps it from that is its own failure, and not that of those which come after it."""
        try:
            begin()
        except Exception as error:
            log.exception("step %r of run %s could not begin", start.attempt.key.id, start.attempt.run_id)
            self.refuse(start, error)

    def run_closure(self, start: worker_pb2.AttemptStart) -> None:
        """Run a closure now, or when its body has moved as far as it was told to. It is in hand from its begin only."""
        self._begin(start, functools.partial(self._run_closure, start))

    def _run_closure(self, start: worker_pb2.AttemptStart) -> None:
        attempt, fence = start.attempt, start.closure.invocation
        live = self._invocations.get(attempt.run_id, fence)
        if live is None:
            self._invocations.need_journal(attempt.run_id, fence, [attempt])
            return
        if self._invocations.wait(live, start):
            return
        key = key_of(attempt)
        code = live.invocation.closure(key) if live.invocation is not None else None
        if code is None or live.invocation is None:
            self._invocations.not_found(live, start)
        elif live.invocation.was_cancelled(key):
            cancelled = opcode_pb2.StepCancelled(run_id=live.run_id, invocation=live.fence, keys=[attempt.key])
            self.say(live.run_id, worker_pb2.WorkerMessage(step_cancelled=cancelled))
        elif self._outbox.take(self._stream, attempt):
            function_id = live.info.function_id
            self._attempts.start(attempt, start.number, code.run, code.encoded_as, start.traceparent, function_id)

    def run_lone(self, live: Live, step: Planned, permission: Permission, report: worker_pb2.WorkerMessage) -> None:
        """Run a lone step at once; its plan is told together with its result, or when it takes longer."""
        assert isinstance(step.target, Closure)
        fence, code = permission.fence, step.target
        attempt = value_pb2.Attempt(run_id=live.run_id, key=wire.to_key(step.key), fence=fence)
        if self._outbox.take(self._stream, attempt, report.steps_found):
            self._held.hold(fence, live.run_id, report)
            function_id = live.info.function_id
            self._attempts.start(attempt, 1, code.run, code.encoded_as, permission.traceparent, function_id, lone=True)

    def is_busy(self, run_id: str) -> bool:
        """Whether attempts of a run are in hand."""
        return self._attempts.of_run(run_id)

    def nested(self, run_id: str, error: NestedStepError) -> None:
        """Have the attempts of a run fail whose code may have started a step, in a thread of its own."""
        self._attempts.fail_nested(run_id, error)

    def _recorded(self, message: worker_pb2.Recorded) -> None:
        self._outbox.forget(attempt.fence for attempt in message.attempts)
        self._attempts.failures.confirmed((attempt.fence for attempt in message.attempts), message.failed_steps)
        if self._history is not None:
            for attempt in message.attempts:
                self._history.note("confirmed", run=attempt.run_id, fence=attempt.fence)
        for refusal in message.refusals:
            log.info("a result of step %r was refused: %s", refusal.attempt.key.id, one_line(refusal.reason))
            self._outbox.forget([refusal.attempt.fence])
            self._attempts.failures.confirmed([refusal.attempt.fence], ())
        self._end_if_drained()

    def _cancel(self, message: worker_pb2.Cancel) -> None:
        if message.HasField("attempt"):
            fence = message.attempt.fence
            self._invocations.take_waiting(fence)
            if message.HasField("failure"):
                failure = wire.failure(message.failure)
                self._attempts.time_out(fence, message.reason, failure, retried=message.retried)
            else:
                self._attempts.cancel(fence, message.reason)
            self._outbox.forget([fence])
            self._attempts.failures.confirmed([fence], ())
        else:
            if message.HasField("failure"):
                self._invocations.run_failed(message.run_id, wire.failure(message.failure))
            self._outbox.forget(self._attempts.cancel_run(message.run_id, message.reason))
            self._invocations.drop(message.run_id)
        self._end_if_drained()

    # What the executor is told.

    def say(self, run_id: str, message: worker_pb2.WorkerMessage) -> None:
        """Say something of a run's body, after the plan of a lone step that is held back."""
        self._held.tell_of(run_id)
        self.send(message)

    def send(self, message: worker_pb2.WorkerMessage) -> None:
        """Say something that makes sense on this stream only."""
        self._queue(0, message)

    def _report(self, fence: int, message: worker_pb2.WorkerMessage) -> None:
        self._held.tell(fence)
        self._queue(fence, message)

    def _report_from_thread(self, fence: int, message: worker_pb2.WorkerMessage) -> None:
        self._outbox.report(fence, message)

    def _queue(self, fence: int, message: worker_pb2.WorkerMessage) -> None:
        assert self._loop is not None
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append((fence, message))

    def flush(self) -> None:
        """Hand over what this turn has had to say so far, in its order, as one batch."""
        out, self._out = self._out, []
        self._outbox.put(self._stream, out)

    def _say_draining(self, returned: Sequence[value_pb2.Attempt], *, done: bool = False) -> None:
        self.send(worker_pb2.WorkerMessage(draining=worker_pb2.Draining(returned_attempts=returned, done=done)))

    def _give_back(self) -> None:
        """End the drain: what still runs is given back."""
        returned = self._attempts.give_up("the worker is stopped")
        if returned:
            log.warning("giving back %d attempts that have not finished", len(returned))
            self._outbox.forget(attempt.fence for attempt in returned)
        self._hang_up(returned)

    def _end_if_drained(self) -> None:
        """End once everything in hand is recorded and everything said is on its way."""
        if not self._draining or self._outbox.in_hand or self._closing:
            return
        if self._stream:
            self._hang_up()
        else:  # should a stream just open, the executor is told there
            self._transport.wind_down()

    def _hang_up(self, returned: Sequence[value_pb2.Attempt] = ()) -> None:
        """End the stream with the last word; at once if there is none."""
        self._say_draining(returned, done=True)
        self.flush()
        if self._stream:
            self._closing = True
            self._transport.stop()
        else:
            self._transport.cut()
