"""Loading an app by its name: what goes wrong is named, with what to do."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from stepwire.worker import LoadError, load_app

numbers = itertools.count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def write(folder: Path, code: str) -> str:
    """Write a module with a name of its own, since modules are imported once; gives the name."""
    name = f"loaded_{next(numbers)}"
    (folder / f"{name}.py").write_text(code)
    return name


def test_an_app_is_loaded_from_the_current_folder(folder: Path) -> None:
    name = write(folder, "import stepwire\napp = stepwire.App('shop')\n")
    assert load_app(f"{name}:app").name == "shop"


@pytest.mark.parametrize("target", ["flows", "flows:", ":app", ""])
def test_a_target_without_a_module_or_an_app_is_explained(folder: Path, target: str) -> None:
    with pytest.raises(LoadError, match="give module:app, for example"):
        load_app(target)


def test_a_missing_module_is_named_with_one_that_is_near(folder: Path) -> None:
    (folder / "checkout.py").touch()
    with pytest.raises(LoadError, match=r"no module 'chekout' .* did you mean 'checkout'\?"):
        load_app("chekout:app")


def test_a_missing_module_that_the_module_imports_is_told_apart(folder: Path) -> None:
    name = write(folder, "import not_installed_anywhere\n")
    with pytest.raises(LoadError, match=f"module '{name}' imports 'not_installed_anywhere', which is not installed"):
        load_app(f"{name}:app")


def test_a_missing_app_is_named_with_one_that_is_near(folder: Path) -> None:
    name = write(folder, "import stepwire\nshop_app = stepwire.App('shop')\n")
    with pytest.raises(LoadError, match=f"has no 'app': did you mean {name}:shop_app"):
        load_app(f"{name}:app")


def test_something_else_than_an_app_is_named(folder: Path) -> None:
    name = write(folder, "import stepwire\napp = 3\nshop = stepwire.App('shop')\n")
    with pytest.raises(LoadError, match=f"{name}:app is a int, not a stepwire.App: its apps are shop"):
        load_app(f"{name}:app")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ny = x / 0\n", r"raised ZeroDivisionError at .*:2: division by zero"),
        ("import sys\nsys.exit(3)\n", r"raised SystemExit at .*:2: 3"),
        ("def f(:\n", r"is no valid Python: .*, line 1"),
    ],
)
def test_an_error_inside_the_module_is_named_with_its_place(folder: Path, code: str, message: str) -> None:
    name = write(folder, code)
    with pytest.raises(LoadError, match=message):
        load_app(f"{name}:app")


def test_the_process_ends_with_code_2_and_the_message(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stepwire.worker", "nowhere:app", "--executor", "127.0.0.1:1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "there is no module 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr
