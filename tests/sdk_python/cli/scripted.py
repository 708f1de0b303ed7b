"""A real gRPC server that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from stepwire_proto.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    opcode_pb2,
    run_pb2,
    run_pb2_grpc,
    value_pb2,
)

START = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
RUN_ID = "01J8ZK3E5V2QW4T6Y8A0B1C2D3"
OTHER_RUN_ID = "01J8ZK3E5V2QW4T6Y8A0B1C2D4"

Answer = Callable[[Any, grpc.ServicerContext], Any]


def at(seconds: float) -> Timestamp:
    """Give the time so many seconds after START."""
    stamp = Timestamp()
    stamp.FromDatetime((START + timedelta(seconds=seconds)).replace(tzinfo=None))
    return stamp


def refuse(code: grpc.StatusCode, message: str, **fields: str) -> Answer:
    """Make an answer that is a gRPC error, with field violations."""

    def answer(_: Any, context: grpc.ServicerContext) -> Any:
        status = status_pb2.Status(code=code.value[0], message=message)
        if fields:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
                for name, text in fields.items()
            ]
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
        context.abort_with_status(rpc_status.to_status(status))

    return answer


class Scripted(
    event_pb2_grpc.EventServiceServicer, run_pb2_grpc.RunServiceServicer, admin_pb2_grpc.AdminServiceServicer
):
    """Answers each method with what `answers` holds for its name: a message, or a function of request and context."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[Any] = []
        self.address = ""
        self.released = threading.Event()

    def _answer(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        answer = self.answers.get(name)
        if answer is None:
            context.abort(grpc.StatusCode.INTERNAL, f"the test has no answer for {name}")
        return answer(request, context) if callable(answer) else answer

    def asked(self, kind: type[Any]) -> list[Any]:
        """Give the requests of a kind."""
        return [request for request in self.requests if isinstance(request, kind)]

    def SendEvents(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("SendEvents", request, context)

    def GetRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("GetRun", request, context)

    def ListRuns(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListRuns", request, context)

    def WatchRun(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        answer = self._answer("WatchRun", request, context)
        yield from answer

    def WaitRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("WaitRun", request, context)

    def CancelRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("CancelRun", request, context)

    def ExplainRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ExplainRun", request, context)

    def ListWorkers(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListWorkers", request, context)

    def ListFunctions(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("ListFunctions", request, context)

    def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer("GetStatus", request, context)


@contextmanager
def serving(address: str = "127.0.0.1:0") -> Iterator[Scripted]:
    """Serve on a free port of loopback."""
    scripted = Scripted()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    event_pb2_grpc.add_EventServiceServicer_to_server(scripted, server)
    run_pb2_grpc.add_RunServiceServicer_to_server(scripted, server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(scripted, server)
    scripted.address = f"127.0.0.1:{server.add_insecure_port(address)}"
    server.start()
    try:
        yield scripted
    finally:
        scripted.released.set()
        server.stop(None).wait()


def run_message(state: str = "SUCCEEDED", **fields: Any) -> run_pb2.Run:
    """Make a run."""
    ended = state in ("SUCCEEDED", "FAILED", "CANCELLED")
    values: dict[str, Any] = {
        "id": RUN_ID,
        "app": "demo",
        "function_id": "summarize-text",
        "state": run_pb2.RunState.Value(f"RUN_STATE_{state}"),
        "event": event_pb2.Event(id="event-1", name="demo/text.submitted", data=payload("null"), time=at(0)),
        "created_at": at(0),
        "started_at": at(0.01),
        "attempt": 1,
    }
    if ended:
        values["ended_at"] = at(2.5)
    if state == "SUCCEEDED":
        values["output"] = payload('{"chunks": 2, "summary": ["a", "b"]}')
    if state == "FAILED":
        values["failure"] = value_pb2.Failure(
            type="ValueError",
            message="no text",
            stack="Traceback …",
            cause=value_pb2.Failure(type="KeyError", message="'path'"),
        )
    return run_pb2.Run(**(values | fields))


def step_message(key: str, index: int = 0, state: str = "SUCCEEDED", **fields: Any) -> run_pb2.Step:
    """Make a step."""
    values: dict[str, Any] = {
        "key": value_pb2.StepKey(id=key, index=index),
        "kind": opcode_pb2.STEP_KIND_CLOSURE,
        "state": run_pb2.StepState.Value(f"STEP_STATE_{state}"),
        "number": index + 1,
        "attempt": 1,
        "worker": f"box-{index % 4}",
        "planned_at": at(0.1),
        "started_at": at(0.2),
    }
    if state in ("SUCCEEDED", "FAILED", "CANCELLED"):
        values["ended_at"] = at(1)
    return run_pb2.Step(**(values | fields))


def payload(json_text: str) -> value_pb2.Payload:
    """Make a JSON payload."""
    return value_pb2.Payload(data=json_text.encode(), encoding="json")


def function_message(function_id: str, *events: str, workers: int = 1) -> admin_pb2.Function:
    """Make a registered function."""
    from stepwire_proto.v1 import worker_pb2

    triggers = [worker_pb2.Trigger(event_name=event) for event in events]
    options = worker_pb2.FunctionOptions(id=function_id, triggers=triggers)
    return admin_pb2.Function(app="demo", options=options, app_version="1", workers=workers, registered_at=at(0))
