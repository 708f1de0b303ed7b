"""Advisories about third-party packages: real `uv audit` and `npm audit`, asking a server that answers as theirs do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools import advisories

SECONDS = 60.0
BULK = "/-/npm/v1/security/advisories/bulk"
QUESTIONS = {"requirements.lock": "/v1/querybatch", "package-lock.json": BULK}
SHOWN = {
    "requirements.lock": "act on: CVE-1 GHSA-1: shaky 1.0: it shakes (fixed by 1.1)",
    "package-lock.json": "act on: GHSA-2: shaky <1.1.0, high: it shakes (fixed by `npm audit fix`)",
}
WITHOUT_FIX = {
    "requirements.lock": "known: CVE-1 GHSA-1: shaky 1.0: it shakes (no fix yet)",
    "package-lock.json": "known: GHSA-2: shaky *, high: it shakes (no fix yet)",
}
METADATA = b"Metadata-Version: 2.1\nName: shaky\nVersion: 1.0\n"


class Registry(ThreadingHTTPServer):
    """Package indices with one package, `shaky` 1.0, and what is known about it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.advisory = False
        self.severity = "high"
        self.fixed = True
        self.broken = False
        self.over: threading.Event | None = None
        """If set, questions about advisories are answered only when it is."""
        self.asked: list[str] = []
        """The questions about advisories."""

    def answer(self, path: str) -> Any:
        if path in QUESTIONS.values():
            self.asked.append(path)
            if self.over is not None:
                self.over.wait()
            if self.broken:
                return None
        if path == "/simple/shaky/":
            digest = hashlib.sha256(METADATA).hexdigest()
            file = "shaky-1.0-py3-none-any.whl"
            wheel = {"filename": file, "url": f"{self.url}/{file}", "hashes": {}, "core-metadata": {"sha256": digest}}
            return {"meta": {"api-version": "1.1"}, "name": "shaky", "files": [wheel]}
        if path == "/v1/querybatch":
            known = {"vulns": [{"id": "GHSA-1", "modified": "2026-01-01T00:00:00Z"}]}
            return {"results": [known if self.advisory else {}]}
        if path == "/v1/vulns/GHSA-1":
            events = [{"introduced": "0"}, *([{"fixed": "1.1"}] if self.fixed else [])]
            ranges = [{"type": "ECOSYSTEM", "events": events}]
            return {
                "schema_version": "1.6.0",
                "id": "GHSA-1",
                "aliases": ["CVE-1"],
                "modified": "2026-01-01T00:00:00Z",
                "summary": "it shakes",
                "affected": [{"package": {"ecosystem": "PyPI", "name": "shaky"}, "ranges": ranges}],
            }
        if path == BULK:
            url, versions = "https://advisories.example/GHSA-2", "<1.1.0" if self.fixed else "*"
            known = {"id": 2, "url": url, "title": "it shakes", "severity": self.severity}
            return {"shaky": [{**known, "vulnerable_versions": versions}]} if self.advisory else {}
        if path == "/shaky":
            versions = {each: {"name": "shaky", "version": each} for each in ("1.0.0", "1.1.0")}
            return {"name": "shaky", "dist-tags": {"latest": "1.1.0"}, "versions": versions}
        return None


class Answers(BaseHTTPRequestHandler):
    """Answers with JSON, or with a package's metadata."""

    server: Registry

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = self.server.answer(self.path)
        data = METADATA if self.path.endswith(".whl.metadata") else json.dumps(answer).encode()
        self.send_response(404 if answer is None and data != METADATA else 200)
        kind = "application/vnd.pypi.simple.v1+json" if self.path.startswith("/simple/") else "application/json"
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
            self.wfile.write(data)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with Registry() as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", served.url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{served.url}/simple/")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
        yield served
        served.shutdown()


@pytest.fixture
def python(tmp_path: Path) -> Path:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"shaky==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    return lock


@pytest.fixture
def node(tmp_path: Path) -> Path:
    lock = tmp_path / "package-lock.json"
    root = {"name": "ours", "version": "1.0.0", "devDependencies": {"shaky": "^1.0.0"}}
    shaky = {"version": "1.0.0", "dev": True}
    (tmp_path / "package.json").write_text(json.dumps(root))
    lock.write_text(
        json.dumps({"name": "ours", "lockfileVersion": 3, "packages": {"": root, "node_modules/shaky": shaky}})
    )
    return lock


def acts_on(lock: Path, registry_url: str, seconds: float = SECONDS, ignore: dict[str, str] | None = None) -> bool:
    ask = {
        ".lock": lambda: advisories.of_python(lock, registry_url, seconds),
        ".json": lambda: advisories.of_node(lock, seconds),
    }
    return advisories.told(lock.name, ask[lock.suffix], ignore or {})


@pytest.fixture(params=["python", "node"])
def lock(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_packages_without_advisories_are_counted(
    lock: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not acts_on(lock, registry.url)
    assert capsys.readouterr().out == f"{lock.name}: no advisories for 1 packages\n"
    assert registry.asked == [QUESTIONS[lock.name]]


def test_an_advisory_with_a_fix_fails_and_is_shown(
    lock: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.advisory = True
    assert acts_on(lock, registry.url)
    assert capsys.readouterr().out == f"{lock.name}: advisories: 1, for 1 packages\n  {SHOWN[lock.name]}\n"


def test_an_advisory_without_a_fix_is_shown_and_fails_nothing(
    lock: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.advisory, registry.fixed = True, False
    assert not acts_on(lock, registry.url)
    assert capsys.readouterr().out == f"{lock.name}: advisories: 1, for 1 packages\n  {WITHOUT_FIX[lock.name]}\n"


def test_an_advisory_of_moderate_severity_is_shown_and_fails_nothing(
    node: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.advisory, registry.severity = True, "moderate"
    assert not acts_on(node, registry.url)
    assert "known: GHSA-2: shaky <1.1.0, moderate: it shakes" in capsys.readouterr().out


def test_an_advisory_that_does_not_concern_us_is_counted_only(
    lock: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.advisory = True
    assert not acts_on(lock, registry.url, ignore={"CVE-1": "a reason", "GHSA-2": "a reason"})
    assert capsys.readouterr().out == f"{lock.name}: no advisories for 1 packages, 1 ignored\n"
    assert acts_on(lock, registry.url, ignore={"CVE-2": "a reason", "GHSA-3": "a reason"})
    assert SHOWN[lock.name] in capsys.readouterr().out


def test_nobody_to_ask_fails_nothing_and_is_said(
    lock: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.shutdown()
    registry.server_close()
    assert not acts_on(lock, registry.url)
    said = capsys.readouterr().out
    assert said.startswith(f"{lock.name}: advisories could not be asked for (")
    assert registry.url in said, "the reason is another one"
    assert said.endswith("): not checked\n")


def test_a_question_that_is_refused_is_not_taken_for_an_answer_without_advisories(
    lock: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.broken = True
    assert not acts_on(lock, registry.url)
    assert registry.asked
    said = capsys.readouterr().out
    assert said.startswith(f"{lock.name}: advisories could not be asked for (")
    assert "404" in said


def test_a_registry_that_answers_too_late_fails_nothing_and_is_waited_for_no_longer_than_said(
    lock: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.over = threading.Event()
    begun = time.monotonic()
    assert not acts_on(lock, registry.url, seconds=3)
    assert time.monotonic() - begun < 10, "it was waited for after all"
    registry.over.set()
    reason = "no answer within 3 s"
    assert capsys.readouterr().out == f"{lock.name}: advisories could not be asked for ({reason}): not checked\n"


@pytest.mark.parametrize("fixed", [True, False], ids=["with a fix", "without one"])
def test_the_check_fails_if_one_of_the_locks_has_an_advisory_to_act_on(
    python: Path,
    node: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fixed: bool,
) -> None:
    registry.advisory, registry.fixed, registry.severity = True, fixed, "moderate"  # so that Node's is only shown
    locks = ["--python", str(python), "--node", str(node)]
    monkeypatch.setattr("sys.argv", ["advisories", *locks, "--osv", registry.url, "--seconds", f"{SECONDS}"])
    assert advisories.main() == int(fixed)
    said = capsys.readouterr().out
    assert ("act on: CVE-1" in said, "known: GHSA-2" in said) == (fixed, True)
    assert ("update what is to be acted on" in said) == fixed


def test_an_advisory_that_is_ignored_without_a_reason_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisories, "ROOT", tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text('[tool.advisories.ignore]\nGHSA-1 = "only on Windows"\n')
    assert advisories.ignored() == {"GHSA-1": "only on Windows"}
    project.write_text('[tool.advisories.ignore]\nGHSA-1 = " "\n')
    with pytest.raises(SystemExit, match="says no reason for GHSA-1"):
        advisories.ignored()
