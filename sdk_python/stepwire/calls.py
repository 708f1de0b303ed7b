"""What a client asks the executor, and how it goes on when that fails: written once, for both clients. No I/O, no gRPC.

An operation is a generator: it yields the calls it wants to be made, is given their answers or has their errors thrown
into it, and returns its result. Calls of one operation are made one after the other. All of them can be repeated.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message

from stepwire import arguments, records, wire
from stepwire.errors import ExecutorError, Failure, RunFailedError, StepwireError
from stepwire.events import Event, as_event
from stepwire.history import History, digest_of
from stepwire.records import Cause, EventReceipt, FunctionInfo, Run, RunState, Step, WorkerInfo
from stepwire.status import ExecutorStatus, executor_status
from stepwire.values import Values
from stepwire_proto.v1 import admin_pb2, event_pb2, run_pb2

EVENTS_A_CALL = 5_000
BYTES_A_CALL = 3 * 1024 * 1024
STEPS_A_PAGE = 1_000
RUNS_A_PAGE = 200
WAIT_SECONDS = 30.0
"""How long one call of WaitRun may take before it is repeated."""
LEAST_DELAY = 0.02

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `waits_for` names what must happen before it is answered: its deadline is no failure, then."""

    method: str
    request: Message
    response: type[Message]
    waits_for: str = ""


Operation = Generator[Call, Any, T]
Page = Generator[Call, Any, tuple[Sequence[T], bool]]


class Operations:
    """What a client can ask."""

    def __init__(self, values: Values, history: History | None = None) -> None:
        self.values = values
        self.history = history

    def send_many(self, events: Iterable[Event | tuple[str, Any]], trace: Trace) -> Operation[list[EventReceipt]]:
        """Send events in as few calls as allowed. Raises EncodingError before anything was sent."""
        messages, made = [], []
        for each in events:
            event = as_event(each)
            made.append(not event.id)
            messages.append(self._event(event, trace))
        receipts: list[EventReceipt] = []
        for batch in _batches(messages):
            call = Call(
                "stepwire.v1.EventService/SendEvents",
                event_pb2.SendEventsRequest(events=batch),
                event_pb2.SendEventsResponse,
            )
            try:
                response = yield call
            except ExecutorError as error:
                if receipts:
                    error.add_note(f"{len(receipts)} of {len(messages)} events were sent by calls before this one")
                raise
            receipts += [records.event_receipt(each) for each in response.receipts]
            if self.history is not None:
                for each in response.receipts:
                    self.history.note("acknowledged", event=each.event_id, run_ids=list(each.run_ids))
        # An id that was made here is new: "seen before" can only be a repetition of our own call.
        return [
            EventReceipt(each.event_id, each.run_ids) if mine and each.duplicate else each
            for each, mine in zip(receipts, made, strict=True)
        ]

    def _event(self, event: Event, trace: Trace) -> event_pb2.Event:
        name = arguments.text(event.name, "an event's name", may_be_empty=True)
        id_ = arguments.text(event.id, f"the id of event {name!r}", may_be_empty=True)
        message = event_pb2.Event(id=id_ or uuid.uuid4().hex, name=name)
        message.traceparent, message.tracestate = trace
        data = self.values.encode(event.data, None, f"data of event {event.name!r}", limit=0)
        wire.put_payload(message.data, data)
        if event.time is not None:
            message.time.CopyFrom(wire.to_moment(arguments.moment(event.time, f"the time of event {name!r}")))
        return message

    def get(self, run_id: str, steps: bool, outputs: bool) -> Operation[Run]:
        """Get a run, with all of its steps if they are wanted."""
        if not steps:
            request = run_pb2.GetRunRequest(run_id=named(run_id))
            return records.run((yield _get(request)).run)
        found: list[Step] = []
        pages = StepPages(run_id, outputs)
        more = True
        while more:
            page, more = yield from pages.next()
            found += page
        assert pages.run is not None
        return records.run(pages.run, tuple(found))

    def wait(self, run_id: str) -> Operation[Run]:
        """Wait until a run has ended."""
        method = "stepwire.v1.RunService/WaitRun"
        request = run_pb2.WaitRunRequest(run_id=named(run_id))
        response = yield Call(method, request, run_pb2.WaitRunResponse, waits_for=f"run {run_id}")
        run = records.run(response.run)
        if self.history is not None:
            outcome = run.output if run.state is RunState.SUCCEEDED else run.failure
            found = "cancelled" if outcome is None or run.state is RunState.CANCELLED else digest_of(outcome)
            self.history.note("ended", run=run_id, state=run.state.name, digest=found)
        return run

    def result(self, run_id: str, output_type: Any) -> Operation[Any]:
        """Wait until a run has ended, and give its output. Raises RunFailedError and EncodingError."""
        run = yield from self.wait(run_id)
        if run.state is RunState.SUCCEEDED:
            output = run.output
            return None if output is None else self.values.decode(output, output_type, f"the output of run {run_id}")
        raise RunFailedError(run_id, run.failure or _ended_without_failure(run))

    def cancel(self, run_id: str, reason: str) -> Operation[Run]:
        """Cancel a run."""
        response = yield Call(
            "stepwire.v1.RunService/CancelRun",
            run_pb2.CancelRunRequest(
                run_id=named(run_id), reason=arguments.text(reason, "the reason", may_be_empty=True)
            ),
            run_pb2.CancelRunResponse,
        )
        return records.run(response.run)

    def why(self, run_id: str) -> Operation[list[Cause]]:
        """Ask what a run waits for."""
        request = run_pb2.ExplainRunRequest(run_id=named(run_id))
        response = yield Call("stepwire.v1.RunService/ExplainRun", request, run_pb2.ExplainRunResponse)
        return [records.cause(each) for each in response.causes]

    def workers(self, app: str) -> Operation[list[WorkerInfo]]:
        """List workers."""
        request = admin_pb2.ListWorkersRequest(app=app)
        call = Call("stepwire.v1.AdminService/ListWorkers", request, admin_pb2.ListWorkersResponse)
        return [records.worker_info(each) for page in (yield from _pages(call)) for each in page.workers]

    def functions(self, app: str) -> Operation[list[FunctionInfo]]:
        """List functions."""
        request = admin_pb2.ListFunctionsRequest(app=app)
        call = Call("stepwire.v1.AdminService/ListFunctions", request, admin_pb2.ListFunctionsResponse)
        return [records.function_info(each) for page in (yield from _pages(call)) for each in page.functions]

    def status(self) -> Operation[ExecutorStatus]:
        """Ask how the executor is."""
        request = admin_pb2.GetStatusRequest()
        return executor_status((yield Call("stepwire.v1.AdminService/GetStatus", request, admin_pb2.GetStatusResponse)))


Trace = tuple[str, str]
"""traceparent and tracestate."""


def named(run_id: str) -> str:
    """Give a run's id back; raises StepwireError for none, as an event that starts no run has none to give."""
    if isinstance(run_id, str) and run_id:
        return arguments.text(run_id, "a run's id")
    raise StepwireError(
        f"{run_id!r} is no run's id: if it comes from a receipt, the event started no run, as no function that a "
        "connected worker serves is triggered by its name"
    )


def watch_call(run_id: str) -> Call:
    """Make the call that streams a run's changes; `records.run_update` reads its answers."""
    request = run_pb2.WatchRunRequest(run_id=named(run_id))
    return Call("stepwire.v1.RunService/WatchRun", request, run_pb2.WatchRunResponse, waits_for=f"run {run_id}")


class RunPages:
    """The runs of a filter, a page at a time."""

    def __init__(
        self,
        app: str = "",
        function: str = "",
        states: Iterable[RunState | str] = (),
        event_id: str = "",
        parent_run_id: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> None:
        filters: dict[str, Any] = {
            "app": app,
            "function_id": function,
            "event_id": event_id,
            "parent_run_id": parent_run_id,
        }
        for name, value in filters.items():
            arguments.text(value, f"the filter {name}", may_be_empty=True)
        self._request = run_pb2.ListRunsRequest(page_size=RUNS_A_PAGE, **filters)
        wanted = (states,) if isinstance(states, str) else states
        for each in wanted:
            self._request.states.append(records.RUN_STATE_NUMBERS[RunState(each)])
        if created_after is not None:
            self._request.created_after.CopyFrom(wire.to_moment(arguments.moment(created_after, "created_after")))
        if created_before is not None:
            self._request.created_before.CopyFrom(wire.to_moment(arguments.moment(created_before, "created_before")))

    def next(self) -> Page[Run]:
        """Give the next page, and whether there are more."""
        response = yield Call("stepwire.v1.RunService/ListRuns", self._request, run_pb2.ListRunsResponse)
        self._request.page_token = response.next_page_token
        return [records.run(each) for each in response.runs], bool(response.next_page_token)


class StepPages:
    """The steps of a run, a page at a time. `run` is the run as the last page showed it."""

    def __init__(self, run_id: str, outputs: bool) -> None:
        self.run: run_pb2.Run | None = None
        self._request = run_pb2.GetRunRequest(
            run_id=named(run_id), include_steps=True, include_outputs=outputs, page_size=STEPS_A_PAGE
        )

    def next(self) -> Page[Step]:
        """Give the next page, and whether there are more. A page whose outputs are too large is asked for in parts."""
        while True:
            try:
                response = yield _get(self._request)
                break
            except ExecutorError as error:
                if error.code != "RESOURCE_EXHAUSTED" or self._request.page_size == 1:
                    raise
                self._request.page_size = max(1, self._request.page_size // 8)
        self.run = response.run
        self._request.page_token = response.next_page_token
        self._request.page_size = min(STEPS_A_PAGE, self._request.page_size * 2)
        return [records.step(each) for each in response.steps], bool(response.next_page_token)


def _pages(call: Call) -> Operation[list[Any]]:
    """Ask for all pages of a list."""
    pages = [(yield call)]
    request: Any = call.request
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append((yield call))
    return pages


def _get(request: run_pb2.GetRunRequest) -> Call:
    return Call("stepwire.v1.RunService/GetRun", request, run_pb2.GetRunResponse)


def _batches(messages: Sequence[event_pb2.Event]) -> Iterable[list[event_pb2.Event]]:
    batch: list[event_pb2.Event] = []
    size = 0
    for message in messages:
        more = message.ByteSize() + 8
        if batch and (len(batch) >= EVENTS_A_CALL or size + more > BYTES_A_CALL):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += more
    if batch:
        yield batch


def _ended_without_failure(run: Run) -> Failure:
    if run.state is RunState.CANCELLED:
        return Failure("RunCancelledError", run.cancel_reason or "the run was cancelled", retryable=False)
    return Failure("UnknownError", f"the run is {run.state.value}", retryable=False)


class WaitTimeoutError(ExecutorError, TimeoutError):
    """The time that was given for waiting is over. What was waited for goes on, and can be waited for again."""


@dataclass(slots=True)
class Patience:
    """How often and how soon a call that failed is made again. Times are of a monotonic clock, in seconds.

    `timeout` is for all tries together, None for no end. A call that finds no executor is made again for `retry_for`,
    one that waits until the timeout.
    """

    call: Call
    timeout: float | None
    retry_for: float
    clock: Callable[[], float]
    draw: Callable[[], float] = random.random
    losses: int = field(default=0, init=False)
    """Tries that have found no executor, since one has."""
    _end: float = field(init=False)
    _lost_at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._end = math.inf if self.timeout is None else self.clock() + self.timeout

    def deadline(self) -> float | None:
        """How long the next try may take, in seconds; None for ever. At least a moment, so that it can be answered."""
        rest = max(self._end - self.clock(), 0.01)
        rest = min(rest, WAIT_SECONDS) if self.call.waits_for else rest
        return None if rest == math.inf else rest

    def delay_after(self, error: ExecutorError, wanted_delay: float | None = None) -> float:
        """Give the delay until the next try; raises the error if there is to be none.

        `wanted_delay` is what the executor has asked for.
        """
        now = self.clock()
        match error.code:
            case "UNAVAILABLE":
                delay = self._after_loss(error, now)
            case "RESOURCE_EXHAUSTED" if wanted_delay is not None:
                delay = wanted_delay * (1 + self.draw() / 4)
            case "DEADLINE_EXCEEDED" if self.call.waits_for:
                self._lost_at, self.losses = None, 0
                delay = LEAST_DELAY
            case _:
                raise error
        if now + delay < self._end:
            return delay
        if self.call.waits_for and error.code == "DEADLINE_EXCEEDED":
            text = f"{self.call.waits_for} has not ended within {self.timeout:g} s; it goes on, wait for it again"
            text = f"{text}, or ask `stepwire why` what it waits for"
            raise WaitTimeoutError(error.code, text)
        raise error

    def _after_loss(self, error: ExecutorError, now: float) -> float:
        """Full jitter over a backoff from 0.1 s to 2 s, and never at once."""
        if self._lost_at is None:
            self._lost_at = now
        self.losses += 1
        if not self.call.waits_for and now - self._lost_at >= self.retry_for:
            raise error
        return LEAST_DELAY + self.draw() * min(2.0, 0.1 * 2.0 ** min(self.losses - 1, 10))
