"""What a client and a worker show, where a token may go, and what is said of settings that do not fit."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stepwire
from stepwire import Security
from stepwire.security import is_loopback
from stepwire.worker import Worker
from stepwire_executor.access import Role, read_tokens

STEPWIRE = Path(sys.executable).parent / "stepwire"


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:8377", True),
        ("127.9.9.9:1", True),
        ("localhost:8377", True),
        ("[::1]:8377", True),
        ("unix:/tmp/socket", True),
        ("10.0.0.1:8377", False),
        ("0.0.0.0:8377", False),
        ("[::]:8377", False),
        ("localhost.example:8377", False),
        ("127.0.0.1.example:8377", False),
        ("executor:8377", False),
    ],
)
def test_a_token_leaves_this_machine_over_tls_only(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
    if loopback:
        Security(token="t").check(address)
    else:
        with pytest.raises(stepwire.StepwireError, match="in plaintext") as caught:
            Security(token="t").check(address)
        assert "STEPWIRE_TLS=1" in str(caught.value)
        assert "STEPWIRE_PLAINTEXT_TOKEN=1" in str(caught.value)
    Security().check(address)
    Security(token="t", tls=True).check(address)
    Security(token="t", plaintext_token=True).check(address)


def test_clients_and_workers_refuse_it_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWIRE_TOKEN", "t")
    for make in (stepwire.Client, stepwire.SyncClient, lambda address: Worker(stepwire.App("a"), address)):
        with pytest.raises(stepwire.StepwireError, match="in plaintext"):
            make("executor.example:8377")


def test_variables_say_what_options_say(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    found = Security.from_environment({"STEPWIRE_TOKEN_FILE": str(file), "STEPWIRE_TLS_CA": "ca.pem"})
    assert found == Security(token_file=str(file), tls_ca="ca.pem")
    assert found.uses_tls, "a CA is of no use without TLS"
    assert found.metadata() == (("authorization", "Bearer secret"),)
    assert Security.from_environment({}) == Security()
    assert not Security.from_environment({"STEPWIRE_TLS": "0", "STEPWIRE_TLS_CA": "ca.pem"}).uses_tls
    assert Security.from_environment({"STEPWIRE_TLS": "yes"}).uses_tls
    assert Security.from_environment({"STEPWIRE_PLAINTEXT_TOKEN": "1"}).plaintext_token
    with pytest.raises(stepwire.StepwireError, match="STEPWIRE_TLS='maybe' is neither yes nor no"):
        Security.from_environment({"STEPWIRE_TLS": "maybe"})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "can't read .*missing .*STEPWIRE_TOKEN_FILE"),
        ("empty", "is no token"),
        ("two lines", "is no token"),
        ("binary", "is no token"),
    ],
)
def test_a_file_without_a_token_is_named(name: str, reason: str, tmp_path: Path) -> None:
    files = {"empty": b"\n", "two lines": b"one\ntwo\n", "binary": b"\xff\xfe\0"}
    if name in files:
        (tmp_path / name).write_bytes(files[name])
    with pytest.raises(stepwire.StepwireError, match=reason):
        Security(token_file=tmp_path / name).check("localhost:1")


def test_what_does_not_belong_together_is_said(tmp_path: Path) -> None:
    (tmp_path / "nonsense").write_text("nonsense")
    for security, reason in (
        (Security(tls_certificate="a.pem"), "STEPWIRE_TLS_CERTIFICATE takes STEPWIRE_TLS_KEY"),
        (Security(tls_key="a.key"), "STEPWIRE_TLS_KEY takes STEPWIRE_TLS_CERTIFICATE"),
        (Security(tls_ca=tmp_path / "missing"), r"can't read .*missing \(STEPWIRE_TLS_CA\)"),
        (Security(tls_ca=tmp_path / "nonsense"), r"nonsense \(STEPWIRE_TLS_CA\) is not PEM"),
        (Security(token="a", token_file="b"), "give one of STEPWIRE_TOKEN and STEPWIRE_TOKEN_FILE"),
    ):
        with pytest.raises(stepwire.StepwireError, match=reason):
            security.check("localhost:1")


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Security(token="secret"))


def new(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([STEPWIRE, "token", "new", *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("app", ["", "a/b"])
def test_a_token_for_what_can_be_no_app_is_refused(tmp_path: Path, app: str) -> None:
    done = new("shop", "--app", app, "--file", str(tmp_path / "tokens.toml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{app!r} is no app" in done.stderr
    assert not (tmp_path / "tokens.toml").exists()


def test_tokens_are_made_as_the_executor_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    done = new("shop ☂", "--app", "shop", "--app", "bank", "--role", "worker", "--role", "admin", "--file", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    token = done.stdout.strip()
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0, "only its owner may read it"
    by_hand = new("everything", "--role", "client")
    tomllib.loads(by_hand.stderr.partition("\n\n")[2])
    with file.open("a") as more:
        more.write(by_hand.stderr.partition("\n\n")[2])
    first, second = read_tokens(file)
    assert (first.name, first.apps, first.roles) == ("shop ☂", {"shop", "bank"}, {Role.WORKER, Role.ADMIN})
    assert (second.name, second.apps, second.roles) == ("everything", None, {Role.CLIENT})
    assert by_hand.stdout.strip() != token
    again = new("everything", "--file", str(file))
    assert (again.returncode, again.stdout) == (2, "")
    assert "choose another name" in again.stderr
    assert len(read_tokens(file)) == 2
