"""What docs/security.md tells to do, done as it stands there, from an empty folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from stepwire.testing.process import environment
from stepwire_executor.access import read_tokens

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "security.md").read_text()
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_guide_leads_to_a_secured_system(tmp_path: Path) -> None:
    (flow,) = blocks(README, "python")
    (tmp_path / "flow.py").write_text(flow)
    certificates, tokens, executor, worker, send = blocks(GUIDE, "sh")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = tmp_path / "log"

    def run(script: str, address: str = "") -> str:
        done = subprocess.run(
            ["sh", "-ec", script.replace("localhost:8377", address)],
            cwd=tmp_path,
            env=environment({"PATH": path}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
        return done.stdout

    def serve(command: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=tmp_path,
                env=environment({"PATH": path}),
                stdout=output,
                stderr=output,
            )

    def said(pattern: str) -> re.Match[str]:
        end = time.monotonic() + 30
        while (match := re.search(pattern, log.read_text())) is None:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        return match

    run(certificates)
    run(tokens)
    started = [serve(executor.strip().replace("--port 8377", "--port 0"))]
    try:
        address = f"localhost:{said(r'listening on [0-9.]+:([0-9]+)')[1]}"
        started.append(serve(worker.strip().replace("localhost:8377", address)))
        said("connected to")
        assert "u-1 is a customer" in run(f"{send.strip()} --json", address)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def test_the_entry_in_the_guide_is_one(tmp_path: Path) -> None:
    (entry,) = blocks(GUIDE, "toml")
    (tmp_path / "tokens.toml").write_text(entry)
    (caller,) = read_tokens(tmp_path / "tokens.toml")
    assert caller.apps == {"signup-flow"}


def test_every_variable_that_is_read_stands_in_the_guide() -> None:
    source = (ROOT / "sdk_python" / "stepwire" / "security.py").read_text()
    for name in re.findall(r'"(STEPWIRE_[A-Z_]+)"', source):
        assert f"`{name}" in GUIDE, name
