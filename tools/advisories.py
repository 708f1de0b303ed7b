"""Ask whether third-party packages that are locked have known vulnerabilities. `make check` ends with it.

    python -m tools.advisories [--osv URL] [--seconds N]

Python's packages are asked about by `uv audit` (OSV), Node's by `npm audit` (its registry). One line for each lock
says how many packages have none, or that nobody could be asked: then nothing was checked, and the exit code is 0, so
that no build fails because a service is away. Each advisory gets a line of its own.

The exit code is 1 if an advisory is to be acted on now: there is a fix, and the severity is high or critical. OSV's
severity is not told by uv, so that each of Python's with a fix counts. Others are shown and fail nothing. An advisory
that does not concern us is named in pyproject.toml under [tool.advisories.ignore], with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import toolchains

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 20.0
"""How long to wait for all answers about one lock."""
URGENT = ("high", "critical", "")
"""Severities to act on; "" is one that nobody told."""
LONGEST_REASON = 200


class NotAskedError(Exception):
    """Nobody could be asked; says why."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """A known vulnerability of a locked package."""

    names: frozenset[str]
    """Its ids: GHSA-…, CVE-…, PYSEC-…"""
    package: str
    """With its version, or with the versions that have it."""
    severity: str
    title: str
    fix: str
    """What to update to; "" if there is nothing."""

    @property
    def urgent(self) -> bool:
        """Whether it fails the check."""
        return bool(self.fix) and self.severity in URGENT

    def __str__(self) -> str:
        severity = f", {self.severity}" if self.severity else ""
        remedy = f"fixed by {self.fix}" if self.fix else "no fix yet"
        return f"{' '.join(sorted(self.names))}: {self.package}{severity}: {self.title} ({remedy})"


Found = tuple[int, list[Advisory]]
"""How many packages were asked about, and what is known."""


def of_python(lock: Path, osv: str, seconds: float) -> Found:
    """Ask about the pins of a requirements file. Raises NotAskedError."""
    pins = re.findall(r"^([\w.\[\],-]+==[^\s;\\]+)(?: ;([^\\\n]*))?", lock.read_text(), flags=re.MULTILINE)
    wanted = [f"{pin} ;{marker}" if marker.strip() else pin for pin, marker in pins]
    with tempfile.TemporaryDirectory() as folder:  # uv audits projects: this one depends on the pins
        project = ["[project]", 'name = "pins"', 'version = "0"', 'requires-python = ">=3.11"']
        (Path(folder) / "pyproject.toml").write_text("\n".join([*project, f"dependencies = {json.dumps(wanted)}"]))
        command = ["uv", "audit", "--project", folder, "--output-format", "json"]
        command += ["--preview-features", "audit-command,json-output", *(["--service-url", osv] if osv else [])]
        programs = toolchains.environment(Path(sys.executable).parent)
        quick = {"UV_HTTP_RETRIES": "0", "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
        answer = _answer(command, {**programs, **quick}, seconds)
    return answer["summary"]["audited_packages"], [
        Advisory(
            frozenset([each["display_id"], *each["aliases"]]),
            f"{each['dependency']['name']} {each['dependency']['version']}",
            "",
            each["summary"] or "no summary",
            " or ".join(each["fix_versions"]),
        )
        for each in answer["vulnerabilities"]
    ]


def of_node(lock: Path, seconds: float) -> Found:
    """Ask about a package-lock.json, what is for development too. Raises NotAskedError."""
    try:
        programs = toolchains.environment(*toolchains.node())
    except toolchains.ToolchainError as error:
        raise NotAskedError(str(error)) from None
    command = ["npm", "audit", "--json", "--package-lock-only", "--prefix", str(lock.parent)]
    command += ["--fetch-retries=0", f"--fetch-timeout={seconds * 1e3:.0f}", "--loglevel=silent"]
    answer = _answer(command, programs, seconds)
    if "vulnerabilities" not in answer:
        raise NotAskedError(str(answer.get("message") or answer.get("error") or answer))
    return answer["metadata"]["dependencies"]["total"], [
        Advisory(
            frozenset([via["url"].rpartition("/")[2]]),
            f"{via['name']} {via['range']}",
            via["severity"],
            via["title"],
            _remedy(each["fixAvailable"]),
        )
        for each in answer["vulnerabilities"].values()
        for via in each["via"]
        if not isinstance(via, str)  # a string is the name of a package that brings this one, and has an entry
    ]


def _remedy(available: bool | Mapping[str, Any]) -> str:
    """Say what mends it, by npm's `fixAvailable`."""
    if isinstance(available, Mapping):
        return f"{available['name']} {available['version']}"
    return "`npm audit fix`" if available else ""


def _answer(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """Run a command that prints JSON, whatever its exit code."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise NotAskedError(f"no answer within {seconds:g} s") from None
    except OSError as error:
        raise NotAskedError(str(error)) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        said = done.stderr or done.stdout or f"exit code {done.returncode}"
        raise NotAskedError(said[max(said.find("error:"), 0) :]) from None
    if not isinstance(answer, dict):
        raise NotAskedError("the answer is no JSON object")
    return answer


def ignored() -> dict[str, str]:
    """Give the ids of advisories that do not concern us, each with its reason."""
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"].get("advisories", {}).get("ignore", {})
    for name, reason in given.items():
        if not isinstance(reason, str) or not reason.strip():
            raise SystemExit(f"pyproject.toml: [tool.advisories.ignore] says no reason for {name}")
    return dict(given)


def told(name: str, ask: Callable[[], Found], ignore: Mapping[str, str]) -> bool:
    """Ask about a lock, and print what is known. Gives whether something is to be done."""
    try:
        packages, all_found = ask()
    except NotAskedError as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        print(f"{name}: advisories could not be asked for ({reason}): not checked")
        return False
    except (KeyError, TypeError, AttributeError) as error:
        print(f"{name}: advisories came in a form that is not known ({error!r}): not checked")
        return False
    found = [each for each in all_found if not each.names & ignore.keys()]
    beside = f", {len(all_found) - len(found)} ignored" if len(found) < len(all_found) else ""
    if not found:
        print(f"{name}: no advisories for {packages} packages{beside}")
        return False
    print(f"{name}: advisories: {len(found)}, for {packages} packages{beside}")
    for each in found:
        print(f"  {'act on' if each.urgent else 'known'}: {each}")
    return any(each.urgent for each in found)


def main() -> int:
    """Ask about every lock."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=ROOT / "requirements.lock", help="the lock of Python's packages")
    parser.add_argument(
        "--node", type=Path, default=ROOT / "sdk_typescript" / "package-lock.json", help="the lock of Node's packages"
    )
    parser.add_argument("--osv", default="", help="another service that speaks OSV's API (https://osv.dev)")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="how long to wait for each (default %(default)s)"
    )
    given = parser.parse_args()
    asked: dict[Path, Callable[[], Found]] = {
        given.python: lambda: of_python(given.python, given.osv, given.seconds),
        given.node: lambda: of_node(given.node, given.seconds),
    }
    ignore = ignored()
    acts = [told(os.path.relpath(lock, ROOT), ask, ignore) for lock, ask in asked.items()]
    if any(acts):
        print("update what is to be acted on; CONTRIBUTING.md says how")
    return int(any(acts))


if __name__ == "__main__":
    sys.exit(main())
