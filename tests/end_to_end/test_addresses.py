"""Addresses that an executor tells are addresses that clients and workers take, whatever proxies are set."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import stepwire
from stepwire.testing import ExecutorProcess, WorkerProcess
from tests.end_to_end.processes import FLOWS, ROOT

PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:1")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_unix_socket_serves_workers_and_clients(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s.sock"
    ready = tmp_path / "ready"
    settings = ["--store", "memory:", "--host", address, "--ready-file", str(ready)]
    executor = subprocess.Popen([sys.executable, "-m", "stepwire_executor", *settings], cwd=tmp_path)
    try:
        while not ready.exists():
            assert executor.poll() is None
            time.sleep(0.02)
        assert ready.read_text() == address
        with WorkerProcess(FLOWS, address, path=ROOT), stepwire.SyncClient(address) as client:
            assert client.functions()
    finally:
        executor.terminate()
        assert executor.wait(60) == 0


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_told_in_brackets(host: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    settings = ["--store", "memory:", "--host", host, "--port", "0", "--ready-file", str(ready)]
    executor = subprocess.Popen([sys.executable, "-m", "stepwire_executor", *settings], cwd=tmp_path)
    try:
        while not ready.exists():
            assert executor.poll() is None
            time.sleep(0.02)
        assert ready.read_text().startswith("[::1]:")
        with stepwire.SyncClient(ready.read_text()) as client:
            assert client.functions() == []
    finally:
        executor.terminate()
        assert executor.wait(60) == 0


def certificate(folder: Path, *names: str) -> dict[str, Path]:
    """Make a CA, and a certificate for names and addresses."""
    ca = trustme.CA()
    leaf = ca.issue_cert(*names)
    files = {"ca": folder / "ca.pem", "certificate": folder / "own.pem", "key": folder / "own.key"}
    ca.cert_pem.write_to_path(files["ca"])
    leaf.private_key_pem.write_to_path(files["key"])
    leaf.cert_chain_pems[0].write_to_path(files["certificate"])
    return files


@contextlib.contextmanager
def serving(folder: Path, host: str, files: dict[str, Path]) -> Iterator[str]:
    """Start an executor with a certificate; gives its address."""
    ready = folder / "ready"
    settings = ["--store", "memory:", "--host", host, "--port", "0", "--ready-file", str(ready)]
    settings += ["--tls-certificate", str(files["certificate"]), "--tls-key", str(files["key"])]
    executor = subprocess.Popen([sys.executable, "-m", "stepwire_executor", *settings], cwd=folder)
    try:
        while not ready.exists():
            assert executor.poll() is None
            time.sleep(0.02)
        yield ready.read_text()
    finally:
        executor.terminate()
        assert executor.wait(60) == 0


@pytest.mark.parametrize(("host", "name"), [("::1", "::1"), ("unix:s.sock", "localhost")])
def test_an_ipv6_address_and_a_unix_socket_speak_tls(host: str, name: str, tmp_path: Path) -> None:
    files = certificate(tmp_path, name)
    security = stepwire.Security(tls_ca=files["ca"])
    with (
        serving(tmp_path, host, files) as address,
        WorkerProcess(FLOWS, address, path=ROOT, environment={"STEPWIRE_TLS_CA": str(files["ca"])}, wait=False),
        stepwire.SyncClient(address, security=security) as client,
    ):
        end = time.monotonic() + 30
        while not client.functions():
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_unix_socket_whose_certificate_is_for_another_name_is_refused_with_the_reason(tmp_path: Path) -> None:
    files = certificate(tmp_path, "executor.example")
    with (
        serving(tmp_path, "unix:s.sock", files) as address,
        stepwire.SyncClient(address, security=stepwire.Security(tls_ca=files["ca"]), retry_for=0) as client,
        pytest.raises(stepwire.ExecutorError, match=r"is for another name .* it must be for localhost"),
    ):
        client.functions()


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExecutorProcess() as executor, WorkerProcess(FLOWS, executor, path=ROOT, environment=PROXIES):
        for name, value in PROXIES.items():
            monkeypatch.setenv(name, value)
        with stepwire.SyncClient(executor.address) as client:
            assert client.functions()


@pytest.mark.parametrize("address", ["x:y", "127.0.0.1:99999", "", "127.0.0.1", "::1:8377", "a b:1"])
@pytest.mark.parametrize("command", [("stepwire.worker", FLOWS), ("stepwire.cli", "worker", FLOWS)])
def test_an_address_that_cant_be_one_is_refused_at_once(command: tuple[str, ...], address: str) -> None:
    done = run(*command, "--executor", address)
    assert done.returncode == 2
    assert "is no address of an executor" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--slots", "0"), "slots is 0"),
        (("--processes", "-1"), "processes is -1"),
        (("--max-invocations", "0"), "max_invocations is 0"),
        (("--drain-seconds", "nan"), "drain_seconds is nan"),
        (("--label", "zone"), "--label 'zone' is no label"),
    ],
)
def test_the_workers_module_checks_its_options(flags: tuple[str, ...], words: str) -> None:
    done = run("stepwire.worker", FLOWS, *flags)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_with_nothing_to_serve_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("import stepwire\napp = stepwire.App('bare')\n")
    done = subprocess.run(
        [sys.executable, "-m", "stepwire.worker", "bare:app"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "app 'bare' has nothing to serve" in done.stderr
