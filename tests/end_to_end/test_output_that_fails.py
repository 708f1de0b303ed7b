"""What the command line does when its output can't be written, and when it is interrupted early."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from tests.end_to_end.processes import ROOT

COMMANDS = ["stepwire.cli --help", "stepwire.cli runs list --help", "stepwire.cli version", "stepwire_executor --help"]
INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "stepwire.cli.app":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from stepwire.cli import main
main()
"""


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_stdout_and_a_reader_that_goes_away_end_a_command_quietly(command: str) -> None:
    run = f"{shlex.quote(sys.executable)} -m {command}"
    for text in (f"{run} >&-", f"{run} | head -c 5 > /dev/null; exit ${{PIPESTATUS[0]}}"):
        done = shell(text)
        assert (done.returncode, done.stderr) == (0, ""), text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_told_in_a_line(command: str) -> None:
    done = shell(f"{shlex.quote(sys.executable)} -m {command} > /dev/full")
    assert done.returncode == 74
    (line,) = done.stderr.splitlines()
    assert "can't write the output: No space left on device" in line


def test_an_interrupt_while_the_command_line_is_imported_leaves_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "version"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_columns_are_obeyed_without_a_terminal() -> None:
    run = shlex.quote(sys.executable)
    for command in ("stepwire.cli runs list --help", "stepwire_executor --help"):
        done = shell(f"COLUMNS=70 {run} -m {command}")
        assert max(map(len, done.stdout.splitlines())) == 70, command


def test_an_option_without_its_value_points_to_the_help_of_its_command() -> None:
    done = shell(f"{shlex.quote(sys.executable)} -m stepwire.cli runs list --since")
    assert done.stderr == "stepwire: option '--since' requires an argument; see `stepwire runs list --help`\n"


def test_help_speaks_of_durations_and_files() -> None:
    run = shlex.quote(sys.executable)
    text = "".join(
        shell(f"COLUMNS=100 {run} -m {command} --help").stdout
        for command in ("stepwire.cli worker", "stepwire.cli dev", "stepwire.cli runs list", "stepwire_executor")
    )
    assert "DURATION" in text
    assert "FILE" in text
    assert "float" not in text
