"""Generate the Python of the contract into proto/gen/stepwire_proto.

The generated modules import each other absolutely (`from stepwire.v1 import …`), which `sdk_python/stepwire` would
hide; so they get an import root of their own and relative imports. With `--check` nothing is written: the exit code
says whether the committed files are fresh.
"""

import argparse
import filecmp
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
TARGET = PROTO / "gen" / "stepwire_proto"
MARK = '"""Generated from proto/stepwire by tools/generate.py; do not edit."""\n'


def generate(target: Path) -> None:
    """Write a fresh package into `target`, which must not exist."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as scratch:
        well_known = Path(grpc_tools.__file__).parent / "_proto"
        files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("stepwire/**/*.proto"))
        outputs = [f"--{kind}_out={scratch}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        status = protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", *outputs, *files])
        if status != 0:
            sys.exit(status)
        shutil.copytree(Path(scratch) / "stepwire", target)
    (target / "py.typed").touch()
    for package in (target, *(path for path in target.rglob("*") if path.is_dir())):
        (package / "__init__.py").write_text(MARK)
    for path in [*target.rglob("*.py"), *target.rglob("*.pyi")]:
        path.write_text(relative(path.read_text(), path.relative_to(target).parent))


def relative(text: str, package: Path) -> str:
    """Rewrite the imports of a module of `package`: those of its own package, and those of others."""

    def rewritten(match: re.Match[str]) -> str:
        imported, names = match[1].split("."), list(package.parts)
        common = 0
        while common < min(len(imported), len(names)) and imported[common] == names[common]:
            common += 1
        dots = "." * (len(names) - common + 1)
        return f"from {dots}{'.'.join(imported[common:])} import "

    return re.sub(r"^from stepwire\.([\w.]+) import ", rewritten, text, flags=re.MULTILINE)


def same(left: Path, right: Path) -> bool:
    """Say whether two trees hold the same files with the same bytes (caches left out)."""
    names = [
        {path.relative_to(tree) for path in tree.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for tree in (left, right)
    ]
    return names[0] == names[1] and all(filecmp.cmp(left / name, right / name, shallow=False) for name in names[0])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the committed files are fresh")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / "stepwire_proto"
        generate(fresh)
        if not arguments.check:
            shutil.rmtree(TARGET, ignore_errors=True)
            shutil.copytree(fresh, TARGET)
        elif not same(fresh, TARGET):
            sys.exit("proto/gen is stale: run `make generate` and commit the result")


if __name__ == "__main__":
    main()
