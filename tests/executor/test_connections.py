"""Connections that nobody uses: how many there may be, and that they give way."""

from __future__ import annotations

import socket

import grpc
import pytest

from stepwire.testing import ExecutorProcess
from stepwire_proto.v1 import run_pb2, run_pb2_grpc
from tests.executor.peer import until

MOST = 5


def answers(address: str) -> bool:
    try:
        list_runs(address)
    except grpc.RpcError:
        return False
    return True


def list_runs(address: str) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        run_pb2_grpc.RunServiceStub(channel).ListRuns(run_pb2.ListRunsRequest(), timeout=5)


def test_connections_beyond_the_limit_are_closed_until_others_go() -> None:
    with ExecutorProcess(settings={"max-connections": MOST}) as executor:
        host, port = executor.address.rsplit(":", 1)
        silent = [socket.create_connection((host, int(port))) for _ in range(MOST)]
        for each in silent:
            each.settimeout(20)
            assert each.recv(1), "the executor has sent its settings"
        with socket.create_connection((host, int(port))) as beyond:
            beyond.settimeout(20)
            assert beyond.recv(1) == b""
        with pytest.raises(grpc.RpcError) as refused:
            list_runs(executor.address)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        for each in silent:
            each.close()
        until(lambda: answers(executor.address))
