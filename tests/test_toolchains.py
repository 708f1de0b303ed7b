"""Tools of other languages are installed one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import toolchains


def test_bun_and_deno_are_installed_where_node_has_to_be_installed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchains, "PLACE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (folder,) = toolchains.deno()
    assert folder.is_relative_to(tmp_path / "runtimes")
    assert toolchains.bun() == toolchains.find_bun()
    assert (tmp_path / "node" / "programs" / "npm").exists()


def test_an_installation_inside_another_is_an_error_and_no_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchains, "PLACE", tmp_path)
    with toolchains._alone(), pytest.raises(RuntimeError, match="install what this needs first"), toolchains._alone():
        pass
    with toolchains._alone():
        pass
