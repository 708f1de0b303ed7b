"""A real OTLP receiver over gRPC in a process of its own, which counts the spans that it is sent."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Service(trace_service_pb2_grpc.TraceServiceServicer):
    """Counts."""

    def __init__(self, spans: Any) -> None:
        self._spans = spans

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's word
        """Take spans."""
        count = sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        with self._spans.get_lock():
            self._spans.value += count
        return trace_service_pb2.ExportTraceServiceResponse()


def serve(port: Connection, spans: Any) -> None:
    """Be the other process: listen on a free port, which is told."""
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(spans), server)  # type: ignore[no-untyped-call]
    port.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where spans go: `endpoint` is for OTEL_EXPORTER_OTLP_ENDPOINT."""

    endpoint: str
    _spans: Any

    @property
    def spans(self) -> int:
        """How many have come."""
        return int(self._spans.value)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Start a receiver."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    spans = context.Value("L", 0)
    process = context.Process(target=serve, args=(theirs, spans), daemon=True)
    process.start()
    try:
        yield Receiver(f"http://127.0.0.1:{ours.recv()}", spans)
    finally:
        process.kill()
        process.join()
