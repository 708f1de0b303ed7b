"""The executor and workers as processes of a test."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from stepwire import SyncClient
from stepwire.testing import CommandWorker, ExecutorProcess, ProcessError


def accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_an_executor_listens_on_a_free_port_with_a_store_of_its_own():
    with ExecutorProcess() as first, ExecutorProcess() as second:
        assert first.port != second.port
        assert accepts(first.address)
        assert accepts(second.address)
        assert (first.folder / "stepwire.db").exists()
        assert first.folder != second.folder


def test_a_stopped_executor_drains_and_starts_again_at_the_same_address():
    with ExecutorProcess() as executor:
        address = executor.address
        assert executor.stop() == 0
        assert not accepts(address)
        executor.start()
        assert executor.address == address
        executor.restart()
        assert accepts(address)


def test_settings_are_flags_and_a_wrong_one_is_shown():
    with pytest.raises(ProcessError, match=r"exit code 2 before taking calls(.|\n)*session-grace") as caught:
        ExecutorProcess(settings={"session_grace": "never"}).start()
    assert "never" in str(caught.value)


def test_the_port_is_not_known_before_the_start():
    with pytest.raises(ProcessError, match="has not been started"):
        _ = ExecutorProcess().address


def test_the_store_can_be_kept_in_a_folder_of_the_test(tmp_path: Path):
    with ExecutorProcess(folder=tmp_path):
        pass
    assert (tmp_path / "stepwire.db").exists()


def test_variables_of_the_surroundings_do_not_change_the_executor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEPWIRE_STORE", "postgres://nowhere")
    monkeypatch.setenv("STEPWIRE_SESSION_GRACE", "never")
    with ExecutorProcess() as executor:
        assert accepts(executor.address)


def test_a_worker_is_any_command_that_finds_its_executor_by_the_variable(tmp_path: Path):
    command = [sys.executable, "-m", "stepwire.worker", "tests.end_to_end.apps.flows:app"]
    surroundings = {"PYTHONPATH": os.getcwd()}
    with ExecutorProcess() as executor:
        first = CommandWorker(command, executor, folder=tmp_path, environment=surroundings)
        second = CommandWorker(command, executor.address, environment=surroundings)
        with first, second, SyncClient(executor.address) as client:
            assert len(client.workers()) == 2
            assert first.restart().running
        assert (first.returncode, second.returncode) == (0, 0)


def test_a_command_that_brings_no_worker_shows_what_it_wrote():
    with ExecutorProcess() as executor:
        worker = CommandWorker(["sh", "-c", "echo I am no worker; exit 3"], executor)
        with pytest.raises(ProcessError, match=r"exit code 3 before being connected(.|\n)*I am no worker"):
            worker.start()
        worker.destroy()
