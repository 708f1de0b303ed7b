"""Names and texts of others have no effect on a terminal and forge no line, whatever shows them: commands and logs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stepwire.testing import CommandWorker, ExecutorProcess
from tests.end_to_end.apps.hostile import ATTACK, COLOUR, EVENT, FORGED, HUNG, MARKUP, WAITED, name
from tests.end_to_end.processes import ROOT, System, until

WORKER = [sys.executable, "-m", "tests.end_to_end.apps.hostile"]
COLOURS = re.compile(r"\x1b\[[\d;]*m")
LIVE = re.compile(r"\x1b\[(\?25[lh]|1A|2K)|\r(?=\n|\x1b\[)")
"""How rich draws a live tree anew."""
SIGNS = re.compile(r"2026-01-01|\{\"forged|stepwire: forged|✓ forged|:bomb:")
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ ")


async def command(system: System, *arguments: str) -> tuple[str, str]:
    """Run a command that takes its output for a terminal; gives what it writes to stdout and stderr."""
    environment = {
        **{key: value for key, value in os.environ.items() if key != "NO_COLOR"},
        "STEPWIRE_EXECUTOR": system.address,
        "FORCE_COLOR": "1",
        "TERM": "xterm-256color",
        "COLUMNS": "300",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stepwire.cli", *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return out.decode(), err.decode()


def harmless(text: str) -> str:
    """Hold what a command wrote against the promise; gives it without its colours."""
    assert "Traceback (most recent call last)" not in "".join(re.findall(r"(?m)^\S.*", text)), text
    assert COLOUR not in text
    plain = LIVE.sub("", COLOURS.sub("", text))
    odd = {each for each in plain if not each.isprintable()} - {"\n", "\t"}
    assert not odd, (odd, text)
    assert not [line for line in plain.split("\n") if SIGNS.match(line)], plain
    assert "💣" not in plain
    return plain


async def shows(system: System, *arguments: str, words: Sequence[str]) -> None:
    """Run a command as it is for people: what it writes has all of these words, and is harmless."""
    plain = harmless("\n".join(await command(system, *arguments)))
    for word in words:
        assert word in plain, (arguments, plain)


async def gives(system: System, *arguments: str, words: Sequence[str]) -> None:
    """Run a command with --json: each line is JSON of printable characters, and says all of it."""
    out, _ = await command(system, *arguments, "--json")
    assert out.replace("\n", "").isprintable(), out
    lines = [json.loads(line) for line in out.splitlines()]
    texts = list(strings(lines))
    for word in words:
        assert any(word in text for text in texts), (arguments, out)


def strings(value: Any) -> list[str]:
    """Give all texts in JSON data."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for each in value for text in strings(each)] if isinstance(value, list) else []


async def running(system: System, run_id: str) -> bool:
    return any(step.state == "running" for step in await system.steps(run_id))


async def started(system: System, **environment: str) -> CommandWorker:
    worker = CommandWorker(
        WORKER,
        system.address,
        folder=system.folder,
        environment={"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), **environment},
    )
    system.others.append(worker)
    await asyncio.to_thread(worker.start)
    return worker


async def test_no_command_lets_texts_of_others_reach_the_terminal(tmp_path: Path) -> None:
    async with System(tmp_path) as system:
        await started(system)
        failed = await system.send(EVENT, {name("key"): name("value")}, id=name("id") + FORGED)
        waiting = await system.send(WAITED)
        await system.ended(failed)
        await until(lambda: system.client.why(waiting), "it waits")
        for line, words in (
            (["workers"], [MARKUP]),
            (["functions"], [MARKUP]),
            (["runs", "list"], [MARKUP]),
            (["runs", "show", failed], [MARKUP, "caused by KeyError", "\\x1b[97;45m", "\\u202e"]),
            (["runs", "show", failed, "--steps"], [MARKUP]),
            (["runs", "watch", failed], [MARKUP]),
            (["why", failed], []),
            (["why", waiting], [MARKUP]),
            (["send", name("give"), "--wait"], [MARKUP, "\\u001b[97;45m"]),
            (["send", EVENT, "--wait", "--id", "[/x]"], [MARKUP, "✓ event [/x]"]),
            (["send", name("nobody") + FORGED, "--id", name("id2") + FORGED], [MARKUP]),
        ):
            await shows(system, *line, words=words)
        for line, words in (
            (["workers"], [name("app"), name("label"), name("worker")]),
            (["functions"], [name("app"), name("fails"), WAITED]),
            (["runs", "list"], [name("app"), name("fails")]),
            (["runs", "show", failed], [name("message") + FORGED, name("step") + FORGED, "KeyError"]),
            (["runs", "watch", failed], [name("app"), name("step") + FORGED]),
            (["why", waiting], [name("waiting")]),
            (["send", name("give"), "--wait"], [name("key"), name("value") + FORGED]),
            (["send", name("nobody"), "--id", name("id3")], [name("id3")]),
        ):
            await gives(system, *line, words=words)
        await shows(system, "runs", "cancel", waiting, "--reason", name("reason") + FORGED, words=["is cancelled"])
        await shows(system, "runs", "show", waiting, words=["cancelled: reason", MARKUP])


async def test_errors_of_the_command_line_echo_arguments_harmlessly(tmp_path: Path) -> None:
    attack = ATTACK + FORGED
    async with System(tmp_path) as system:
        for arguments in (
            ("runs", "show", attack),
            ("runs", "watch", attack),
            ("runs", "list", "--state", attack),
            ("runs", "list", "--since", attack),
            ("why", attack),
            ("send", "x", "--data", attack),
            ("send", "x", "--data", f"@{attack}"),
            ("workers", "--executor", attack),
            ("workers", "--app", attack),
            ("workers", "--app", "\udcff"),
            ("token", "new", "\udcff"),
            ("token", "new", attack),
            ("worker", attack),
            (attack,),
            ("executor", "--host", attack),
            ("executor", attack),
            ("executor", "--port", attack),
        ):
            harmless("\n".join(await command(system, *arguments)))


@pytest.mark.parametrize("as_json", [False, True])
async def test_texts_of_others_forge_no_line_of_the_logs(tmp_path: Path, as_json: bool) -> None:
    variables = {"STEPWIRE_LOG_RUNS": "1", "STEPWIRE_LOG_LEVEL": "debug", "STEPWIRE_LOG_JSON": str(int(as_json))}
    system = System(tmp_path)
    system.executor = ExecutorProcess(
        settings={"session_grace": 0.2}, folder=tmp_path / "executor", environment=variables
    )
    async with system:
        worker = await started(system, **variables)
        failed = await system.send(EVENT, id=name("id") + FORGED)
        hung = await system.send(HUNG)
        await system.ended(failed)
        await until(lambda: running(system, hung), "a step is in hand")
        executor = system.executor
        await until(lambda: "the run has failed" in worker.log and "the run has failed" in executor.log, "it is logged")
        await asyncio.to_thread(worker.kill)
        await until(lambda: "is lost" in executor.log, "the worker is lost")
        for log in (worker.log, executor.log):
            assert log.replace("\n", "").isprintable(), log
            lines = log.splitlines()
            if as_json:
                records = [json.loads(line) for line in lines]
                assert any(f"message{MARKUP}" in text for text in strings(records))
            else:
                assert all(LINE.match(line) or line.startswith("  ") for line in lines), log
                assert not [line for line in lines if SIGNS.match(line)]
                assert MARKUP in log
        assert "Traceback (most recent call last)" in worker.log
        assert "in fail" in worker.log
