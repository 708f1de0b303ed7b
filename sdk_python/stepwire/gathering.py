"""Calls of one client that go over the wire together: many sends in one call, many waits over one stream.

They are gathered by turns of the event loop, so that nothing waits for company. What fails is grpc.aio's AioRpcError,
as if each had been a call of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import grpc

from stepwire_proto.v1 import event_pb2, run_pb2

EVENTS_TOGETHER = 1_000
BYTES_TOGETHER = 1 << 20
"""What sends are gathered up to; one alone may be larger."""
RUNS_TOGETHER = 10_000
"""Runs that one message asks for, at most."""
IDLE_SECONDS = 30.0
"""A stream that nobody has needed for so long is ended; it may last twice as long."""
BLAMING = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
}
"""Codes that blame an event: the other sends of the call are not to suffer for it."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}

SendEvents = Callable[[event_pb2.SendEventsRequest, float | None], Awaitable[event_pb2.SendEventsResponse]]


def status(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    """Make an error of a call."""
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, nothing, details)


class Gathered:
    """The sends and waits of a client over one channel."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Any) -> None:
        send: Any = channel.unary_unary(
            "/stepwire.v1.EventService/SendEvents",
            request_serializer=event_pb2.SendEventsRequest.SerializeToString,
            response_deserializer=event_pb2.SendEventsResponse.FromString,
        )
        wait: Any = channel.stream_stream(
            "/stepwire.v1.RunService/WaitRuns",
            request_serializer=run_pb2.WaitRunsRequest.SerializeToString,
            response_deserializer=run_pb2.WaitRunsResponse.FromString,
        )
        self.sends = Sends(lambda request, seconds: send(request, timeout=seconds, metadata=metadata))
        self.waits = Waits(lambda requests: wait(requests, metadata=metadata))

    def close(self) -> None:
        """Cancel what is under way."""
        self.sends.close()
        self.waits.close()


class Send(NamedTuple):
    """A send that is to go out. `seconds` is its deadline, None for none."""

    request: event_pb2.SendEventsRequest
    seconds: float | None
    answer: asyncio.Future[event_pb2.SendEventsResponse]


class Sends:
    """Makes one SendEvents of those that begin in one turn of the loop. `call` makes it."""

    def __init__(self, call: SendEvents) -> None:
        self._call = call
        self._gathered: list[Send] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, request: event_pb2.SendEventsRequest, seconds: float | None) -> event_pb2.SendEventsResponse:
        """Send events, perhaps with others'."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[event_pb2.SendEventsResponse] = loop.create_future()
        if not self._gathered:
            loop.call_soon(self._go)
        self._gathered.append(Send(request, seconds, answer))
        return await answer

    def close(self) -> None:
        """Cancel all."""
        for task in self._tasks:
            task.cancel()

    def _go(self) -> None:
        gathered, self._gathered = self._gathered, []
        together: list[Send] = []
        events = size = 0
        for each in gathered:
            more, bytes_ = len(each.request.events), each.request.ByteSize()
            if together and (events + more > EVENTS_TOGETHER or size + bytes_ > BYTES_TOGETHER):
                self._begin(together)
                together, events, size = [], 0, 0
            together.append(each)
            events, size = events + more, size + bytes_
        self._begin(together)

    def _begin(self, sends: Sequence[Send]) -> None:
        task = asyncio.get_running_loop().create_task(self._make(sends))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, sends: Sequence[Send]) -> None:
        """Make a call; if that fails by the fault of one event, make one for each send."""
        request, seconds, _ = sends[0]
        if len(sends) > 1:
            request = event_pb2.SendEventsRequest(events=[event for each in sends for event in each.request.events])
            seconds = min((each.seconds for each in sends if each.seconds is not None), default=None)
        try:
            response = await self._call(request, seconds)
        except asyncio.CancelledError:
            for each in sends:
                each.answer.cancel()
            raise
        except Exception as error:
            blames = len(sends) > 1 and isinstance(error, grpc.aio.AioRpcError) and error.code() in BLAMING
            for each in sends:
                if blames:
                    self._begin([each])
                else:
                    _fail(each.answer, error)
        else:
            at = 0
            for each in sends:
                count = len(each.request.events)
                if not each.answer.done():
                    receipts = response.receipts[at : at + count]
                    each.answer.set_result(event_pb2.SendEventsResponse(receipts=receipts))
                at += count


class Waits:
    """Waits for runs over one stream of WaitRuns, which lasts for as long as it is needed now and then.

    `open_stream` is given what is to be asked, and opens it.
    """

    def __init__(self, open_stream: Callable[[AsyncIterator[run_pb2.WaitRunsRequest]], Any]) -> None:
        self._open = open_stream
        self._waiting: dict[str, list[asyncio.Future[run_pb2.Run]]] = {}
        self._asked: dict[str, None] = {}
        self._forgotten: dict[str, None] = {}
        """What the executor has still to be told."""
        self._wake = asyncio.Event()
        """Of the present stream: each has its own."""
        self._needed = False
        """Whether somebody has begun to wait lately."""
        self._stream: asyncio.Task[None] | None = None

    async def wait(self, run_id: str, seconds: float | None) -> run_pb2.WaitRunResponse:
        """Wait until a run has ended. It fails with DEADLINE_EXCEEDED after so many seconds, None for never."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[run_pb2.Run] = loop.create_future()
        waiting = self._waiting.get(run_id)
        if waiting is None:
            waiting = self._waiting[run_id] = []
            self._tell(run_id, self._asked, self._forgotten)
        waiting.append(answer)
        self._needed = True
        if self._stream is None:
            self._stream = loop.create_task(self._serve())
        alarm = None if seconds is None else loop.call_later(seconds, _fail, answer, OVERDUE)
        try:
            return run_pb2.WaitRunResponse(run=await answer)
        finally:
            if alarm is not None:
                alarm.cancel()
            waiting.remove(answer)
            if not waiting and self._waiting.get(run_id) is waiting:
                del self._waiting[run_id]
                self._tell(run_id, self._forgotten, self._asked)

    def close(self) -> None:
        """End the stream and cancel all."""
        if self._stream is not None:
            self._stream.cancel()

    def _tell(self, run_id: str, what: dict[str, None], opposite: dict[str, None]) -> None:
        if run_id in opposite:
            del opposite[run_id]
        else:
            what[run_id] = None
            self._wake.set()

    async def _requests(self, wake: asyncio.Event) -> AsyncIterator[run_pb2.WaitRunsRequest]:
        while True:
            await wake.wait()
            if self._wake is not wake:  # the stream has ended: gRPC does not always end what it reads from
                return
            wake.clear()
            asked, forgotten = list(self._asked), list(self._forgotten)
            self._asked.clear()
            self._forgotten.clear()
            for at in range(0, max(len(asked), len(forgotten)), RUNS_TOGETHER):
                end = at + RUNS_TOGETHER
                yield run_pb2.WaitRunsRequest(run_ids=asked[at:end], forgotten_run_ids=forgotten[at:end])

    async def _serve(self) -> None:
        """Hold the stream; when it ends, whoever still waits is told why."""
        wake, loop = self._wake, asyncio.get_running_loop()
        alarm = loop.call_later(IDLE_SECONDS, self._rest, wake)
        error: Exception | None = status(grpc.StatusCode.UNAVAILABLE, "the executor has ended the stream")
        try:
            call = self._open(self._requests(wake))
            try:
                async for response in call:
                    for end in response.ends:
                        self._answer(end)
            finally:
                call.cancel()
        except asyncio.CancelledError:
            error = None
            raise
        except Exception as raised:
            error = raised
        finally:
            alarm.cancel()
            if self._wake is wake:
                self._part()
                waiting, self._waiting = self._waiting, {}
                for answer in chain.from_iterable(waiting.values()):
                    if error is not None:
                        _fail(answer, error)
                    else:
                        answer.cancel()

    def _rest(self, wake: asyncio.Event) -> None:
        """End the stream if it is of no use; whoever waits next opens another."""
        if self._wake is not wake:
            return
        if self._waiting or self._needed:
            self._needed = False
            asyncio.get_running_loop().call_later(IDLE_SECONDS, self._rest, wake)
        else:
            self._part()

    def _part(self) -> None:
        """Have nothing more to do with the stream; nothing more is asked on it."""
        wake, self._wake, self._stream = self._wake, asyncio.Event(), None
        wake.set()
        self._asked.clear()
        self._forgotten.clear()

    def _answer(self, end: run_pb2.RunEnd) -> None:
        for answer in self._waiting.pop(end.run_id, ()):
            if end.WhichOneof("kind") == "error":
                code = _CODES.get(end.error.code, grpc.StatusCode.UNKNOWN)
                _fail(answer, status(code, end.error.message))
            elif not answer.done():
                answer.set_result(end.run)


OVERDUE = status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    """End a call with an error: a status of its own, since others may be given the same."""
    if answer.done():
        return
    if isinstance(error, grpc.aio.AioRpcError):
        metadata = error.initial_metadata(), error.trailing_metadata()
        error = grpc.aio.AioRpcError(error.code(), *metadata, error.details())
    answer.set_exception(error)
