"""Spans from observations: one for each run and closed attempt, in one trace over all lives of the executor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from stepwire_core import commands as c
from stepwire_core import inputs as i
from stepwire_core import trace
from stepwire_core.model import Event, Failure, StepKey, StepKind
from stepwire_executor.telemetry import SPANS_AT_ONCE, Telemetry, batching, exporter_from
from tests.core.world import World, closure, of_type

SENDER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans_of(world: World) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    telemetry = Telemetry(SimpleSpanProcessor(exporter))
    telemetry.observe(world.observations)
    telemetry.shutdown()
    return list(exporter.get_finished_spans())


def sent(world: World, traceparent: str) -> str:
    event = Event("e", "go", b"", world.wall, traceparent, digest="d")
    (answer,) = of_type(world.tell(i.EventsSent([event], "r", {})), c.Answer)
    return str(answer.value[0].run_ids[0])


def finish(world: World, run_id: str) -> None:
    loaded = world.state.runs[run_id]
    assert loaded.lead is not None
    world.tell(i.RunFinished(loaded.lead.session_id, run_id, loaded.lead.fence, b"", 0))


def test_attempts_nest_under_their_run_and_the_run_under_its_sender() -> None:
    world = World()
    world.worker("w1")
    run_id = sent(world, SENDER)
    (start,) = of_type(world.find(run_id, closure("charge")), c.StartAttempt)
    world.wall += 2.0
    world.tell(i.StepRun("w1", run_id, start.key, start.fence, b"", 0, 1.5))
    finish(world, run_id)
    attempt, run = spans_of(world)
    assert run.parent is not None
    assert f"{run.parent.span_id:016x}" == SENDER.split("-")[2]
    assert attempt.parent is not None
    assert attempt.parent.span_id == run.context.span_id
    assert {f"{span.context.trace_id:032x}" for span in (attempt, run)} == {SENDER.split("-")[1]}
    assert attempt.attributes is not None
    assert attempt.attributes["stepwire.step.id"] == "charge"
    assert attempt.attributes["stepwire.outcome"] == "succeeded"
    assert attempt.attributes["stepwire.queue_seconds"] == pytest.approx(0.5)
    assert attempt.start_time is not None
    assert attempt.end_time is not None
    assert attempt.end_time - attempt.start_time == pytest.approx(1.5e9)


def test_what_travels_with_an_attempt_is_the_context_of_its_span() -> None:
    world = World()
    world.worker("w1")
    run_id = sent(world, "")
    (start,) = of_type(world.find(run_id, closure("charge")), c.StartAttempt)
    telemetry = Telemetry(SimpleSpanProcessor(InMemorySpanExporter()))
    context = telemetry.attempt_traceparent(start.run, start.fence)
    telemetry.shutdown()
    world.succeed(start)
    (attempt,) = spans_of(world)
    assert trace.parse(context) == (f"{attempt.context.trace_id:032x}", f"{attempt.context.span_id:016x}", "01")


def test_each_try_has_a_span_of_its_own_and_a_failed_one_its_exception() -> None:
    world = World()
    world.worker("w1")
    run_id = sent(world, "")
    (start,) = of_type(world.find(run_id, closure("charge")), c.StartAttempt)
    world.fail(start, Failure("CardError", "declined", "a stack", retry_after=1.0))
    (again,) = of_type(world.wait(1.0), c.StartAttempt)
    world.succeed(again)
    failed, good = spans_of(world)
    assert failed.context.span_id != good.context.span_id
    assert failed.status.status_code is StatusCode.ERROR
    assert good.status.status_code is StatusCode.UNSET
    (event,) = failed.events
    assert event.attributes is not None
    assert dict(event.attributes) == {
        "exception.type": "CardError",
        "exception.message": "declined",
        "exception.stacktrace": "a stack",
    }


def test_a_fan_out_links_to_the_attempt_whose_result_released_it() -> None:
    world = World()
    world.worker("w1")
    run_id = sent(world, "")
    (first,) = of_type(world.find(run_id, closure("split")), c.StartAttempt)
    world.succeed(first)
    for start in of_type(world.find(run_id, closure("part"), closure("part", 1)), c.StartAttempt):
        world.succeed(start)
    split, *parts = spans_of(world)
    assert [[link.context.span_id for link in part.links] for part in parts] == [[split.context.span_id]] * 2


def test_links_point_to_spans_that_exist_whatever_became_of_the_step_before() -> None:
    """A failure for good, one by a timeout while it ran, one while it waited for a retry or for a slot."""
    world = World()
    world.worker("w1", slots=2)
    run_id = sent(world, "")
    found = (closure("fails"), closure("slow", step_timeout=1.0), closure("waits", step_timeout=2.0))
    for start in of_type(world.find(run_id, *found), c.StartAttempt):
        if start.key.id == "fails":
            world.fail(start, Failure("CardError", "declined", "", retryable=False))
            for later in of_type(world.find(run_id, closure("after fails")), c.StartAttempt):
                world.fail(later, Failure("BusyError", "later", "", retry_after=60.0))
    world.wait(1.0)
    world.wait(2.0)
    for number, result in enumerate(("slow", "waits")):
        for start in of_type(world.find(run_id, closure(f"after {result}", number)), c.StartAttempt):
            world.succeed(start)
    spans = spans_of(world)
    made = {span.context.span_id for span in spans}
    links = [link.context.span_id for span in spans for link in span.links]
    assert links
    assert set(links) <= made


def test_spans_are_named_by_function_and_kind_as_ids_may_hold_data() -> None:
    world = World()
    world.worker("w1")
    run_id = sent(world, "")
    ids = [f"charge user {number}" for number in range(3)]
    for start in of_type(world.find(run_id, *map(closure, ids)), c.StartAttempt):
        world.succeed(start)
    finish(world, run_id)
    *attempts, run = spans_of(world)
    assert {span.name for span in attempts} == {"f closure"}
    assert [(span.attributes or {})["stepwire.step.id"] for span in attempts] == ids
    assert run.name == "f"


def test_a_run_has_one_trace_over_restarts() -> None:
    world = World()
    world.worker("w1")
    run_id = sent(world, "")
    starts = of_type(world.find(run_id, closure("a"), closure("b")), c.StartAttempt)
    world.succeed(starts[0])
    world.crash()
    (again,) = of_type(world.worker("w2"), c.StartAttempt)
    world.succeed(again)
    finish(world, run_id)
    before, after, run = spans_of(world)
    assert before.context.trace_id == after.context.trace_id == run.context.trace_id
    assert before.parent is not None
    assert after.parent is not None
    assert before.parent.span_id == after.parent.span_id == run.context.span_id
    assert before.context.span_id != after.context.span_id


def test_a_run_that_a_step_invoked_nests_under_that_step() -> None:
    world = World()
    world.worker("w1")
    run_id = sent(world, "")
    world.find(run_id, i.StepPlanned(StepKey("call", 0), StepKind.INVOKE, target="/f"))
    (child_id,) = [each for each in world.stored if each != run_id]
    finish(world, child_id)
    child, call = spans_of(world)
    assert child.parent is not None
    assert (call.name, child.parent.span_id) == ("f invoke", call.context.span_id)


def test_a_sender_that_does_not_sample_gets_no_spans() -> None:
    world = World()
    world.worker("w1")
    finish(world, sent(world, SENDER.removesuffix("01") + "00"))
    assert spans_of(world) == []


class Sizes(SpanExporter):
    """Notes how many spans it is given at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.sizes.append(len(spans))
        return SpanExportResult.SUCCESS


def observe(telemetry: Telemetry, count: int) -> None:
    world = World()
    world.worker("w1")
    world.succeed(*of_type(world.find(sent(world, ""), closure("charge")), c.StartAttempt))
    telemetry.observe(of_type(world.observations, c.AttemptClosed) * count)


def test_the_spans_of_a_wide_fan_out_gather_and_none_is_lost() -> None:
    exporter = Sizes()
    telemetry = Telemetry(batching(exporter, {}))
    observe(telemetry, SPANS_AT_ONCE - 1)
    time.sleep(0.5)
    assert exporter.sizes == []
    observe(telemetry, 6_000)
    telemetry.shutdown()
    assert sum(exporter.sizes) == SPANS_AT_ONCE - 1 + 6_000
    assert max(exporter.sizes) == SPANS_AT_ONCE


def test_the_standard_variables_say_how_spans_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100", "OTEL_BSP_MAX_QUEUE_SIZE": "3000"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    exporter = Sizes()
    telemetry = Telemetry(batching(exporter, environment))
    observe(telemetry, 250)
    telemetry.shutdown()
    assert max(exporter.sizes) == 100


def test_without_an_exporter_nothing_is_done() -> None:
    world = World()
    world.worker("w1")
    run_id = sent(world, "")
    telemetry = Telemetry.from_environment({})
    assert not telemetry.on
    assert telemetry.run_traceparent(world.run(run_id)) == ""
    telemetry.observe(world.observations)
    telemetry.shutdown()


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}, "opentelemetry.exporter.otlp.proto.grpc"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "opentelemetry.exporter.otlp.proto.grpc"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "opentelemetry.exporter.otlp.proto.http",
        ),
        ({"OTEL_TRACES_EXPORTER": "console"}, "opentelemetry.sdk"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, None),
    ],
)
def test_standard_variables_choose_the_exporter(environment: dict[str, str], name: str | None) -> None:
    exporter = exporter_from(environment)
    assert type(exporter).__module__.startswith(name) if name else exporter is None, exporter
    if exporter is not None:
        exporter.shutdown()


def test_the_ids_do_not_depend_on_who_asks() -> None:
    world = World()
    run_id = sent(world, "")
    run = world.run(run_id)
    copy = replace(run)
    assert trace.attempt_traceparent(run, 7) == trace.attempt_traceparent(copy, 7)
    assert trace.parse("00-" + "0" * 32 + "-b7ad6b7169203331-01") is None
