"""Spans of a real run, of the executor's and of the user's making, at a real OTLP receiver."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import stepwire
from stepwire.testing import ExecutorProcess, WorkerProcess
from tests.end_to_end.otlp import OtlpReceiver

ROOT = Path(__file__).parents[2]
SENDER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def step_of(span: Span) -> str:
    return next((each.value.string_value for each in span.attributes if each.key == "stepwire.step.id"), "")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_run_is_one_trace_with_the_users_spans_in_it(protocol: str) -> None:
    with OtlpReceiver(protocol) as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with (
            ExecutorProcess(environment=environment) as executor,
            WorkerProcess("tests.end_to_end.apps.traced:app", executor, path=ROOT, environment=environment),
            stepwire.SyncClient(executor.address) as client,
        ):
            while not client.functions():
                time.sleep(0.05)
            run_id = client.send("traced", {}, traceparent=SENDER).run_ids[0]
            assert client.result(run_id, timeout=30) == 6
        spans = {span.span_id: span for span in receiver.spans}
        services = receiver.services
    assert services == {"stepwire-executor", "stepwire-worker"}
    assert {span.trace_id.hex() for span in spans.values()} == {SENDER.split("-")[1]}
    (run,) = [span for span in spans.values() if span.name == "traced"]
    by_name = {name: [span for span in spans.values() if step_of(span) == name] for name in ("first", "rest")}
    assert run.parent_span_id.hex() == SENDER.split("-")[2]
    assert len(by_name["first"]) == 1
    assert len(by_name["rest"]) == 4, "three steps, and one of them twice"
    assert all(span.parent_span_id == run.span_id for span in by_name["first"] + by_name["rest"])
    users = [span for span in spans.values() if span.name == "inside the step"]
    attempts = {span.span_id for span in by_name["first"] + by_name["rest"]}
    assert {span.parent_span_id for span in users} == attempts
    failed = [span for span in by_name["rest"] if span.status.code == 2]
    assert [event.name for span in failed for event in span.events] == ["exception"]
    assert all(span.links[0].span_id == by_name["first"][0].span_id for span in by_name["rest"])
