"""The client for asyncio: sends events, looks at runs, waits for them, cancels them.

What it asks and when it asks again is `calls.py`; here is only how calls are made. `sync_client.py` is its twin.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import math
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from google.protobuf.message import Message

from stepwire import arguments, forks, records
from stepwire.calls import (
    Call,
    Operation,
    Operations,
    Patience,
    RunPages,
    StepPages,
    Trace,
    watch_call,
)
from stepwire.channel import Addresses, executor_address, executor_error, open_aio_channel, unreachable
from stepwire.durations import seconds
from stepwire.errors import ExecutorError, StepwireError
from stepwire.events import Event
from stepwire.history import history_of
from stepwire.records import Cause, EventReceipt, FunctionInfo, Run, RunState, RunUpdate, Step, WorkerInfo
from stepwire.security import Security
from stepwire.status import ExecutorStatus
from stepwire.values import Codec, Values
from stepwire_proto.v1 import event_pb2, run_pb2

if TYPE_CHECKING:
    import grpc

    from stepwire.gathering import Gathered
else:
    from stepwire.lazy_grpc import grpc

DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRY_FOR = 5.0
TOLD_SECONDS = 1.0
"""Seconds in which the losses of several waits are one."""
T = TypeVar("T")
log = logging.getLogger("stepwire.client")


class ClientBase:
    """What both clients have."""

    def __init__(
        self,
        address: str | None = None,
        *,
        codec: Codec | None = None,
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,
        retry_for: float | timedelta = DEFAULT_RETRY_FOR,
        security: Security | None = None,
    ) -> None:
        self.address = executor_address(address)
        """HOST:PORT of the executor, or of several, with commas between them."""
        self._addresses = Addresses(self.address)
        arguments.check_codec(codec)
        arguments.check_kind(security, Security, "the security of a client")
        self._security = security or Security.from_environment()
        self._security.check(self.address)
        self._metadata = self._security.metadata()
        self._timeout = arguments.patience(timeout, "the timeout of a client's calls")
        self._retry_for = seconds(retry_for, "retry_for", StepwireError, longest=math.inf)
        self._ask = Operations(Values(codec), history_of(f"client-{os.getpid()}"))
        self._channels: dict[str, Any] = {}
        self._born = forks.generation
        """The generation of the process that opened the channels."""
        self._gathered: dict[str, Gathered] = {}
        self._methods: dict[tuple[Any, str], Any] = {}
        self._closed = False
        self._told_at = -math.inf

    def _check_process(self) -> None:
        """Raise StepwireError in a forked child, if the client was used before the fork."""
        if self._born != forks.generation:
            if self._channels:
                forks.check(self._born)
            self._born = forks.generation

    def _take_channels(self) -> dict[str, Any]:
        """Take the channels away, to close them; those of a parent process are left to it."""
        channels, self._channels = self._channels, {}
        if self._born != forks.generation:
            forks.leave_to_parent((channels, self._methods, self._gathered))
            return {}
        return channels

    def _patience(self, call: Call, timeout: float | timedelta | None, clock: Callable[[], float]) -> Patience:
        timeout = arguments.patience(timeout, "the timeout") if call.waits_for else self._timeout
        return Patience(call, timeout, self._retry_for, clock)

    def _is_to_be_told(self, patience: Patience, error: ExecutorError) -> bool:
        """Whether a call that waits for as long as it takes has just lost the executor; of many only one says so."""
        if not patience.call.waits_for or patience.losses or error.code != "UNAVAILABLE":
            return False
        now = patience.clock()
        if now - self._told_at <= TOLD_SECONDS:
            return False
        self._told_at = now
        return True

    def _tell(self, call: Call, error: ExecutorError) -> None:
        log.warning("waiting for %s, but lost the executor: %s; trying again", call.waits_for, error)

    def _leave(self, address: str, error: ExecutorError, call: Call) -> None:
        """Ask another executor next time, if there are several and this one stands by, is gone or does not answer."""
        if error.code == "UNAVAILABLE" or (error.code == "DEADLINE_EXCEEDED" and not call.waits_for):
            self._addresses.leave(address)

    def _method(self, channel: Any, call: Call, kind: str = "unary_unary") -> Any:
        method = self._methods.get((channel, call.method))
        if method is None:
            method = self._methods[channel, call.method] = getattr(channel, kind)(
                f"/{call.method}",
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
        return method


class Client(ClientBase):
    """A client for asyncio code. Use it as `async with Client() as client:`, or `await client.close()` in the end.

    `address` is HOST:PORT of the executor, or of several that stand by for each other, with commas between them; by
    default what STEPWIRE_EXECUTOR says, else 127.0.0.1:8377. `codec` must be the app's. `timeout` is for each call, in
    seconds or as a timedelta; a call that finds no executor is made again for `retry_for`. `security` is the token and
    TLS, by default what the variables say. It belongs to the event loop that first uses it.

    Every method raises ExecutorError with the gRPC status as `code` if the executor refuses or can't be reached.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    async def send(
        self,
        name: str,
        data: Any = None,
        *,
        id: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
        tracestate: str = "",
    ) -> EventReceipt:
        """Send an event, and return when it and the runs that it starts are durable.

        An `id` makes it once only for 24 h; without one, this call is still safe against being repeated. `time` is when
        it happened. The spans of its runs become children of `traceparent`, by default of the current OpenTelemetry
        span. Raises EncodingError too.
        """
        trace = (traceparent, tracestate) if traceparent is not None else current_trace()
        return (await self._do(self._ask.send_many([Event(name, data, id or "", time)], trace)))[0]

    async def send_many(self, events: Iterable[Event | tuple[str, Any]]) -> builtins.list[EventReceipt]:
        """Send events, given as Event or as (name, data); gives a receipt for each, in their order.

        More than 5,000 events or 3 MiB go in several calls, one after the other; each is taken whole or not at all.
        """
        return await self._do(self._ask.send_many(events, current_trace()))

    async def get(self, run_id: str, steps: bool = False, *, outputs: bool = False) -> Run:
        """Get a run; with `steps` its steps too, and with `outputs` their outputs and failed attempts."""
        return await self._do(self._ask.get(run_id, steps, outputs))

    async def steps(self, run_id: str, *, outputs: bool = False) -> AsyncIterator[Step]:
        """Give a run's steps in the order of discovery; with `outputs` also their outputs and failed attempts."""
        pages, more = StepPages(run_id, outputs), True
        while more:
            page, more = await self._do(pages.next())
            for step in page:
                yield step

    async def list(
        self,
        *,
        app: str = "",
        function: str = "",
        states: Iterable[RunState | str] = (),
        event_id: str = "",
        parent_run_id: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> AsyncIterator[Run]:
        """Give runs, newest first, without outputs and event data. All filters that are set must hold.

        `states`: in one of these; `event_id`: started by this event; `parent_run_id`: invoked by this run;
        `created_after` counts itself in, `created_before` does not.
        """
        pages = RunPages(app, function, states, event_id, parent_run_id, created_after, created_before)
        more = True
        while more:
            page, more = await self._do(pages.next())
            for run in page:
                yield run

    async def watch(self, run_id: str) -> AsyncIterator[RunUpdate]:
        """Give a run with all its steps, then whatever changes, until it has ended.

        Losing the executor raises ExecutorError; watching again begins with everything.
        """
        call, address = watch_call(run_id), self._addresses.current
        stream = self._method(self._open(address), call, "unary_stream")(call.request, metadata=self._metadata)
        try:
            async for message in stream:
                yield records.run_update(message)
        except grpc.aio.AioRpcError as error:
            mapped, _ = executor_error(error, address)
            self._leave(address, mapped, call)
            raise await self._explained(mapped, address) from None
        finally:
            stream.cancel()

    async def wait(self, run_id: str, timeout: float | timedelta | None = None) -> Run:
        """Wait until a run has ended, for at most `timeout`, also over restarts of the executor.

        `timeout` is in seconds, or a timedelta. Raises WaitTimeoutError (a TimeoutError) when the time is over.
        """
        return await self._do(self._ask.wait(run_id), timeout)

    @overload
    async def result(self, run_id: str, timeout: float | timedelta | None = None, *, output_type: type[T]) -> T: ...
    @overload
    async def result(
        self, run_id: str, timeout: float | timedelta | None = None, *, output_type: Any = None
    ) -> Any: ...
    async def result(self, run_id: str, timeout: float | timedelta | None = None, *, output_type: Any = None) -> Any:
        """Wait as `wait` does, and give the run's output as `output_type`, or as plain JSON values.

        Raises RunFailedError if the run failed or was cancelled, and EncodingError if the output has another type.
        """
        return await self._do(self._ask.result(run_id, output_type), timeout)

    async def cancel(self, run_id: str, reason: str = "") -> Run:
        """Cancel a run and the runs that it invoked; gives it as it is then. One that has ended stays as it is."""
        return await self._do(self._ask.cancel(run_id, reason))

    async def why(self, run_id: str) -> builtins.list[Cause]:
        """Ask what a run waits for, the most telling first; of an ended one how it ended. There is always an answer."""
        return await self._do(self._ask.why(run_id))

    async def workers(self, *, app: str = "") -> builtins.list[WorkerInfo]:
        """List the workers that are connected or were a moment ago, oldest session first."""
        return await self._do(self._ask.workers(app))

    async def functions(self, *, app: str = "") -> builtins.list[FunctionInfo]:
        """List the functions that workers have registered, now or before."""
        return await self._do(self._ask.functions(app))

    async def status(self) -> ExecutorStatus:
        """Ask how the executor is: its load, how long things take it, and who holds its memory."""
        return await self._do(self._ask.status())

    async def close(self) -> None:
        """End the connection. Calls that are under way are cancelled."""
        self._closed = True
        if self._born == forks.generation:
            for gathered in self._gathered.values():
                gathered.close()
        for channel in self._take_channels().values():
            await channel.close()

    async def __aenter__(self) -> Self:
        self._open(self._addresses.current)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # How it works inside.

    async def _explained(self, error: ExecutorError, address: str) -> ExecutorError:
        if error.code != "UNAVAILABLE":
            return error
        return await asyncio.to_thread(unreachable, error, address, self._security)

    def _open(self, address: str) -> grpc.aio.Channel:
        self._check_process()
        loop = asyncio.get_running_loop()
        if self._closed:
            raise StepwireError("this client is closed: make a new one")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise StepwireError("this client belongs to another event loop: make one in each loop, or use SyncClient")
        if address not in self._channels:
            self._channels[address] = open_aio_channel(address, self._security)
        channel: grpc.aio.Channel = self._channels[address]
        return channel

    async def _do(self, operation: Operation[T], timeout: float | timedelta | None = None) -> T:
        try:
            call = next(operation)
            while True:
                try:
                    answer = await self._call(call, timeout)
                except ExecutorError as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _call(self, call: Call, timeout: float | timedelta | None) -> Message:
        patience = self._patience(call, timeout, asyncio.get_running_loop().time)
        while True:
            address = self._addresses.current
            try:
                return await self._make(call, address, patience.deadline())
            except grpc.aio.AioRpcError as error:
                mapped, wanted = executor_error(error, address)
                self._leave(address, mapped, call)
                told = self._is_to_be_told(patience, mapped)
                if told:
                    mapped = await self._explained(mapped, address)
                try:
                    delay = patience.delay_after(mapped, wanted)
                except ExecutorError as final:
                    raise await self._explained(final, address) from None
                if told:
                    self._tell(call, mapped)
            await asyncio.sleep(delay)

    async def _make(self, call: Call, address: str, deadline: float | None) -> Message:
        """Make a call once: a send or a wait together with others."""
        channel, request = self._open(address), call.request
        if address not in self._gathered:
            from stepwire.gathering import Gathered  # it imports gRPC

            self._gathered[address] = Gathered(channel, self._metadata)
        if isinstance(request, event_pb2.SendEventsRequest):
            return await self._gathered[address].sends.send(request, deadline)
        if isinstance(request, run_pb2.WaitRunRequest):
            return await self._gathered[address].waits.wait(request.run_id, deadline)
        answer: Message = await self._method(channel, call)(request, timeout=deadline, metadata=self._metadata)
        return answer


def current_trace() -> Trace:
    """Give traceparent and tracestate of the current OpenTelemetry span; both empty if there is none."""
    if "opentelemetry" not in sys.modules:  # then nobody can have begun a span
        return "", ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", ""), carrier.get("tracestate", "")
