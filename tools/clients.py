"""Generate the contract's code for one language into FOLDER/gen/LANGUAGE, by the plugins of the root's buf.gen.yaml.

The language's tools are found or installed (tools/toolchains.py), and the plugins that its example client pins are
fetched. Run it with the Python of `make setup`, which brings buf and protoc.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import toolchains

ROOT = toolchains.ROOT
TEMPLATE = ROOT / "buf.gen.yaml"
EXAMPLES = ROOT / "examples" / "clients"
TOOLS = {"go": toolchains.go, "java": toolchains.java, "cpp": toolchains.cpp, "typescript": toolchains.node}
PLUGINS = {
    "java": (EXAMPLES / "java", ("mvn", "--batch-mode", "--quiet", "initialize")),
    "typescript": (EXAMPLES / "typescript", ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")),
}
"""Where and how a language's plugins are fetched; Go builds them when they are called, C++ has them from Debian."""


class GenerationError(Exception):
    """The code can't be generated; the message holds what the tool said."""


def generate(language: str, folder: Path, go_package: str = "") -> None:
    """Write the code into `folder`/gen/`language`. `go_package` is where the module imports it from.

    Raises GenerationError or ToolchainError.
    """
    programs = Path(sys.executable).parent
    if not (programs / "buf").exists():
        raise GenerationError(f"{programs} has no buf: use the Python that `make setup` makes (.venv/bin/python)")
    folders = TOOLS[language]()
    if language in PLUGINS:
        place, command = PLUGINS[language]
        _run(command, place, folders)
        for plugin in place.glob("target/plugins/*"):
            plugin.chmod(0o755)  # Maven copies bytes only
    with tempfile.TemporaryDirectory() as scratch:
        template = Path(scratch) / "buf.gen.yaml"
        template.write_text(_only(language, go_package))
        words = (str(programs / "buf"), "generate", "--template", str(template), "--output", str(folder.resolve()))
        _run(words, ROOT, (*folders, programs))


def _only(language: str, go_package: str) -> str:
    """Give the template with one language's plugins."""
    head, plugins = TEMPLATE.read_text().split("plugins:\n")
    kept = [each for each in re.split(r"^(?=  - )", plugins, flags=re.MULTILINE) if f"out: gen/{language}\n" in each]
    if go_package:
        head = re.sub(r"(go_package_prefix\n +value): .*", rf"\1: {go_package}", head)
    return f"{head}plugins:\n{''.join(kept)}"


def _run(command: tuple[str, ...], place: Path, folders: tuple[Path, ...]) -> None:
    variables = toolchains.environment(*folders)
    done = subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True)
    if done.returncode != 0:
        raise GenerationError(f"{' '.join(command)} in {place} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("language", choices=TOOLS)
    parser.add_argument("folder", type=Path, help="the code goes into gen/LANGUAGE in it")
    parser.add_argument("--go-package", default="", help="the import path of gen/go, e.g. shop.example/worker/gen/go")
    arguments = parser.parse_args()
    try:
        generate(arguments.language, arguments.folder, arguments.go_package)
    except (GenerationError, toolchains.ToolchainError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
