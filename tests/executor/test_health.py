"""The health service, which takes no token: it tells how the executor is, and keeps nothing of what strangers send."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.taken import resident_bytes
from stepwire.testing import ExecutorProcess
from stepwire_executor.services.health import MOST_WATCHES
from tests.executor.peer import refused, until

STATES = health_pb2.HealthCheckResponse
LARGE = 15 << 20
CALLS = 40


@pytest.fixture
def executor() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process:
        yield process


def watching(channel: grpc.Channel, service: str = "") -> grpc.Call:
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))


def test_every_service_serves_and_a_watch_tells_when_it_does_no_more(
    executor: ExecutorProcess, channel: grpc.Channel
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "stepwire.v1.WorkerService", "stepwire.v1.RunService"):
        request = health_pb2.HealthCheckRequest(service=service)
        until(lambda request=request: health.Check(request).status == STATES.SERVING)
    watch = watching(channel, "stepwire.v1.EventService")
    assert next(watch).status == STATES.SERVING
    executor.signal(signal.SIGTERM)
    assert executor.wait(20) == 0


def test_a_list_tells_of_every_service(executor: ExecutorProcess, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    until(lambda: health.Check(health_pb2.HealthCheckRequest()).status == STATES.SERVING)
    statuses = health.List(health_pb2.HealthListRequest()).statuses
    assert {"", "stepwire.v1.WorkerService", "stepwire.v1.RunService"} <= statuses.keys()
    assert {each.status for each in statuses.values()} == {STATES.SERVING}
    assert "Traceback" not in executor.log


def test_names_that_no_service_has_are_refused_and_not_kept(executor: ExecutorProcess, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    before = resident_bytes(executor.pid)
    for number in range(CALLS):
        request = health_pb2.HealthCheckRequest(service=f"{number}" + "x" * LARGE)
        for call in (health.Check, lambda request: next(health.Watch(request))):
            code, message, _ = refused(lambda call=call, request=request: call(request))
            assert code is grpc.StatusCode.NOT_FOUND
            assert "it has stepwire.v1.WorkerService" in message
            assert len(message) < 500
    assert resident_bytes(executor.pid) < before + CALLS * LARGE // 4
    assert health.Check(health_pb2.HealthCheckRequest()).status == STATES.SERVING


def test_watches_are_bounded_and_their_places_are_free_again(channel: grpc.Channel) -> None:
    watches = [watching(channel) for _ in range(MOST_WATCHES)]
    assert {next(watch).status for watch in watches} == {STATES.SERVING}
    code, message, _ = refused(lambda: next(watching(channel)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "use Check" in message
    for watch in watches:
        watch.cancel()

    def free() -> bool:
        try:
            return next(watching(channel)).status == STATES.SERVING
        except grpc.RpcError:
            return False

    until(free)
