from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwire.cli.supervisor import MAX_LINE_BYTES, Child, describe_exit

OBEDIENT = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), sys.exit(0)))
    print("up", flush=True)
    while True:
        time.sleep(0.01)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module that a child can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(code: str) -> str:
        (tmp_path / "program_of_a_test.py").write_text(textwrap.dedent(code))
        return "program_of_a_test"

    return write


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = asyncio.Event()

    def __call__(self, name: str, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    async def until(self, line: str) -> None:
        while line not in self.lines:
            self._news.clear()
            await self._news.wait()


async def test_a_child_is_stopped_by_sigterm(program: Callable[[str], str]) -> None:
    heard = Heard()
    child = Child("worker", program(OBEDIENT), [], heard)
    await child.start()
    await heard.until("up")
    assert await child.stop(grace_seconds=20) == 0
    assert heard.lines == ["up", "drained"]
    assert not child.is_running


async def test_a_child_that_does_not_stop_is_killed(program: Callable[[str], str]) -> None:
    heard = Heard()
    deaf = OBEDIENT.replace('lambda *_: (print("drained", flush=True), sys.exit(0))', "signal.SIG_IGN")
    child = Child("worker", program(deaf), [], heard)
    await child.start()
    await heard.until("up")
    assert await child.stop(grace_seconds=0.1) == -signal.SIGKILL
    assert heard.lines == ["up", "did not stop within 0.1 s; killing it"]


async def test_arguments_and_the_exit_code_are_passed_on(program: Callable[[str], str]) -> None:
    heard = Heard()
    child = Child("worker", program("import sys; print(sys.argv[1:]); sys.exit(7)"), ["--a", "b"], heard)
    await child.start()
    assert await child.wait() == 7
    assert heard.lines == ["['--a', 'b']"]


async def test_endless_lines_and_a_last_line_without_its_end_are_said(program: Callable[[str], str]) -> None:
    heard = Heard()
    code = f"import sys; sys.stderr.write('x' * {3 * MAX_LINE_BYTES} + '\\n' + 'last')"
    child = Child("worker", program(code), [], heard)
    await child.start()
    assert await child.wait() == 0
    assert "".join(heard.lines) == "x" * 3 * MAX_LINE_BYTES + "last"
    assert len(heard.lines) > 2
    assert heard.lines[-1] == "last"


def test_a_child_does_not_outlive_a_parent_that_was_killed(program: Callable[[str], str], tmp_path: Path) -> None:
    """The parent is a process of its own, which is killed and can tell nobody."""
    module = program(OBEDIENT.replace("sys.exit(0)", f"open({str(tmp_path / 'drained')!r}, 'w').close(), sys.exit(0)"))
    parent = f"""
        import asyncio
        from stepwire.cli.supervisor import Child

        async def main():
            child = Child("worker", {module!r}, [], lambda name, line: print(line, flush=True))
            await child.start()
            await child.wait()

        asyncio.run(main())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while not (tmp_path / "drained").exists():
        assert time.monotonic() < end, "the child still runs"
        time.sleep(0.01)


def test_an_exit_is_described() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-9) == "signal SIGKILL"
    assert describe_exit(-250) == "signal 250"
