"""Spans for runs and step attempts, made from the observations of decisions. The logic itself never mentions a tracer.

Ids derive from the run's own (`stepwire_core.trace`), so that every life of the executor adds to the same trace.
Names of attributes follow https://opentelemetry.io/docs/specs/semconv/general/naming/.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from stepwire_core import trace
from stepwire_core.commands import AttemptClosed, Observation, RunEnded
from stepwire_core.model import Failure, Run, RunState

log = logging.getLogger("stepwire.executor")

MOST_QUEUED = 100_000
"""Observations that wait to become spans; more are dropped, and counted."""
MOST_SPANS, SPANS_AT_ONCE = 50_000, 1_500
"""Spans that wait to be exported, and those in one export: of 0.5 to 2.5 kB each, and receivers take 4 MiB at once."""
FLUSH_SECONDS = 5.0
COMPLAINT_SECONDS = 60.0
SERVICE = "stepwire-executor"
_SCOPE = InstrumentationScope("stepwire")


class Telemetry:
    """Makes spans in a thread of its own; without a processor it does nothing, at no cost."""

    def __init__(self, processor: SpanProcessor | None = None, resource: Resource | None = None) -> None:
        self._processor = processor
        self._resource = resource or Resource.create({"service.name": SERVICE})
        self._queue: queue.SimpleQueue[AttemptClosed | RunEnded | None] = queue.SimpleQueue()
        self._dropped = 0
        self._complained = 0.0
        self._thread: threading.Thread | None = None
        if processor is not None:
            self._thread = threading.Thread(target=self._work, name="stepwire-telemetry", daemon=True)
            self._thread.start()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Telemetry:
        """Set up what the standard OTEL_* variables ask for; off unless they name an exporter or an endpoint."""
        exporter = exporter_from(environment)
        if exporter is None:
            return cls()
        resource = Resource.create({} if "OTEL_SERVICE_NAME" in environment else {"service.name": SERVICE})
        return cls(batching(exporter, environment), resource)

    @property
    def on(self) -> bool:
        """Whether spans are made."""
        return self._processor is not None

    def observe(self, observations: Sequence[Observation]) -> None:
        """Take observations whose writes are durable; costs next to nothing, and never raises."""
        if self._processor is None:
            return
        if self._queue.qsize() > MOST_QUEUED:
            self._dropped += len(observations)
            if time.monotonic() - self._complained > COMPLAINT_SECONDS:
                self._complained = time.monotonic()
                log.warning("%d spans were dropped so far: the exporter does not keep up", self._dropped)
            return
        for observation in observations:
            if isinstance(observation, AttemptClosed | RunEnded):
                self._queue.put(observation)

    def run_traceparent(self, run: Run) -> str:
        """Give the trace context of a run's span; "" while tracing is off."""
        return trace.run_traceparent(run) if self._processor is not None else ""

    def attempt_traceparent(self, run: Run, fence: int) -> str:
        """Give the trace context of an attempt's span; "" while tracing is off."""
        return trace.attempt_traceparent(run, fence) if self._processor is not None else ""

    def shutdown(self) -> None:
        """Export what is left, in bounded time."""
        if self._thread is not None and self._processor is not None:
            self._queue.put(None)
            self._thread.join(FLUSH_SECONDS)
            self._processor.force_flush(int(FLUSH_SECONDS * 1000))
            self._processor.shutdown()

    def _work(self) -> None:
        assert self._processor is not None
        while (observation := self._queue.get()) is not None:
            try:
                span = self._span(observation)
                if span is not None:
                    self._processor.on_end(span)
            except Exception:
                log.exception("a span could not be made")

    def _span(self, observation: AttemptClosed | RunEnded) -> ReadableSpan | None:
        if trace.flags(observation.run) not in ("01", "03"):
            return None
        if isinstance(observation, RunEnded):
            return self._run_span(observation.run)
        return self._attempt_span(observation)

    def _run_span(self, run: Run) -> ReadableSpan:
        sender = trace.parse(run.event.traceparent)
        attributes: dict[str, AttributeValue] = {
            "stepwire.run.id": run.id,
            "stepwire.run.state": run.state.name.lower(),
            "stepwire.run.attempt": run.attempt,
            "stepwire.run.steps": len(run.steps),
            "stepwire.app": run.app,
            "stepwire.function": run.function_id,
            "stepwire.event.id": run.event.id,
            "stepwire.event.name": run.event.name,
        }
        failure = run.failure if run.state is RunState.FAILED else None
        parent = _context(sender[0], sender[1], remote=True) if sender else None
        return self._readable(
            run.function_id,
            _context(trace.trace_id(run), trace.run_span_id(run)),
            parent,
            attributes,
            run.created_at,
            run.ended_at or run.created_at,
            failure,
            SpanKind.CONSUMER,
        )

    def _attempt_span(self, closed: AttemptClosed) -> ReadableSpan:
        run, step = closed.run, closed.step
        trace_id = trace.trace_id(run)
        attributes: dict[str, AttributeValue] = {
            "stepwire.run.id": run.id,
            "stepwire.app": run.app,
            "stepwire.function": run.function_id,
            "stepwire.step.id": step.key.id,
            "stepwire.step.index": step.key.index,
            "stepwire.step.kind": step.kind.name.lower(),
            "stepwire.attempt": closed.number,
            "stepwire.worker": closed.worker,
            "stepwire.outcome": closed.outcome,
            "stepwire.queue_seconds": closed.queued,
        }
        links = []
        if 0 < step.found_after <= len(run.journal):
            cause = run.journal[step.found_after - 1]
            if cause.fence:
                links.append(Link(_context(trace_id, trace.attempt_span_id(run, cause.fence))))
        return self._readable(
            # Not the step's id, which may hold data: backends group spans by name, and ids would be groups of one.
            f"{run.function_id} {step.kind.name.lower()}",
            _context(trace_id, trace.attempt_span_id(run, closed.fence)),
            _context(trace_id, trace.run_span_id(run)),
            attributes,
            closed.started_at,
            closed.ended_at,
            closed.failure,
            SpanKind.INTERNAL,
            links,
        )

    def _readable(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Mapping[str, AttributeValue],
        start: float,
        end: float,
        failure: Failure | None,
        kind: SpanKind,
        links: Sequence[Link] = (),
    ) -> ReadableSpan:
        events = [_exception(failure, end)] if failure is not None else []
        status = Status(StatusCode.ERROR, f"{failure.type}: {failure.message}") if failure else Status(StatusCode.UNSET)
        return ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            events=events,
            links=links,
            kind=kind,
            status=status,
            start_time=int(start * 1e9),
            end_time=int(max(start, end) * 1e9),
            instrumentation_scope=_SCOPE,
        )


def batching(exporter: SpanExporter, environment: Mapping[str, str]) -> BatchSpanProcessor:
    """Let spans gather before they are encoded, which takes a third of what a step takes: what runs goes first.

    OpenTelemetry's own sizes, 2,048 and 512, would have a fan-out encoded while it runs, and lose spans unseen.
    """

    def unless_set(variable: str, value: int) -> int | None:
        return None if environment.get(variable) else value

    return BatchSpanProcessor(
        exporter,
        max_queue_size=unless_set("OTEL_BSP_MAX_QUEUE_SIZE", MOST_SPANS),
        max_export_batch_size=unless_set("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", SPANS_AT_ONCE),
    )


def exporter_from(environment: Mapping[str, str]) -> SpanExporter | None:
    """Choose the exporter that OTEL_* variables ask for; None means that tracing is off.

    See https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. Endpoints, headers and the
    like are read by the exporters themselves.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    asked = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(environment.get, endpoints)) else "none")
    if asked == "console":
        return ConsoleSpanExporter()
    if asked != "otlp":
        if asked != "none":
            log.warning("OTEL_TRACES_EXPORTER=%s is not known: use otlp, console or none; tracing is off", asked)
        return None
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter()
    if protocol not in (None, "", "grpc"):
        log.warning("OTEL_EXPORTER_OTLP_PROTOCOL=%s is not known: use grpc or http/protobuf; grpc is used", protocol)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter()


def _context(trace_id: str, span_id: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))


def _exception(failure: Failure, time_: float) -> Event:
    attributes = {
        "exception.type": failure.type,
        "exception.message": failure.message,
        "exception.stacktrace": failure.stack,
    }
    return Event("exception", attributes, int(time_ * 1e9))
