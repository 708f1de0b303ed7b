"""The executor and workers as processes of a test."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stepwire.testing import ExecutorProcess, ProcessError


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
