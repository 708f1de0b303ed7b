"""The commands that ask the executor, against a real gRPC server that follows a script."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

import stepwire
from stepwire.cli.app import app
from stepwire_proto.v1 import admin_pb2, event_pb2, run_pb2, value_pb2
from tests.sdk_python.cli.scripted import (
    OTHER_RUN_ID,
    RUN_ID,
    Scripted,
    at,
    function_message,
    refuse,
    run_message,
    serving,
    step_message,
)

Command = Callable[..., Result]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with serving() as server:
        yield server


@pytest.fixture
def command(scripted: Scripted) -> Command:
    """Run a command against the scripted server; a crash of the command is an error of the test."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        environment = {"STEPWIRE_EXECUTOR": scripted.address, "COLUMNS": "120", "TERM": "dumb"}
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def receipt(*run_ids: str, duplicate: bool = False) -> event_pb2.SendEventsResponse:
    one = event_pb2.EventReceipt(event_id="event-1", run_ids=run_ids, duplicate=duplicate)
    return event_pb2.SendEventsResponse(receipts=[one])


# send


def test_send_prints_the_event_and_its_runs(scripted: Scripted, command: Command) -> None:
    scripted.answers["SendEvents"] = receipt(RUN_ID, OTHER_RUN_ID)
    result = command("send", "demo/text.submitted", "--data", '{"path": "é"}', "--id", "event-1")
    assert result.exit_code == 0
    assert result.stdout == f"✓ event event-1\n  run   {RUN_ID}\n  run   {OTHER_RUN_ID}\n"
    [request] = scripted.asked(event_pb2.SendEventsRequest)
    assert request.events[0].name == "demo/text.submitted"
    assert request.events[0].id == "event-1"
    assert json.loads(request.events[0].data.data) == {"path": "é"}


def test_send_reads_stdin(scripted: Scripted, command: Command) -> None:
    scripted.answers["SendEvents"] = receipt(RUN_ID)
    assert command("send", "x", "--data", "@-", stdin="[1, 2]").exit_code == 0
    [request] = scripted.asked(event_pb2.SendEventsRequest)
    assert json.loads(request.events[0].data.data) == [1, 2]


def test_send_checks_the_json_before_it_calls_anyone(scripted: Scripted, command: Command) -> None:
    result = command("send", "x", "--data", '{"a": }')
    assert result.exit_code == 2
    assert result.stderr == "stepwire: --data is not JSON: Expecting value at line 1, column 7, near '{\"a\": }'\n"
    assert scripted.requests == []


def test_a_duplicate_says_so(scripted: Scripted, command: Command) -> None:
    scripted.answers["SendEvents"] = receipt(RUN_ID, duplicate=True)
    assert "seen before" in command("send", "x", "--id", "event-1").stdout
    assert json.loads(command("send", "x", "--id", "event-1", "--json").stdout) == {
        "event": {"id": "event-1", "run_ids": [RUN_ID], "duplicate": True}
    }


def test_an_event_that_no_function_takes_names_what_may_have_been_meant(scripted: Scripted, command: Command) -> None:
    scripted.answers["SendEvents"] = receipt()
    functions = [function_message("one", "demo/text.submitted"), function_message("two", "shop/order.placed")]
    scripted.answers["ListFunctions"] = admin_pb2.ListFunctionsResponse(functions=functions)
    result = command("send", "demo/text.submited")
    assert result.exit_code == 0
    assert "no function takes 'demo/text.submited'" in result.stderr
    assert "Did you mean demo/text.submitted?" in result.stderr
    far = command("send", "zzz", "--wait")
    assert far.exit_code == 3, "there was nothing to wait for"
    assert "Functions take: demo/text.submitted, shop/order.placed" in far.stderr


def test_a_refused_event_shows_the_fields(scripted: Scripted, command: Command) -> None:
    scripted.answers["SendEvents"] = refuse(
        grpc.StatusCode.INVALID_ARGUMENT, "the event is invalid", **{"events[0].name": "must not start with stepwire/"}
    )
    result = command("send", "stepwire/x")
    assert result.exit_code == 5
    assert result.stdout == ""
    assert result.stderr.splitlines()[0].startswith("stepwire: ")
    assert "events[0].name: must not start with stepwire/" in result.stderr
    assert "Traceback" not in result.stderr


def test_send_wait_shows_the_run_and_its_output(scripted: Scripted, command: Command) -> None:
    scripted.answers["SendEvents"] = receipt(RUN_ID)
    scripted.answers["WatchRun"] = [
        run_pb2.WatchRunResponse(run=run_message("RUNNING"), steps=[step_message("split", state="RUNNING")]),
        run_pb2.WatchRunResponse(run=run_message(), steps=[step_message("split")]),
    ]
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message())
    result = command("send", "x", "--wait")
    assert result.exit_code == 0, result.stderr
    assert f"{RUN_ID}  running  1 running" in result.stdout
    assert f"{RUN_ID}  succeeded  1 done" in result.stdout
    assert '"chunks": 2' in result.stdout


def test_send_wait_in_json_is_one_object(scripted: Scripted, command: Command) -> None:
    scripted.answers["SendEvents"] = receipt(RUN_ID)
    scripted.answers["WatchRun"] = [run_pb2.WatchRunResponse(run=run_message("FAILED"))]
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message("FAILED"))
    result = command("send", "x", "--wait", "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["event"]["run_ids"] == [RUN_ID]
    assert said["runs"][0]["state"] == "failed"
    assert said["runs"][0]["failure"]["type"] == "ValueError"


# runs


def test_runs_list_is_a_table(scripted: Scripted, command: Command) -> None:
    count = run_pb2.StepCount(state=run_pb2.STEP_STATE_SUCCEEDED, count=1000)
    scripted.answers["ListRuns"] = run_pb2.ListRunsResponse(
        runs=[run_message(step_counts=[count]), run_message("FAILED", id=OTHER_RUN_ID)]
    )
    result = command("runs", "list")
    assert result.exit_code == 0
    head, first, second = result.stdout.splitlines()
    assert head.split() == ["RUN", "STATE", "FUNCTION", "AGE", "TOOK", "STEPS"]
    assert RUN_ID in first
    assert "✓ succeeded" in first
    assert "1,000 done" in first
    assert "✗ failed" in second


def test_runs_list_passes_the_filters_on(scripted: Scripted, command: Command) -> None:
    scripted.answers["ListRuns"] = run_pb2.ListRunsResponse()
    result = command("runs", "list", "--function", "f", "--app", "a", "--state", "failed,cancelled", "--since", "1h")
    assert result.exit_code == 0
    assert "No runs match." in result.stdout
    request = scripted.asked(run_pb2.ListRunsRequest)[0]
    assert (request.function_id, request.app) == ("f", "a")
    assert list(request.states) == [run_pb2.RUN_STATE_FAILED, run_pb2.RUN_STATE_CANCELLED]
    assert request.HasField("created_after")


def pages(request: Any, _: Any) -> run_pb2.ListRunsResponse:
    """Answer with three pages of two runs."""
    page = int(request.page_token or 0)
    runs = [run_message(id=f"{RUN_ID[:-1]}{page}{number}"[-26:]) for number in range(2)]
    return run_pb2.ListRunsResponse(runs=runs, next_page_token=str(page + 1) if page < 2 else "")


def test_runs_list_reads_as_many_pages_as_it_needs(scripted: Scripted, command: Command) -> None:
    scripted.answers["ListRuns"] = pages
    assert len(json.loads(command("runs", "list", "--all", "--json").stdout)["runs"]) == 6
    three = json.loads(command("runs", "list", "--limit", "3", "--json").stdout)
    assert (len(three["runs"]), three["more"]) == (3, True)
    six = json.loads(command("runs", "list", "--limit", "6", "--json").stdout)
    assert (len(six["runs"]), six["more"]) == (6, False)
    assert "the newest 3; more with" in command("runs", "list", "--limit", "3").stderr


def test_an_unknown_state_is_wrong_usage(command: Command) -> None:
    result = command("runs", "list", "--state", "done")
    assert result.exit_code == 2
    assert "they are pending, running, succeeded, failed, cancelled" in result.stderr


def test_runs_show_folds_and_shows_the_output(scripted: Scripted, command: Command) -> None:
    failure = value_pb2.Failure(type="ConnectionError", message="no answer", retryable=True)
    steps = [step_message("split", number=1)]
    steps += [step_message("chunk", index, number=index + 2) for index in range(30)]
    steps[7] = step_message("chunk", 6, number=8, attempt=3, failure=failure)
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message(), steps=steps)
    result = command("runs", "show", RUN_ID)
    assert result.exit_code == 0
    assert "30/30" in result.stdout
    assert "#6        3 attempts" in result.stdout
    assert len(result.stdout.splitlines()) < 20
    every = command("runs", "show", RUN_ID, "--steps")
    assert "chunk:29" in every.stdout


def test_runs_show_in_json_has_every_step(scripted: Scripted, command: Command) -> None:
    steps = [step_message("split", output=value_pb2.Payload(data=b"\x00\xff", encoding="binary"))]
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message(), steps=steps)
    said = json.loads(command("runs", "show", RUN_ID, "--json").stdout)
    assert said["run"]["id"] == RUN_ID
    assert said["run"]["output"] == {"chunks": 2, "summary": ["a", "b"]}
    assert said["run"]["created_at"] == "2030-01-31T12:00:00.000000Z"
    assert said["steps"][0]["key"] == {"id": "split", "index": 0}
    assert said["steps"][0]["output"] == {"encoding": "binary", "base64": "AP8="}


def test_a_failed_run_is_shown_with_its_stack_and_cause(scripted: Scripted, command: Command) -> None:
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message("FAILED"))
    result = command("runs", "show", RUN_ID)
    assert result.exit_code == 0, "it was shown, not waited for"
    assert "ValueError: no text\n  Traceback …\ncaused by KeyError: 'path'" in result.stdout


def test_a_run_that_is_not_there_is_not_found(scripted: Scripted, command: Command) -> None:
    for method in ("GetRun", "WatchRun", "CancelRun"):
        scripted.answers[method] = refuse(grpc.StatusCode.NOT_FOUND, "there is no run 'x'")
    for name in ("show", "watch", "cancel"):
        result = command("runs", name, "x")
        assert result.exit_code == 3, name
        assert result.stderr.startswith("stepwire: ")
        assert "there is no run 'x'" in result.stderr


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELLED", 1)])
def test_the_exit_code_of_watch_says_how_the_run_ended(
    scripted: Scripted, command: Command, state: str, code: int
) -> None:
    scripted.answers["WatchRun"] = [run_pb2.WatchRunResponse(run=run_message(state))]
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message(state))
    assert command("runs", "watch", RUN_ID).exit_code == code


def test_watch_in_json_prints_each_change_on_its_line(scripted: Scripted, command: Command) -> None:
    scripted.answers["WatchRun"] = [
        run_pb2.WatchRunResponse(run=run_message("RUNNING"), steps=[step_message("split", state="RUNNING")]),
        run_pb2.WatchRunResponse(run=run_message(), steps=[step_message("split")]),
    ]
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message())
    first, second = map(json.loads, command("runs", "watch", RUN_ID, "--json").stdout.splitlines())
    assert first["run"]["state"] == "running"
    assert first["steps"][0]["state"] == "running"
    assert second["run"]["state"] == "succeeded"


def test_watch_without_a_terminal_does_not_flood(scripted: Scripted, command: Command) -> None:
    running = [
        run_pb2.WatchRunResponse(run=run_message("RUNNING"), steps=[step_message("chunk", index)])
        for index in range(500)
    ]
    scripted.answers["WatchRun"] = [*running, run_pb2.WatchRunResponse(run=run_message())]
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message())
    lines = [line for line in command("runs", "watch", RUN_ID).stdout.splitlines() if RUN_ID in line]
    assert 2 <= len(lines) < 20
    assert "500 done" in lines[-1]


def test_a_watch_is_taken_up_again_when_the_executor_comes_back(scripted: Scripted, command: Command) -> None:
    calls = iter(range(10))

    def watch(_: Any, context: grpc.ServicerContext) -> Iterator[run_pb2.WatchRunResponse]:
        if next(calls) == 0:
            yield run_pb2.WatchRunResponse(run=run_message("RUNNING"))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the executor drains")
        yield run_pb2.WatchRunResponse(run=run_message())

    scripted.answers["WatchRun"] = watch
    scripted.answers["GetRun"] = run_pb2.GetRunResponse(run=run_message())
    assert command("runs", "watch", RUN_ID).exit_code == 0
    assert next(calls) == 2


def test_cancel_says_so(scripted: Scripted, command: Command) -> None:
    scripted.answers["CancelRun"] = run_pb2.CancelRunResponse(run=run_message("CANCELLED"))
    result = command("runs", "cancel", RUN_ID, "--reason", "not needed")
    assert (result.exit_code, result.stdout) == (0, f"⊘ run {RUN_ID} is cancelled\n")
    assert scripted.asked(run_pb2.CancelRunRequest)[0].reason == "not needed"


def test_cancelling_a_run_that_has_ended_is_refused(scripted: Scripted, command: Command) -> None:
    scripted.answers["CancelRun"] = run_pb2.CancelRunResponse(run=run_message())
    result = command("runs", "cancel", RUN_ID)
    assert result.exit_code == 5
    assert f"run {RUN_ID} has succeeded already" in result.stderr


# workers, functions, and what all commands share


def worker_message(**fields: Any) -> admin_pb2.Worker:
    values = {
        "instance_id": "box-101-a",
        "state": admin_pb2.WORKER_STATE_CONNECTED,
        "app": "demo",
        "app_version": "1",
        "sdk_name": "stepwire-python",
        "sdk_version": "0.1.0",
        "slots": 32,
        "slots_taken": 4,
        "labels": {"zone": "a"},
        "connected_at": at(0),
    }
    return admin_pb2.Worker(**(values | fields))


def test_workers_is_a_table(scripted: Scripted, command: Command) -> None:
    blocked = worker_message(
        instance_id="box-102-b", state=admin_pb2.WORKER_STATE_LOST, blocking_stack="flow.py:7 time.sleep(9)"
    )
    blocked.loop_lag.FromMilliseconds(3200)
    scripted.answers["ListWorkers"] = admin_pb2.ListWorkersResponse(workers=[worker_message(), blocked])
    result = command("workers", "--app", "demo")
    assert result.exit_code == 0
    assert "box-101-a" in result.stdout
    assert "4/32" in result.stdout
    assert "zone=a" in result.stdout
    assert "box-102-b: its event loop is blocked for 3.2 s" in result.stdout
    assert "time.sleep(9)" in result.stdout
    assert scripted.asked(admin_pb2.ListWorkersRequest)[0].app == "demo"
    said = json.loads(command("workers", "--json").stdout)
    assert said["workers"][0]["slots_taken"] == 4
    assert said["workers"][1]["state"] == "lost"


def test_the_stack_that_blocks_a_worker_is_an_indented_block(scripted: Scripted, command: Command) -> None:
    blocked = worker_message(blocking_stack="flow.py:7\n\tsleep(9)  # \x1b[2J\u202e\nstepwire: forged" + "x" * 200)
    scripted.answers["ListWorkers"] = admin_pb2.ListWorkersResponse(workers=[blocked])
    stack = command("workers").stdout.partition("flow.py:7\n")[2]
    assert "sleep(9)  # \\x1b[2J\\u202e\n  stepwire:" in stack
    assert all(line.startswith("  ") for line in stack.splitlines())


def test_an_answer_that_is_an_error_is_told_in_lines_of_ours(scripted: Scripted, command: Command) -> None:
    attack = "\x1b[2J[/x]\r\nstepwire: forged\u202e"
    scripted.answers["ListWorkers"] = refuse(grpc.StatusCode.INVALID_ARGUMENT, f"no {attack}", app=attack)
    shown = "\\x1b[2J[/x]\\r\n{}stepwire: forged\\u202e\n"
    said = command("workers").stderr
    assert said == f"stepwire: no {shown.format('  ')}  app: {shown.format('  ')}"


def test_no_worker_is_no_error(scripted: Scripted, command: Command) -> None:
    scripted.answers["ListWorkers"] = admin_pb2.ListWorkersResponse()
    result = command("workers")
    assert (result.exit_code, result.stdout) == (0, "No worker is connected. Start one: stepwire worker module:app\n")


def test_functions_is_a_table(scripted: Scripted, command: Command) -> None:
    functions = [function_message("one", "demo/a", "demo/b"), function_message("two", workers=0)]
    scripted.answers["ListFunctions"] = admin_pb2.ListFunctionsResponse(functions=functions)
    result = command("functions")
    assert result.exit_code == 0
    assert "demo/a, demo/b" in result.stdout
    assert "only invoked" in result.stdout
    said = json.loads(command("functions", "--json").stdout)
    assert [function["id"] for function in said["functions"]] == ["one", "two"]


def status_message(**fields: Any) -> admin_pb2.GetStatusResponse:
    """Make the status of an executor that is well."""
    message = admin_pb2.GetStatusResponse(
        version="9.9",
        state=admin_pb2.EXECUTOR_STATE_SERVING,
        epoch=7,
        memory_bytes=150 << 20,
        workers=2,
        slots=10,
        slots_taken=5,
        runs=1234,
        queued_runs=12,
        max_queued_runs=200_000,
        queued_bytes=3 << 10,
        max_queued_bytes=256 << 20,
    )
    message.started_at.FromSeconds(int(time.time()) - 7200)
    message.pieces.count = 1000
    message.pieces.p50.FromMicroseconds(150)
    message.pieces.p99.FromMilliseconds(4)
    message.pieces.longest.FromMilliseconds(2500)
    message.MergeFrom(admin_pb2.GetStatusResponse(**fields))
    return message


def test_status_is_one_screen(scripted: Scripted, command: Command) -> None:
    attack = "\x1b[2Jbox[/x]"
    holders = [
        admin_pb2.Holder(app="shop", kind=admin_pb2.HOLDER_KIND_RUNS, bytes=5 << 20, count=1234),
        admin_pb2.Holder(app="bank", worker=attack, kind=admin_pb2.HOLDER_KIND_UNREAD, bytes=900, count=1),
    ]
    scripted.answers["GetStatus"] = status_message(holders=holders)
    result = command("status")
    assert result.exit_code == 0
    for text in (
        "executor serving  9.9  up 2h",
        "2 workers  ███░░░ 5/10 slots taken",
        "1,234 in memory",
        "12 wait for a worker, with 3.0 KiB of events and results (at most 200,000 and 256 MiB)",
        "pieces of work: p50 150 µs, p99 4 ms, p99.9 0 µs, longest 2.5 s (1,000)",
        "commits  none in the last minutes",
        "memory   150 MiB",
        "5.0 MiB  1,234 runs  runs    shop",
        "\\x1b[2Jbox[/x]",
    ):
        assert text in result.stdout, text
    assert "faults" not in result.stdout
    assert len(result.stdout.splitlines()) < 24
    said = json.loads(command("status", "--json").stdout)
    assert (said["state"], said["pieces"]["longest"], said["holders"][0]["kind"]) == ("serving", 2.5, "runs")


def test_status_says_why_an_executor_takes_no_work_and_that_it_has_met_bugs(
    scripted: Scripted, command: Command
) -> None:
    scripted.answers["GetStatus"] = status_message(
        state=admin_pb2.EXECUTOR_STATE_FAILING, reason="disk is full\nforged", faults=3, begun_anew=1
    )
    result = command("status")
    assert result.exit_code == 0, "it has answered"
    assert "executor failing" in result.stdout
    assert "         disk is full forged\n" in result.stdout
    assert "3 bugs of its own met, 1 time begun anew: the executor's log says more" in result.stdout


def test_nobody_at_the_address_is_told_in_one_line(command: Command) -> None:
    result = command("workers", "--executor", "127.0.0.1:1")
    assert result.exit_code == 4
    assert result.stderr == (
        "stepwire: no executor answers at 127.0.0.1:1; "
        "start one with `stepwire executor` or `stepwire dev module:app`\n"
    )


def test_a_proxy_in_between_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    result = command("workers", "--executor", "executor.example:8377")
    assert result.exit_code == 4
    assert "no executor answers at executor.example:8377, through the proxy 127.0.0.1:1 of http_proxy" in result.stderr


def test_an_executor_that_drains_is_told_apart_from_nobody(scripted: Scripted, command: Command) -> None:
    scripted.answers["SendEvents"] = refuse(grpc.StatusCode.UNAVAILABLE, "the executor drains; send again")
    result = command("send", "x")
    assert result.exit_code == 4
    assert "the executor drains" in result.stderr


def test_version_tells_all_versions(command: Command) -> None:
    said = json.loads(command("version", "--json").stdout)
    assert said["stepwire"] == said["executor"]
    assert said["protocol"] == "1"
    assert "python" in command("version").stdout


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told_as_other_programs_do(command: Command, option: str) -> None:
    result = command(option)
    assert (result.exit_code, result.stdout) == (0, f"stepwire {stepwire.__version__}\n")


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "stepwire", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"stepwire {stepwire.__version__}\n", "")


@pytest.mark.parametrize(
    "path",
    [[], ["dev"], ["worker"], ["send"], ["runs"], ["workers"], ["functions"], ["version"], ["why"], ["bench"]]
    + [["runs", name] for name in ("list", "show", "watch", "cancel")]
    + [["token", "new"], ["conformance", "worker"], ["conformance", "executor"]],
)
def test_each_command_has_help_that_names_no_python_types(command: Command, path: list[str]) -> None:
    result = command(*path, "--help")
    assert result.exit_code == 0
    (usage,) = [line for line in result.stdout.splitlines() if "Usage:" in line]
    assert usage.strip().startswith(" ".join(["Usage: stepwire", *path]))
    assert not set("{}") & set(usage)
    assert not re.search(r"<\w|list\[|\bbool\b|\bstr\b", result.stdout)


def test_the_help_lists_the_exit_codes(command: Command) -> None:
    text = command("--help").stdout
    assert "Exit codes:" in text
    assert "130  interrupted" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no such command 'nonsense'; see `stepwire --help`"),
        (["send"], "missing argument 'NAME'; see `stepwire send --help`"),
        (["runs", "show", "x", "--nonsense"], "no such option: --nonsense; see `stepwire runs show --help`"),
        (["worker", "flows.py"], "'flows.py' is a file; name the module and the app in it, like `flows:app`"),
        (["worker", "flows:app", "--label", "x"], "--label 'x' is no label; write it like zone=a"),
    ],
)
def test_wrong_usage_is_one_line(command: Command, arguments: list[str], message: str) -> None:
    result = command(*arguments)
    assert (result.exit_code, result.stderr) == (2, f"stepwire: {message}\n")


def test_the_defaults_of_the_worker_command_are_the_worker_s() -> None:
    """They are written down twice, so that `--help` need not import the worker."""
    from stepwire.channel import DEFAULT_ADDRESS
    from stepwire.cli import processes
    from stepwire.worker import worker

    defaults = {name: each.default for name, each in inspect.signature(processes.worker).parameters.items()}
    assert defaults["slots"] == worker.DEFAULT_SLOTS
    assert defaults["max_invocations"] == worker.DEFAULT_MAX_INVOCATIONS
    assert defaults["drain_seconds"] == worker.DEFAULT_DRAIN_SECONDS
    assert defaults["executor"] == worker.DEFAULT_EXECUTOR == DEFAULT_ADDRESS
