"""The command line as users run it: real processes, a real executor, real workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

FLOWS = """
    import asyncio
    import stepwire

    app = stepwire.App("shop")

    def square(number):
        if number == 13 and stepwire.current_attempt().number == 1:
            raise stepwire.RetryAfterError("the first attempt at 13 fails", 0.01)
        return number * number

    @app.function("squares", trigger=stepwire.on_event("shop/squares"))
    async def squares(ctx: stepwire.Context, step: stepwire.Step) -> int:
        numbers = await step.run("numbers", lambda: list(range(ctx.event.data["n"])))
        return sum(await asyncio.gather(*(step.run("square", square, each) for each in numbers)))

    @app.function("fails", trigger=stepwire.on_event("shop/fails"))
    async def fails(ctx: stepwire.Context, step: stepwire.Step) -> None:
        raise stepwire.NonRetriableError("there is nothing in stock")

    @app.function("waits", trigger=stepwire.on_event("shop/waits"))
    async def waits(ctx: stepwire.Context, step: stepwire.Step) -> None:
        await step.sleep("for long", 3600)
"""
SECONDS = 40


class Shell:
    """Runs the command line in a folder, against one executor."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("STEPWIRE_", "COLUMNS"))
        }
        self._stack = stack

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            self._command(arguments),
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert "Traceback (most recent call last)" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command with --json and read what it prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that goes on; the test ends it."""
        process = subprocess.Popen(
            self._command(arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._stack.callback(end, process)
        return process

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "stepwire.cli", *arguments]


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()


def until(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true."""
    limit = time.monotonic() + SECONDS
    while not (answer := condition()):
        assert time.monotonic() < limit, f"{what} did not happen within {SECONDS} s"
        time.sleep(0.05)
    return answer


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """An executor and a worker, started by their commands."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "flows.py").write_text(textwrap.dedent(FLOWS))
    with ExitStack() as stack:
        shell = Shell(folder, stack)
        ready = folder / "ready"
        shell.start("executor", "--port", "0", "--store", "sqlite:///shop.db", "--ready-file", str(ready))
        until(lambda: ready.exists() and ready.read_text().strip(), "the executor's start")
        shell.environment["STEPWIRE_EXECUTOR"] = ready.read_text().strip()
        shell.start("worker", "flows:app", "--slots", "8", "--label", "zone=a")
        until(lambda: shell.json("workers")["workers"], "the worker's connection")
        yield shell


def test_send_and_wait(shell: Shell) -> None:
    done = shell.run("send", "shop/squares", "--data", '{"n": 40}', "--wait")
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert done.stdout.rstrip().endswith(str(sum(n * n for n in range(40))))


def test_send_wait_in_json(shell: Shell) -> None:
    said = shell.json("send", "shop/squares", "--data", '{"n": 3}', "--wait")
    assert said["runs"][0]["output"] == 5
    assert said["runs"][0]["event"]["name"] == "shop/squares"


def test_the_same_id_starts_one_run(shell: Shell) -> None:
    first = shell.json("send", "shop/squares", "--data", '{"n": 1}', "--id", "order-1")["event"]
    second = shell.json("send", "shop/squares", "--data", '{"n": 1}', "--id", "order-1")["event"]
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert first["run_ids"] == second["run_ids"]
    other = shell.run("send", "shop/squares", "--data", '{"n": 2}', "--id", "order-1")
    assert other.returncode == 5, "the id was used for other data"


def test_a_run_is_shown_with_the_step_that_was_retried(shell: Shell) -> None:
    [run_id] = shell.json("send", "shop/squares", "--data", '{"n": 20}', "--wait")["event"]["run_ids"]
    shown = shell.run("runs", "show", run_id)
    assert shown.returncode == 0
    assert "20/20" in shown.stdout
    assert re.search(r"#13 +2 attempts", shown.stdout)
    assert "square:19" in shell.run("runs", "show", run_id, "--steps").stdout
    said = shell.json("runs", "show", run_id)
    assert len(said["steps"]) == 21
    retried = next(step for step in said["steps"] if step["key"] == {"id": "square", "index": 13})
    assert retried["output"] == 169
    assert retried["failed_attempts"][0]["failure"]["message"] == "the first attempt at 13 fails"


def test_a_failed_run(shell: Shell) -> None:
    done = shell.run("send", "shop/fails", "--wait")
    assert done.returncode == 1
    assert "NonRetriableError: there is nothing in stock" in done.stdout
    [run_id] = shell.json("send", "shop/fails", "--wait")["event"]["run_ids"]
    assert shell.run("runs", "watch", run_id).returncode == 1
    assert shell.run("runs", "show", run_id).returncode == 0
    listed = shell.json("runs", "list", "--state", "failed", "--function", "fails", "--since", "1h")["runs"]
    assert run_id in [run["id"] for run in listed]


def test_a_run_is_cancelled(shell: Shell) -> None:
    [run_id] = shell.json("send", "shop/waits")["event"]["run_ids"]
    watch = shell.start("runs", "watch", run_id)
    until(lambda: shell.json("runs", "show", run_id)["steps"], "the sleep")
    assert shell.run("runs", "cancel", run_id, "--reason", "changed my mind").returncode == 0
    assert watch.wait(SECONDS) == 1
    assert "cancelled: changed my mind" in shell.run("runs", "show", run_id).stdout
    assert shell.run("runs", "cancel", run_id).returncode == 0, "it is cancelled, as was asked for"


def test_a_watch_can_be_interrupted(shell: Shell) -> None:
    [run_id] = shell.json("send", "shop/waits")["event"]["run_ids"]
    watch = shell.start("runs", "watch", run_id)
    assert watch.stdout is not None
    assert run_id in watch.stdout.readline()
    still = until(lambda: next((line for line in watch.stdout or () if "still waiting" in line), ""), "an explanation")
    assert "step for long sleeps; its end is due in 59 m" in still or "its end is due in 1 h 00 m" in still
    assert f"see `stepwire why {run_id}`" in still
    watch.send_signal(signal.SIGINT)
    assert watch.wait(SECONDS) == 130
    said = watch.stdout.read()
    assert f"the run goes on; see it again with stepwire runs watch {run_id}" in said
    assert "Traceback" not in said


def test_workers_and_functions(shell: Shell) -> None:
    [worker] = shell.json("workers")["workers"]
    assert (worker["slots"], worker["labels"], worker["app"]) == (8, {"zone": "a"}, "shop")
    functions = {each["id"]: each["triggers"] for each in shell.json("functions")["functions"]}
    assert functions == {"squares": ["shop/squares"], "fails": ["shop/fails"], "waits": ["shop/waits"]}
    assert worker["instance_id"] in shell.run("workers").stdout
    assert "shop/squares" in shell.run("functions").stdout


def test_an_event_that_nobody_takes(shell: Shell) -> None:
    done = shell.run("send", "shop/square")
    assert done.returncode == 0
    assert "Did you mean shop/squares?" in done.stderr
    assert shell.run("send", "shop/square", "--wait").returncode == 3


def test_what_is_not_there_and_what_is_refused(shell: Shell) -> None:
    assert shell.run("runs", "show", "01J8ZK3E5V2QW4T6Y8A0B1C2D3").returncode == 3
    refused = shell.run("send", "stepwire/reserved")
    assert refused.returncode == 5
    assert "name" in refused.stderr
    nobody = shell.run("workers", "--executor", "127.0.0.1:1")
    assert nobody.returncode == 4
    assert nobody.stderr.count("\n") == 1
    assert shell.run("workers", "--executor", "nonsense").returncode == 2


def test_a_reader_that_has_seen_enough_is_no_error(shell: Shell) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "stepwire.cli", "functions"],
        cwd=shell.folder,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(SECONDS) == 0
        assert process.stderr.read() == ""


def test_an_app_that_is_not_there_is_wrong_usage(shell: Shell) -> None:
    done = shell.run("worker", "flow:app")
    assert done.returncode == 2
    assert "there is no module 'flow'" in done.stderr


def test_the_executor_explains_its_flags_itself(shell: Shell) -> None:
    done = shell.run("executor", "--help")
    assert done.returncode == 0
    assert "--session-grace" in done.stdout


def test_help_is_quick() -> None:
    """It may import neither gRPC nor Pydantic nor Protobuf; that says it better than a time would."""
    code = """
        import sys
        sys.argv = ["stepwire", "--help"]
        from stepwire.cli import main
        try:
            main()
        finally:
            heavy = {"grpc", "pydantic", "google.protobuf", "asyncio", "opentelemetry"} & sys.modules.keys()
            print(sorted(heavy), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


# dev


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "flows.py").write_text(textwrap.dedent(FLOWS))
    with ExitStack() as stack:
        yield Shell(tmp_path, stack)


def heard(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read what `dev --json` says up to what is wanted."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        message: dict[str, Any] = json.loads(line)
        if wanted(message):
            return message
    raise AssertionError(f"the session ended early: {''.join(said)}")


def test_dev_serves_reloads_and_drains(dev: Shell) -> None:
    session = dev.start("dev", "flows:app", "--processes", "2", "--json")
    dev.environment["STEPWIRE_EXECUTOR"] = heard(session, lambda message: "executor" in message)["executor"]
    triggers = heard(session, lambda message: "triggers" in message)["triggers"]
    assert {"event": "shop/squares", "function": "squares"} in triggers
    assert dev.run("send", "shop/squares", "--data", '{"n": 10}', "--wait").returncode == 0
    assert (dev.folder / ".stepwire" / ".gitignore").read_text() == "*\n"
    assert (dev.folder / ".stepwire" / "dev.db").exists()

    changed = textwrap.dedent(FLOWS).replace("shop/fails", "shop/breaks")
    (dev.folder / "flows.py").write_text(changed)
    again = heard(session, lambda message: "triggers" in message)["triggers"]
    assert again == [{"event": "shop/breaks", "function": "fails"}]

    session.send_signal(signal.SIGINT)
    assert session.stdout is not None
    said = [json.loads(line) for line in session.stdout]
    last = {name: max(at for at, each in enumerate(said) if each["from"] == name) for name in ("worker", "executor")}
    (told,) = [at for at, each in enumerate(said) if each["from"] == "executor" and "draining" in each["line"]]
    assert last["worker"] < told, "the executor is the last to be told"
    assert session.wait(SECONDS) == 0


def test_dev_goes_on_with_the_runs_of_the_last_session(dev: Shell) -> None:
    session = dev.start("dev", "flows:app", "--json")
    dev.environment["STEPWIRE_EXECUTOR"] = heard(session, lambda message: "executor" in message)["executor"]
    heard(session, lambda message: "triggers" in message)
    [run_id] = dev.json("send", "shop/waits")["event"]["run_ids"]
    until(lambda: dev.json("runs", "show", run_id)["steps"], "the sleep")
    session.send_signal(signal.SIGTERM)
    assert session.wait(SECONDS) == 0
    session = dev.start("dev", "flows:app", "--json")
    dev.environment["STEPWIRE_EXECUTOR"] = heard(session, lambda message: "executor" in message)["executor"]
    heard(session, lambda message: "triggers" in message)
    assert dev.json("runs", "show", run_id)["run"]["state"] == "running"


def test_a_second_dev_in_the_folder_says_why_it_can_not_start(dev: Shell) -> None:
    session = dev.start("dev", "flows:app", "--json")
    heard(session, lambda message: "triggers" in message)
    second = dev.run("dev", "flows:app")
    assert second.returncode == 1
    assert "another executor has" in second.stdout
