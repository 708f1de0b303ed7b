"""Exporting the spans of user code, if the standard OTEL_* variables ask for it and nobody else has seen to it."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Mapping

from opentelemetry import trace

log = logging.getLogger("stepwire.worker")

SERVICE = "stepwire-worker"


def set_up(environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Set a tracer provider up; gives what flushes it. Does nothing where a provider is set or none is asked for."""
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    asked = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(environment.get, endpoints)) else "none")
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if asked != "otlp" or disabled or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return lambda: None
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        log.warning('OTEL_* variables ask for traces, but the SDK is missing: pip install "stepwire[executor]"')
        return lambda: None
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

    exporter: SpanExporter
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        exporter = HttpExporter()
    else:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        exporter = GrpcExporter()
    name = {} if "OTEL_SERVICE_NAME" in environment else {"service.name": SERVICE}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider.shutdown
