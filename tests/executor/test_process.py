"""The executor as a process: exit codes, signals, health, and what it says when it can't start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

import stepwire
from stepwire.testing import ExecutorProcess

REFLECTIONS = ("v1", "v1alpha")


def start(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an executor that is expected to end by itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STEPWIRE_")}
    command = [sys.executable, "-m", "stepwire_executor", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env={**clean, **environment})


def test_help_explains_every_flag_with_its_default() -> None:
    done = start("--help")
    assert done.returncode == 0
    for flag in ("--store", "--port", "--max-output-bytes", "--session-grace", "STEPWIRE_SESSION_GRACE"):
        assert flag in done.stdout
    assert "127.0.0.1" in done.stdout


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--prot", "1"], "unrecognized arguments: --prot 1; see `stepwire executor --help`"),
        (["--port"], "argument --port: expected one argument; see `stepwire executor --help`"),
        (["--history", "/proc/nowhere"], "--history '/proc/nowhere' can't be used: No such file or directory"),
        (["--log-level", "loud"], "--log-level"),
        (["--port", "http"], "--port"),
        (["--port", "70000"], "--port"),
        (["--session-grace", "-1"], "--session-grace"),
        (["--store", "oracle://db"], "sqlite:///"),
    ],
)
def test_a_wrong_flag_is_named(flags: list[str], reason: str) -> None:
    done = start(*flags)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_variables_are_settings_too() -> None:
    done = start(STEPWIRE_SESSION_GRACE="soon")
    assert done.returncode == 2
    assert "session" in done.stderr


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = start("--port", str(port), "--store", f"sqlite:///{tmp_path / 'a.db'}")
    assert done.returncode == 69
    assert f"can't listen on 127.0.0.1:{port}: Address already in use; choose another" in done.stderr


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are my notes, and not a database at all\n" * 100)
    before = file.read_bytes()
    done = start("--port", "0", "--store", f"sqlite:///{file}")
    assert done.returncode == 74
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr
    assert file.read_bytes() == before


def test_a_second_executor_on_the_same_file_is_refused(tmp_path: Path) -> None:
    with ExecutorProcess(folder=tmp_path):
        done = start("--port", "0", "--store", f"sqlite:///{tmp_path / 'stepwire.db'}")
    assert done.returncode == 74
    assert "another" in done.stderr.lower()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(number: signal.Signals) -> None:
    with ExecutorProcess() as executor:
        executor.signal(number)
        assert executor.wait(20) == 0
        assert "stopped" in executor.log


def test_a_second_signal_ends_it_at_once_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with ExecutorProcess(folder=tmp_path) as executor:
        with stepwire.SyncClient(executor.address) as client:
            receipts = client.send_many([stepwire.Event("kept", n, id=f"event-{n}") for n in range(100)])
        executor.signal(signal.SIGTERM)
        executor.signal(signal.SIGTERM)
        assert executor.wait(20) == 0
        executor.start()
        with stepwire.SyncClient(executor.address) as client:
            again = client.send_many([stepwire.Event("kept", n, id=f"event-{n}") for n in range(100)])
        assert [receipt.event_id for receipt in again] == [receipt.event_id for receipt in receipts]
        assert all(receipt.duplicate for receipt in again)


def test_health_says_serving(tmp_path: Path) -> None:
    with ExecutorProcess() as executor, grpc.insecure_channel(executor.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        end = time.monotonic() + 10
        for service in ("", "stepwire.v1.WorkerService", "stepwire.v1.RunService"):
            state = health_pb2.HealthCheckResponse.UNKNOWN
            while state != health_pb2.HealthCheckResponse.SERVING and time.monotonic() < end:
                state = health.Check(health_pb2.HealthCheckRequest(service=service)).status
            assert state == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", REFLECTIONS)
def test_reflection_lists_and_describes_every_service(version: str) -> None:
    with ExecutorProcess() as executor, grpc.insecure_channel(executor.address) as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        (response,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = {service.name for service in response.list_services_response.service}
        about = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in sorted(names)]
        packages = [
            descriptor_pb2.FileDescriptorProto.FromString(
                answer.file_descriptor_response.file_descriptor_proto[0]
            ).package
            for answer in ask(iter(about))
        ]
    ours = {f"stepwire.v1.{name}Service" for name in ("Worker", "Event", "Run", "Admin")}
    assert names == ours | {"grpc.health.v1.Health"} | {
        f"grpc.reflection.{each}.ServerReflection" for each in REFLECTIONS
    }
    assert packages == [name.rpartition(".")[0] for name in sorted(names)]


def test_log_lines_can_be_json() -> None:
    with ExecutorProcess(settings={"log_level": "info"}) as plain:
        assert " INFO listening on " in plain.log
    command = [sys.executable, "-m", "stepwire.cli", "executor", "--json", "--port", "0", "--store", "memory:"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [json.loads(process.stderr.readline()) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        lines += [json.loads(line) for line in process.stderr]
        assert process.wait(20) == 0
    assert [line["message"].split()[0] for line in lines] == ["epoch", "listening", "draining", "stopped"]
    assert {line["level"] for line in lines} == {"info"}


def test_it_binds_to_loopback_only() -> None:
    with ExecutorProcess() as executor:
        hosts = {line.split()[1].split(":")[0] for line in listeners(executor.port)}
    assert hosts
    assert all(host.endswith("0100007F") for host in hosts), hosts


def listeners(port: int) -> list[str]:
    """Give the lines of the kernel's table of TCP sockets that listen on a port."""
    lines = [*Path("/proc/net/tcp").read_text().splitlines(), *Path("/proc/net/tcp6").read_text().splitlines()]
    return [line for line in lines if f":{port:04X} " in line and " 0A " in line]


FAULTY = """
from stepwire_executor import __main__, engine

async def decide(self):
    raise RuntimeError("a decision that is not to be")

async def begin_anew(self, error):
    raise RuntimeError("a fault in how faults are borne")

engine.Engine._decide, engine.Engine._begin_anew = decide, begin_anew
raise SystemExit(__main__.main())
"""


def test_an_executor_that_can_not_go_on_ends_and_says_why(tmp_path: Path) -> None:
    flags = ["--port", "0", "--store", f"sqlite:///{tmp_path / 'a.db'}"]
    command = [sys.executable, "-c", FAULTY, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)  # its first tick is enough
    assert done.returncode == 1
    assert "a fault in how faults are borne" in done.stderr
