"""What `stepwire dev` does with its children, shown with small programs in their place."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepwire.cli import dev
from stepwire.cli.exits import CommandError

EXECUTOR = """
    import pathlib, signal, socket, sys
    listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    def stop(*_):
        with open("log", "a") as log: log.write("executor stopped\\n")
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    print("executor up", flush=True)
    while True: listener.accept()[0].close()
"""
WORKER = """
    import signal, sys, time
    def stop(*_):
        time.sleep(0.3)
        with open("log", "a") as log: log.write("worker drained\\n")
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    print("worker up", flush=True)
    while True: time.sleep(0.01)
"""
CRASH_ONCE = """
    import pathlib, time
    crashed = pathlib.Path("crashed")
    if not crashed.exists():
        crashed.touch()
        print("worker crashes", flush=True)
        time.sleep(2.1)
        raise SystemExit(3)
"""

Session = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Start a session over an executor and a worker, given as code, in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(executor: str = EXECUTOR, worker: str = WORKER) -> subprocess.Popen[str]:
        (tmp_path / "an_executor.py").write_text(textwrap.dedent(executor))
        (tmp_path / "a_worker.py").write_text(textwrap.dedent(worker))
        code = """
            import asyncio, pathlib
            from stepwire.cli.dev import HOST, choose_port
            from stepwire.cli.plan import Plan
            from stepwire.cli.session import Session
            from stepwire.cli.voice import Voice
            port, taken = choose_port(None)
            plan = Plan("flows:app", 1, 1, HOST, port, taken, pathlib.Path(".stepwire"), 5)
            session = Session(plan, Voice(False), executor_module="an_executor", worker_module="a_worker")
            raise SystemExit(asyncio.run(session.run()))
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(20)
        if process.stdout:
            process.stdout.close()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read what the session says up to a line that holds the text."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"the session ended without {text!r}:\n{said}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_drains_the_worker_before_the_executor(session: Session, tmp_path: Path, number: signal.Signals) -> None:
    process = session()
    said = read_until(process, "worker up")
    assert "executor │ executor up" in said
    process.send_signal(number)
    assert process.wait(20) == 0
    assert (tmp_path / "log").read_text() == "worker drained\nexecutor stopped\n"


def test_a_terminal_that_is_gone_does_not_keep_it_from_stopping(session: Session, tmp_path: Path) -> None:
    process = session()
    read_until(process, "worker up")
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGHUP)
    process.wait(20)
    assert (tmp_path / "log").read_text() == "worker drained\nexecutor stopped\n"


def test_a_second_ctrl_c_does_not_wait(session: Session, tmp_path: Path) -> None:
    process = session(worker=WORKER.replace("time.sleep(0.3)", "time.sleep(60)"))
    read_until(process, "worker up")
    process.send_signal(signal.SIGINT)
    read_until(process, "stopping")
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert time.monotonic() - begun < 8, "it waited for the drain"


def test_an_executor_that_can_not_start_ends_the_session(session: Session) -> None:
    process = session(executor="raise SystemExit('the store is locked')")
    said = read_until(process, "the executor ended with exit code 1 at its start")
    assert "executor │ the store is locked" in said
    assert process.wait(20) == 1


def test_a_worker_that_can_not_start_ends_the_session_and_the_executor(session: Session, tmp_path: Path) -> None:
    process = session(worker="raise SystemExit(2)")
    read_until(process, "the worker ended with exit code 2 at its start")
    assert process.wait(20) == 1
    assert (tmp_path / "log").read_text() == "executor stopped\n"


def test_a_worker_that_crashes_later_is_started_again(session: Session) -> None:
    process = session(worker=textwrap.dedent(CRASH_ONCE) + textwrap.dedent(WORKER))
    said = read_until(process, "worker up")
    assert "the worker ended with exit code 3; starting it again" in said
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_the_state_folder_is_kept_out_of_version_control(tmp_path: Path) -> None:
    state = tmp_path / "project" / ".stepwire"
    dev.prepare(state)
    dev.prepare(state)
    assert (state / ".gitignore").read_text() == "*\n"


def test_a_folder_that_can_not_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="can't write to"):
        dev.prepare(tmp_path / "file" / ".stepwire")


def test_a_port_that_was_asked_for_and_is_taken_is_refused() -> None:
    with socket.create_server((dev.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"port {port} is taken"):
            dev.choose_port(port)


def test_a_free_port_is_found_when_the_default_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((dev.HOST, 0)) as taken:
        default = taken.getsockname()[1]
        monkeypatch.setattr(dev, "DEFAULT_PORT", default)
        port, said = dev.choose_port(None)
    assert said == default
    assert port not in (0, default)
