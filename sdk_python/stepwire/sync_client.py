"""The client for code without asyncio: the same calls as `client.py`, made synchronously."""

from __future__ import annotations

import builtins
import threading
import time as clocks
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from google.protobuf.message import Message

from stepwire import forks, records
from stepwire.calls import Call, Operation, RunPages, StepPages, watch_call
from stepwire.channel import executor_error, open_channel, unreachable
from stepwire.client import DEFAULT_RETRY_FOR, DEFAULT_TIMEOUT, ClientBase, current_trace
from stepwire.errors import ExecutorError, StepwireError
from stepwire.events import Event
from stepwire.records import Cause, EventReceipt, FunctionInfo, Run, RunState, RunUpdate, Step, WorkerInfo
from stepwire.security import Security
from stepwire.status import ExecutorStatus
from stepwire.values import Codec

if TYPE_CHECKING:
    import grpc
else:
    from stepwire.lazy_grpc import grpc

T = TypeVar("T")


class SyncClient(ClientBase):
    """A client for code without asyncio; methods, arguments and errors are those of Client.

    Use it as `with SyncClient() as client:`, or call `close()` in the end. Several threads may use it.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        codec: Codec | None = None,
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,
        retry_for: float | timedelta = DEFAULT_RETRY_FOR,
        security: Security | None = None,
    ) -> None:
        super().__init__(address, codec=codec, timeout=timeout, retry_for=retry_for, security=security)
        self._lock = threading.Lock()

    def send(
        self,
        name: str,
        data: Any = None,
        *,
        id: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
        tracestate: str = "",
    ) -> EventReceipt:
        """See Client.send."""
        trace = (traceparent, tracestate) if traceparent is not None else current_trace()
        return self._do(self._ask.send_many([Event(name, data, id or "", time)], trace))[0]

    def send_many(self, events: Iterable[Event | tuple[str, Any]]) -> builtins.list[EventReceipt]:
        """See Client.send_many."""
        return self._do(self._ask.send_many(events, current_trace()))

    def get(self, run_id: str, steps: bool = False, *, outputs: bool = False) -> Run:
        """See Client.get."""
        return self._do(self._ask.get(run_id, steps, outputs))

    def steps(self, run_id: str, *, outputs: bool = False) -> Iterator[Step]:
        """See Client.steps."""
        pages, more = StepPages(run_id, outputs), True
        while more:
            page, more = self._do(pages.next())
            yield from page

    def list(
        self,
        *,
        app: str = "",
        function: str = "",
        states: Iterable[RunState | str] = (),
        event_id: str = "",
        parent_run_id: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[Run]:
        """See Client.list."""
        pages = RunPages(app, function, states, event_id, parent_run_id, created_after, created_before)
        more = True
        while more:
            page, more = self._do(pages.next())
            yield from page

    def watch(self, run_id: str) -> Iterator[RunUpdate]:
        """See Client.watch."""
        call, address = watch_call(run_id), self._addresses.current
        self._check_process()
        forks.opened(for_streams=True)
        stream = self._method(self._open(address), call, "unary_stream")(call.request, metadata=self._metadata)
        try:
            for message in stream:
                yield records.run_update(message)
        except grpc.RpcError as error:
            mapped, _ = executor_error(error, address)
            self._leave(address, mapped, call)
            raise self._explained(mapped, address) from None
        finally:
            stream.cancel()

    def wait(self, run_id: str, timeout: float | timedelta | None = None) -> Run:
        """See Client.wait."""
        return self._do(self._ask.wait(run_id), timeout)

    @overload
    def result(self, run_id: str, timeout: float | timedelta | None = None, *, output_type: type[T]) -> T: ...
    @overload
    def result(self, run_id: str, timeout: float | timedelta | None = None, *, output_type: Any = None) -> Any: ...
    def result(self, run_id: str, timeout: float | timedelta | None = None, *, output_type: Any = None) -> Any:
        """See Client.result."""
        return self._do(self._ask.result(run_id, output_type), timeout)

    def cancel(self, run_id: str, reason: str = "") -> Run:
        """See Client.cancel."""
        return self._do(self._ask.cancel(run_id, reason))

    def why(self, run_id: str) -> builtins.list[Cause]:
        """See Client.why."""
        return self._do(self._ask.why(run_id))

    def workers(self, *, app: str = "") -> builtins.list[WorkerInfo]:
        """See Client.workers."""
        return self._do(self._ask.workers(app))

    def functions(self, *, app: str = "") -> builtins.list[FunctionInfo]:
        """See Client.functions."""
        return self._do(self._ask.functions(app))

    def status(self) -> ExecutorStatus:
        """See Client.status."""
        return self._do(self._ask.status())

    def close(self) -> None:
        """See Client.close."""
        if self._born != forks.generation:  # the lock may be held, by a thread that this process has not
            self._lock = threading.Lock()
        with self._lock:
            self._closed = True
            channels = self._take_channels()
        for channel in channels.values():
            channel.close()

    def __enter__(self) -> Self:
        self._open(self._addresses.current)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # How it works inside.

    def _explained(self, error: ExecutorError, address: str) -> ExecutorError:
        return unreachable(error, address, self._security)

    def _open(self, address: str) -> grpc.Channel:
        self._check_process()
        with self._lock:
            if self._closed:
                raise StepwireError("this client is closed: make a new one")
            if address not in self._channels:
                self._channels[address] = open_channel(address, self._security)
            channel: grpc.Channel = self._channels[address]
            return channel

    def _do(self, operation: Operation[T], timeout: float | timedelta | None = None) -> T:
        try:
            call = next(operation)
            while True:
                try:
                    answer = self._call(call, timeout)
                except ExecutorError as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    def _call(self, call: Call, timeout: float | timedelta | None) -> Message:
        patience = self._patience(call, timeout, clocks.monotonic)
        while True:
            address = self._addresses.current
            try:
                method, deadline = self._method(self._open(address), call), patience.deadline()
                forks.calling.add(threading.get_ident())
                answer: Message = method(call.request, timeout=deadline, metadata=self._metadata)
                return answer
            except grpc.RpcError as error:
                mapped, wanted = executor_error(error, address)
                self._leave(address, mapped, call)
                told = self._is_to_be_told(patience, mapped)
                if told:
                    mapped = self._explained(mapped, address)
                try:
                    delay = patience.delay_after(mapped, wanted)
                except ExecutorError as final:
                    raise self._explained(final, address) from None
                if told:
                    self._tell(call, mapped)
            finally:
                forks.calling.discard(threading.get_ident())
            clocks.sleep(delay)
