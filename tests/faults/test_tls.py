"""TLS with real certificates: what is wrong is refused and said, and nothing ever falls back to plaintext."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

import stepwire
from stepwire import Security
from stepwire.testing import ExecutorProcess, WorkerProcess
from stepwire.testing.process import ManagedProcess
from stepwire.testing.process import environment as clean
from stepwire_executor.__main__ import main
from tests.executor import tokens

ROOT = Path(__file__).parents[2]
APP = "tests.faults.apps.shop:app"
STEPWIRE = Path(sys.executable).parent / "stepwire"


class Authority:
    """A CA in a folder, and what it signs: NAME.pem and NAME.key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def sign(self, name: str, *identities: str, **more: Any) -> Path:
        """Make a certificate for names and addresses."""
        leaf = self._ca.issue_cert(*(identities or ("localhost", "127.0.0.1")), **more)
        leaf.private_key_pem.write_to_path(self._folder / f"{name}.key")
        (self._folder / f"{name}.pem").write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        return self._folder / f"{name}.pem"


@dataclass
class Certificates:
    ours: Authority
    others: Authority
    server: Path
    client: Path
    stranger: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ours, others = Authority(folder / "ours"), Authority(folder / "others")
    return Certificates(ours, others, ours.sign("server"), ours.sign("client", "w1"), others.sign("stranger", "w2"))


def serving(certificate: Path, client_ca: Path | None = None, **settings: Any) -> ExecutorProcess:
    """An executor with a certificate."""
    settings |= {"tls_certificate": certificate, "tls_key": certificate.with_suffix(".key")}
    return ExecutorProcess(settings=settings | ({"tls_client_ca": client_ca} if client_ca else {}))


def secured(ca: Authority, ours: Path | None = None, **more: Any) -> Security:
    """Trust a CA, and show a certificate of our own."""
    own = {"tls_certificate": ours, "tls_key": ours.with_suffix(".key")} if ours else {}
    return Security(tls_ca=ca.file, **own, **more)


@pytest.fixture(scope="module")
def executor(certificates: Certificates) -> Iterator[ExecutorProcess]:
    with serving(certificates.server) as process:
        yield process


@pytest.fixture(scope="module")
def mutual(certificates: Certificates) -> Iterator[ExecutorProcess]:
    with serving(certificates.server, certificates.ours.file) as process:
        yield process


@pytest.fixture(scope="module")
def plain() -> Iterator[ExecutorProcess]:
    with ExecutorProcess() as process:
        yield process


def refusal(address: str, security: Security) -> str:
    """Have both clients refused with the same words; gives them."""

    async def send() -> None:
        async with stepwire.Client(address, security=security, retry_for=0.2) as client:
            await client.send("shop/double", {"n": 1})

    with pytest.raises(stepwire.ExecutorError) as caught:
        asyncio.run(send())
    with (
        stepwire.SyncClient(address, security=security, retry_for=0.2) as client,
        pytest.raises(stepwire.ExecutorError) as again,
    ):
        client.functions()
    assert caught.value.code == again.value.code == "UNAVAILABLE"
    assert str(caught.value) == str(again.value)
    return str(caught.value)


def until(reached: Callable[[], bool], process: ManagedProcess | subprocess.Popen[bytes]) -> None:
    """Wait as long as the process lives: how fast it starts is the machine's affair."""
    while not reached():
        running = process.running if isinstance(process, ManagedProcess) else process.poll() is None
        assert running, "it has ended"
        time.sleep(0.02)


# Clients.


def test_a_client_that_trusts_the_ca_is_served(executor: ExecutorProcess, certificates: Certificates) -> None:
    for host in ("127.0.0.1", "localhost"):
        with stepwire.SyncClient(f"{host}:{executor.port}", security=secured(certificates.ours)) as client:
            assert client.functions() == []


def test_a_certificate_of_another_ca_is_refused(executor: ExecutorProcess, certificates: Certificates) -> None:
    said = refusal(executor.address, secured(certificates.others))
    assert f"the certificate of {executor.address} is not signed by the CA in {certificates.others.file}" in said
    assert "STEPWIRE_TLS_CA" in said
    said = refusal(executor.address, Security(tls=True))
    assert "is not signed by a CA that everybody trusts" in said
    assert "STEPWIRE_TLS_CA" in said


@pytest.mark.parametrize(
    ("identities", "days", "reason"),
    [
        (("localhost", "127.0.0.1"), (-10, -1), "has expired"),
        (("localhost", "127.0.0.1"), (1, 10), "is not valid yet"),
        (("executor.example", "10.0.0.1"), (-1, 1), "is for another name"),
    ],
)
def test_a_certificate_that_is_not_good_now_and_here_is_refused(
    identities: tuple[str, ...], days: tuple[int, int], reason: str, certificates: Certificates
) -> None:
    begin, end = (datetime.now(UTC) + timedelta(days=each) for each in days)
    name = f"bad-{days[0]}-{days[1]}"
    with serving(certificates.ours.sign(name, *identities, not_before=begin, not_after=end)) as executor:
        said = refusal(executor.address, secured(certificates.ours))
    assert f"the certificate of {executor.address} {reason}" in said


def test_plaintext_and_tls_do_not_meet(
    executor: ExecutorProcess, plain: ExecutorProcess, mutual: ExecutorProcess, certificates: Certificates
) -> None:
    for tls in (executor, mutual):
        said = refusal(tls.address, Security())
        assert f"{tls.address} speaks TLS only: set STEPWIRE_TLS=1" in said
    said = refusal(plain.address, secured(certificates.ours))
    assert f"{plain.address} does not speak TLS" in said
    assert "--tls-certificate" in said


def test_nobody_there_is_not_a_matter_of_tls(plain: ExecutorProcess, certificates: Certificates) -> None:
    said = refusal("127.0.0.1:1", secured(certificates.ours))
    assert "Connection refused" in said


def test_an_executor_that_asks_for_certificates_takes_those_of_its_ca_only(
    mutual: ExecutorProcess, certificates: Certificates
) -> None:
    with stepwire.SyncClient(mutual.address, security=secured(certificates.ours, certificates.client)) as client:
        assert client.functions() == []
    said = refusal(mutual.address, secured(certificates.ours))
    assert f"{mutual.address} asks for a certificate: give one with STEPWIRE_TLS_CERTIFICATE" in said
    said = refusal(mutual.address, secured(certificates.ours, certificates.stranger))
    assert f"{mutual.address} refuses the certificate in {certificates.stranger}" in said


def test_a_call_that_waits_says_why_it_waits(
    executor: ExecutorProcess, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        stepwire.SyncClient(executor.address, security=secured(certificates.others)) as client,
        pytest.raises(stepwire.ExecutorError) as caught,
    ):
        client.wait("a-run", timeout=1.0)
    assert "is not signed by" in str(caught.value)
    assert "is not signed by" in caplog.text


# Workers, the command line, tokens.


def variables_of(security: Security, token: str = "") -> dict[str, str]:
    """Write a Security as variables."""
    names = ("tls_ca", "tls_certificate", "tls_key")
    found = {
        f"STEPWIRE_{name.upper()}": os.fspath(getattr(security, name)) for name in names if getattr(security, name)
    }
    return found | ({"STEPWIRE_TOKEN": token} if token else {})


def worker(executor: ExecutorProcess, security: Security, token: str = "", **more: Any) -> WorkerProcess:
    """A worker that is not waited for: this process may not ask the executor about it."""
    variables = variables_of(security, token)
    return WorkerProcess(APP, executor, path=ROOT, environment=variables, wait=False, **more)


def cli(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([STEPWIRE, *arguments], capture_output=True, text=True, timeout=60, env=clean(variables))


def test_worker_client_and_command_line_work_over_mutual_tls_with_tokens(
    certificates: Certificates, tmp_path: Path
) -> None:
    file = tokens.write(tmp_path / "tokens.toml")
    own = secured(certificates.ours, certificates.client)
    (tmp_path / "token").write_text(tokens.secret("shop-clients") + "\n")
    options = ["--tls-ca", str(certificates.ours.file), "--tls-certificate", str(certificates.client)]
    options += ["--tls-key", str(certificates.client.with_suffix(".key")), "--token-file", str(tmp_path / "token")]
    with (
        serving(certificates.server, certificates.ours.file, tokens_file=file) as executor,
        worker(executor, own, tokens.secret("shop-workers"), processes=2) as served,
    ):
        until(lambda: served.log.count("connected to") == 2, served)
        address = ["--executor", executor.address]
        done = cli("send", "shop/double", "--data", '{"n": 21}', "--wait", "--json", *address, *options)
        assert done.returncode == 0, done.stderr
        assert "42" in done.stdout
        refused = cli("functions", *address, *options)
        assert (refused.returncode, refused.stdout) == (5, "")
        assert "role admin" in refused.stderr
        refused = cli("runs", "list", *address, *options[:-2])
        assert refused.returncode == 5
        assert "STEPWIRE_TOKEN" in refused.stderr
        refused = cli("runs", "list", *address)
        assert refused.returncode == 4
        assert "speaks TLS only" in refused.stderr
        refused = cli("runs", "list", *address, "--tls-ca", str(certificates.others.file))
        assert refused.returncode == 4
        assert "is not signed by" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1, "gRPC adds nothing"
        assert served.stop() == 0


def test_a_worker_without_a_good_token_ends(tmp_path: Path) -> None:
    with ExecutorProcess(settings={"tokens_file": tokens.write(tmp_path / "tokens.toml")}) as executor:
        for token, code, reason in (("", 5, "STEPWIRE_TOKEN"), ("x", 5, "unknown"), ("a token", 2, "is no token")):
            process = worker(executor, Security(), token).start()
            assert process.wait(30) == code
            assert reason in process.log
            assert "Traceback" not in process.log
            process.destroy()


def test_a_worker_goes_on_trying_says_why_and_connects_once_the_certificate_is_good(
    certificates: Certificates, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    shown = tmp_path / "shown.pem"

    def show(certificate: Path) -> None:
        for suffix in (".key", ".pem"):
            shown.with_suffix(suffix).write_bytes(certificate.with_suffix(suffix).read_bytes())

    old = certificates.ours.sign("old", not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
    show(old)
    with serving(shown) as executor, worker(executor, secured(certificates.ours)) as served:
        until(lambda: "has expired" in served.log, served)
        until(lambda: served.log.count("reconnecting to") > 2, served)
        shown.write_text("nonsense")
        executor.signal(signal.SIGHUP)
        until(lambda: "what was read before stays in use" in executor.log, executor)
        show(certificates.server)
        executor.signal(signal.SIGHUP)
        until(lambda: "connected to" in served.log, served)
        assert served.stop() == 0


# The executor's start.


def test_an_executor_does_not_start_with_what_it_cannot_use(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, key = certificates.server, certificates.server.with_suffix(".key")
    missing, nonsense = tmp_path / "missing.pem", tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    cases: list[tuple[list[object], str]] = [
        (["--tls-certificate", server], "--tls-key"),
        (["--tls-client-ca", certificates.ours.file], "--tls-certificate"),
        (["--tls-certificate", server, "--tls-key", missing], str(missing)),
        (["--tls-certificate", nonsense, "--tls-key", key], str(nonsense)),
        (["--tls-certificate", certificates.stranger, "--tls-key", key], "do not belong together"),
        (["--tls-certificate", server, "--tls-key", key, "--tls-client-ca", nonsense], str(nonsense)),
        (["--tokens-file", missing], str(missing)),
        (["--tokens-file", nonsense], "not TOML"),
    ]
    for flags, reason in cases:
        monkeypatch.setattr(sys, "argv", ["stepwire_executor", "--store", "memory:", *map(str, flags)])
        assert main() == 2, flags
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line


def test_an_executor_that_others_can_reach_warns_of_what_is_missing(certificates: Certificates, tmp_path: Path) -> None:
    with ExecutorProcess(settings={"host": "0.0.0.0"}) as executor:
        (line,) = [line for line in executor.log.splitlines() if "WARNING" in line]
    assert "--tls-certificate" in line
    assert "--tls-key" in line
    assert "--tokens-file" in line
    file = tokens.write(tmp_path / "tokens.toml")
    with serving(certificates.server, host="0.0.0.0", tokens_file=file) as executor:
        assert "WARNING" not in executor.log
    with ExecutorProcess() as executor:
        assert "WARNING" not in executor.log


def test_dev_pays_no_attention_to_settings_for_an_executor_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text((ROOT / "tests" / "faults" / "apps" / "shop.py").read_text())
    elsewhere = {"STEPWIRE_TLS": "1", "STEPWIRE_TOKEN_FILE": "missing", "STEPWIRE_TOKENS_FILE": "missing"}
    log = tmp_path / "log"
    with log.open("wb") as output:
        dev = subprocess.Popen(
            [STEPWIRE, "dev", "flow:app"], cwd=tmp_path, env=clean(elsewhere), stdout=output, stderr=output
        )
    try:
        until(lambda: "connected to" in log.read_text(), dev)
    finally:
        dev.send_signal(signal.SIGINT)
        assert dev.wait() == 0, log.read_text()
