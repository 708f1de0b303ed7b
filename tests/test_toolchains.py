"""Tools of other languages are installed one after the other."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(("package", "known"), [("cargo", True), ("mentioned-only", False), ("unheard-of", False)])
def test_a_package_is_there_if_debian_shows_it(
    package: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "apt-cache"  # answers as Debian's does, which not every machine has
    program.write_text('#!/bin/sh\ncase $2 in cargo) echo "Package: cargo";; mentioned-only) ;; *) exit 100;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert toolchains._is_known(package) is known
