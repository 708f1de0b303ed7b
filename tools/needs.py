"""What the tests need of the machine beyond Python: find it or install it, once, before any test begins.

    python -m tools.needs     one line for each; installs what is missing, where it may

Debian's packages take root and `apt-get`. What can't be had leaves out the tests that need it, which are marked
`needs("…")`; in CI, where the variable CI is set, it is an error.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tools import toolchains
from tools.toolchains import ToolchainError


class Need(NamedTuple):
    """Something that tests need. `find` says where it is, "" if it is missing."""

    find: Callable[[], str]
    tests: str
    """What the tests that need it are about."""
    remedy: str
    """What a person can do who has no root, or no Debian."""
    packages: Sequence[str] = ()
    """Debian's packages that bring it."""
    install: Callable[[], object] | None = None
    """What brings it without root, if anything does. Raises ToolchainError."""


def _program(name: str) -> Callable[[], str]:
    return lambda: shutil.which(name) or ""


def _rustfmt() -> str:
    return shutil.which("cargo-clippy") or "" if shutil.which("cargo-fmt") else ""


def _root() -> str:
    return f"user id {os.geteuid()}" if os.geteuid() == 0 else ""


def postgresql() -> str:
    """Give the folder of PostgreSQL's programs, "" if there is none: Debian keeps them off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    on_path = shutil.which("initdb")
    return str(folders[-1].parent) if folders else str(Path(on_path).resolve().parent) if on_path else ""


FAKETIME_PATHS = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")


def libfaketime() -> str:
    """Give the path of libfaketime's library for programs with threads, "" if there is none."""
    found = (str(file) for path in FAKETIME_PATHS for file in Path("/").glob(f"{path[1:]}/libfaketimeMT.so.1"))
    return next(found, "")


def _folders(find: Callable[[], Sequence[Path]]) -> Callable[[], str]:
    return lambda: os.pathsep.join(map(str, find()))


NEEDS = {
    "root": Need(_root, "mounts, the firewall, and other processes' system calls", "run them as root, in a container"),
    "postgresql": Need(postgresql, "the PostgreSQL store", "put initdb on the PATH", ["postgresql"]),
    "strace": Need(_program("strace"), "system calls that fail", "put strace on the PATH", ["strace"]),
    "libfaketime": Need(libfaketime, "clocks that are wrong", "install libfaketime", ["libfaketime"]),
    "nftables": Need(_program("nft"), "packets that are lost", "put nft on the PATH", ["nftables"]),
    "go": Need(
        _folders(toolchains.find_go), "the worker and the client in Go", "install Go 1.26", install=toolchains.go
    ),
    "bun": Need(_folders(toolchains.find_bun), "the SDK for TypeScript in Bun", "install npm", install=toolchains.bun),
    "deno": Need(_folders(toolchains.find_deno), "the same in Deno", "install npm", install=toolchains.deno),
    "rust": Need(_folders(toolchains.find_rust), "the worker in Rust", "install Rust 1.88", toolchains.RUST_PACKAGES),
    "rustfmt": Need(_rustfmt, "Rust's format and lints", "install rustfmt and clippy, as rustup does"),
    "java": Need(
        _folders(toolchains.find_java), "the client in Java", "install a JDK 17 and Maven", toolchains.JAVA_PACKAGES
    ),
    "cpp": Need(_folders(toolchains.find_cpp), "the client in C++", "install g++ and gRPC", toolchains.CPP_PACKAGES),
}


def missing(names: Iterable[str] = NEEDS) -> list[str]:
    """Give those that the machine does not have."""
    return [name for name in names if not NEEDS[name].find()]


def main() -> int:
    """Say where each is, and install what is missing."""
    lacking = missing()
    problems = {name: problem for name in lacking if (problem := _install_alone(name))}
    problems |= _install_packages([name for name in lacking if name not in problems and NEEDS[name].packages])
    for name, need in NEEDS.items():
        found = need.find()
        left_out = f"missing: tests of {need.tests} are left out; {need.remedy}"
        print(f"  {name:<12} {found or left_out}", flush=True)
    for problem in dict.fromkeys(problems.values()):
        print(problem, file=sys.stderr)
    still = missing()
    if still and os.environ.get("CI"):
        print(f"CI must run every test, and there is no {', '.join(still)}", file=sys.stderr)
    return 1 if problems or (still and os.environ.get("CI")) else 0


def _install_alone(name: str) -> str:
    """Install what needs no root; give what went wrong."""
    install = NEEDS[name].install
    try:
        if install is not None:
            install()
    except ToolchainError as error:
        return str(error)
    return ""


def _install_packages(names: Sequence[str]) -> dict[str, str]:
    """Install Debian's packages for all names in one go, where that is possible; give what went wrong, by name."""
    if not names or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return {}
    packages = [package for name in names for package in NEEDS[name].packages]
    try:
        toolchains.debian_packages(", ".join(names), packages)
    except ToolchainError as error:
        return dict.fromkeys(names, str(error))
    return {name: f"Debian's packages for {name} are installed, but it is not found" for name in missing(names)}


if __name__ == "__main__":
    sys.exit(main())
