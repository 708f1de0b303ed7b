"""What the README tells a new user to do, done as it stands there, from an empty folder."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()
STEPWIRE = Path(sys.executable).parent / "stepwire"


def blocks(language: str) -> list[str]:
    found: list[str] = []
    inside = ""
    for line in README.splitlines(keepends=True):
        if line.startswith("```"):
            inside = "" if inside else line.strip() + " "
            if inside == f"```{language} ":
                found.append("")
        elif inside == f"```{language} ":
            found[-1] += line
    return found


def test_the_first_function_runs_from_an_empty_folder(tmp_path: Path) -> None:
    (code,) = blocks("python")
    (tmp_path / "flow.py").write_text(code)
    commands = [block.strip() for block in blocks("")]
    (dev,) = [command for command in commands if command.startswith("stepwire dev")]
    (send,) = [command for command in commands if command.startswith("stepwire send")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPWIRE_")}
    environment["PATH"] = f"{STEPWIRE.parent}{os.pathsep}{environment['PATH']}"
    port = free_port()
    with (
        (tmp_path / "dev.log").open("wb") as log,
        subprocess.Popen(
            ["sh", "-c", f"exec {dev} --port {port}"], cwd=tmp_path, env=environment, stdout=log, stderr=log
        ) as server,
    ):
        try:
            output = wait_and_send(f"{send} --json --executor 127.0.0.1:{port}", tmp_path, environment)
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0, (tmp_path / "dev.log").read_text()
    assert '"updated": "u-1 is a customer"' in output or '"updated":"u-1 is a customer"' in output, output
    assert (tmp_path / ".stepwire" / "dev.db").exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_and_send(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Send as soon as the function is registered."""
    end = time.monotonic() + 60
    while True:
        functions = subprocess.run(
            [STEPWIRE, "functions", "--json", "--executor", command.split()[-1]],
            capture_output=True,
            text=True,
            env=environment,
        )
        if functions.returncode == 0 and "post-payment-flow" in functions.stdout:
            break
        assert time.monotonic() < end, functions.stderr + (folder / "dev.log").read_text()
        time.sleep(0.2)
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr + done.stdout + (folder / "dev.log").read_text()
    json.loads(done.stdout)
    return done.stdout


def test_the_make_commands_of_the_readme_exist() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for block in blocks(""):
        for target in re.findall(r"^make (\w+)", block, flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_link_of_the_documents_leads_somewhere() -> None:
    root = Path(__file__).parents[2]
    for document in [*root.glob("*.md"), *root.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
