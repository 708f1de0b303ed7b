"""An executor that answers as each test tells it to, over a real gRPC server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from stepwire.testing.ports import HeldPort
from stepwire_proto.v1 import admin_pb2_grpc, event_pb2, event_pb2_grpc, run_pb2, run_pb2_grpc

Answer = Callable[[Any, Any], Any]


class Executor(
    event_pb2_grpc.EventServiceServicer, run_pb2_grpc.RunServiceServicer, admin_pb2_grpc.AdminServiceServicer
):
    """Gives each method's answers in turn, the last one for ever; an answer is a message or a function."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.requests: list[Any] = []
        self.times: list[float] = []
        self.streams = 0
        """How many streams of WaitRuns were opened."""
        self.waits: list[run_pb2.WaitRunsRequest] = []
        """What came on them; each run is a request of WaitRun, too."""
        self._held = HeldPort()
        self.port = self._held.number
        self._came = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)]
        )
        event_pb2_grpc.add_EventServiceServicer_to_server(self, self._server)
        run_pb2_grpc.add_RunServiceServicer_to_server(self, self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def script(self, method: str, *answers: Any) -> None:
        self.answers[method] = list(answers)

    async def asked(self, count: int) -> None:
        """Return when so many requests have come."""
        while len(self.requests) < count:
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), 20)

    async def _answer(self, method: str, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self._came.set()
        self.times.append(time.monotonic())
        waiting = self.answers[method]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if callable(answer):
            answer = answer(request, context)
        return await answer if isinstance(answer, Awaitable) else answer

    async def SendEvents(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("SendEvents", request, context)

    async def GetRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetRun", request, context)

    async def ListRuns(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListRuns", request, context)

    async def WatchRun(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        for each in await self._answer("WatchRun", request, context):
            yield await each if isinstance(each, Awaitable) else each

    async def WaitRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("WaitRun", request, context)

    async def WaitRuns(self, requests: Any, context: Any) -> None:  # noqa: N802
        """Answer for each run what the script of WaitRun says."""
        tasks: dict[str, asyncio.Task[None]] = {}
        writing = asyncio.Lock()
        self.streams += 1

        async def answer(run_id: str) -> None:
            end = run_pb2.RunEnd(run_id=run_id)
            try:
                response = await self._answer("WaitRun", run_pb2.WaitRunRequest(run_id=run_id), Refusing())
                end.run.CopyFrom(response.run)
            except RefusedError as refused:
                end.error.code, end.error.message = refused.args
            async with writing:
                await context.write(run_pb2.WaitRunsResponse(ends=[end]))

        try:
            async for request in requests:
                self.waits.append(request)
                for run_id in request.forgotten_run_ids:
                    tasks[run_id].cancel()
                for run_id in request.run_ids:
                    tasks[run_id] = asyncio.create_task(answer(run_id))
        finally:
            for task in tasks.values():
                task.cancel()

    async def CancelRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("CancelRun", request, context)

    async def ExplainRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ExplainRun", request, context)

    async def ListWorkers(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListWorkers", request, context)

    async def ListFunctions(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("ListFunctions", request, context)

    async def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._answer("GetStatus", request, context)


class RefusedError(Exception):
    """A wait's code and message."""


class Refusing:
    """The context of a wait that is one of many: what ends it does not end their stream."""

    async def abort(self, code: grpc.StatusCode, message: str, _: Any = ()) -> None:
        """Refuse the wait."""
        raise RefusedError(code.value[0], message)


def refuse(code: grpc.StatusCode, message: str, *details: Any) -> Answer:
    """Give an answer that is an error."""

    async def answer(_: Any, context: Any) -> Any:
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            status.details.add().Pack(detail)
        packed = rpc_status.to_status(status)
        await context.abort(code, message, packed.trailing_metadata if details else ())

    return answer


def receipts(request: event_pb2.SendEventsRequest, _: Any) -> event_pb2.SendEventsResponse:
    """Answer each event with a receipt of one run."""
    return event_pb2.SendEventsResponse(
        receipts=[event_pb2.EventReceipt(event_id=each.id, run_ids=[f"run-of-{each.id}"]) for each in request.events]
    )
