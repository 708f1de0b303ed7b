"""What reviewers would say again and again, said by a machine."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = ("executor", "sdk_python", "conformance", "examples", "benchmarks", "tools")
LONGEST_FILE = 480
TEXTS = (
    *(".py", ".ts", ".mjs", ".go", ".java", ".cpp", ".proto", ".txtpb", ".md"),
    *(".toml", ".yaml", ".json", ".xml", ".txt", ".lock", ".sum", "Makefile", "run"),
)


def tracked(*suffixes: str) -> list[Path]:
    """Give the files that are, or would be, committed, but for generated ones."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = [ROOT / name for name in names if name.endswith(suffixes) and not name.startswith("proto/gen/")]
    return [file for file in files if file.exists()]


def test_no_file_has_grown_beyond_one_reason_to_be() -> None:
    long = [
        (str(file.relative_to(ROOT)), lines)
        for file in tracked(".py")
        if file.relative_to(ROOT).parts[0] in CODE and (lines := len(file.read_text().splitlines())) > LONGEST_FILE
    ]
    assert long == []


@pytest.mark.parametrize(
    "words",
    [
        r"\bTODO\b",
        r"\bFIXME\b",
        r"\bXXX\b",
        r"pytest\.skip\(",
        r"mark\.(skip|xfail|flaky)",
        r"except Exception:\s*pass",
    ],
)
def test_nothing_is_marked_as_unfinished_or_looked_away_from(words: str) -> None:
    found = [
        file.name
        for file in tracked(".py", ".proto", ".md")
        if re.search(words, file.read_text()) and file != Path(__file__)
    ]
    assert found == []


def test_no_file_holds_a_path_of_a_machine_or_a_registry_host() -> None:
    words = re.compile(r"(?<![\w.])/(work|root|home)/|py" + r"pi\.org|npm" + r"js\.(org|com)")
    found = [str(file.relative_to(ROOT)) for file in tracked(*TEXTS) if words.search(file.read_text())]
    assert found == []


def test_every_module_says_what_it_owns() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in tracked(".py")
        if file.relative_to(ROOT).parts[0] in CODE and not file.read_text().startswith('"""')
    ]
    assert silent == []


def test_only_transitions_change_a_state() -> None:
    core = ROOT / "executor/stepwire_core"
    assigned = {"state", "busy", "eager_fence", "permitted"}
    for path in sorted(core.glob("*.py")):
        if path.name == "transitions.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            each = [part for target in targets for part in getattr(target, "elts", [target])]
            wrong = [part.attr for part in each if isinstance(part, ast.Attribute) and part.attr in assigned]
            assert not wrong, f"{path.name}:{getattr(node, 'lineno', 0)} assigns .{wrong[0]}: use transitions.py"


ONE = {"stepwire.testing.events": "stepwire.testing.world", "stepwire.testing.steps": "stepwire.testing.world"}
"""The world of `stepwire.testing` is one thing in three files; none of them is of use without the others."""


def imports_of(file: Path, name: str, package: str) -> set[str]:
    """Give the modules of a package that one of them imports, for types only too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            found |= {node.module} | {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names if each.name.split(".")[0] == package}
    return found - {name}


@pytest.mark.parametrize(
    "folder",
    [
        "executor/stepwire_core",
        "executor/stepwire_executor",
        "sdk_python/stepwire",
        "conformance/stepwire_conformance",
        "tools",
    ],
)
def test_no_module_imports_itself_by_way_of_others(folder: str) -> None:
    top = ROOT / folder
    modules = {".".join(file.relative_to(top.parent).with_suffix("").parts): file for file in top.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    graph: dict[str, set[str]] = {}
    for name, file in modules.items():
        if file.name != "__init__.py":  # what a package offers of its modules is no part of them
            imported = {ONE.get(each, each) for each in imports_of(file, name, top.name) if each in modules}
            graph.setdefault(ONE.get(name, name), set()).update(imported - {ONE.get(name, name)})
    assert len(list(TopologicalSorter(graph).static_order())) > 1


def test_no_module_of_the_typescript_sdk_imports_itself_by_way_of_others() -> None:
    top = ROOT / "sdk_typescript/src"
    imported = re.compile(r'^(?:import|export)\b[^;"]*?"(\.[^"]+)\.js"', flags=re.MULTILINE)
    files = [file for file in top.rglob("*.ts") if "gen" not in file.relative_to(top).parts]
    graph = {
        file: {(file.parent / f"{path}.ts").resolve() for path in imported.findall(file.read_text())} for file in files
    }
    assert all(target in graph or top / "gen" in target.parents for each in graph.values() for target in each)
    assert len(list(TopologicalSorter(graph).static_order())) > len(files) > 30


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def anchors(text: str) -> set[str]:
    """Give the anchors of a document: its own, and those that hosts of repositories make of headings."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.*)$", plain, flags=re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}
    return made | set(re.findall(r'<a id="([^"]+)">', plain))


def test_every_link_of_a_document_to_another_one_has_its_target() -> None:
    broken = []
    for file in tracked(".md"):
        for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
            path, _, heading = link.partition("#")
            target = file.parent / path if path else file
            if "://" in link or (target.exists() and (not heading or heading in anchors(target.read_text()))):
                continue
            broken.append(f"{file.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["executor"],
        *project["dependency-groups"]["dev"],
    ]
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE))
    assert {re.split(r"[>=<\[ ]", each)[0].lower() for each in wanted} <= locked
