"""Restate: its server comes by npm, its Python SDK is served by Hypercorn."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.system import BENCH_PYTHON, HOST, WORKERS, Server, System, app, free_ports, listens

MODULES = Path(__file__).parent / "node_modules" / "@restatedev"


def binaries() -> list[Path]:
    """Give the server's binary, if npm has brought one for this platform."""
    return sorted(MODULES.glob("restate-server-*/bin/restate-server"))


def ask(url: str, body: object = None) -> bool:
    """Say whether a server answers a request with success."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except OSError:
        return False


@contextmanager
def stage() -> Iterator[Sequence[str]]:
    """Start the server and the service, and make them known to each other."""
    node, ingress, admin, service = free_ports(4)
    target, bind = "benchmarks.peers.apps.restate_app:app", f"{HOST}:{service}"
    hypercorn = [BENCH_PYTHON, "-m", "hypercorn", target, "--bind", bind, "--workers", WORKERS]
    with (
        tempfile.TemporaryDirectory(prefix="stepwire-restate-", ignore_cleanup_errors=True) as folder,
        Server(
            "restate",
            [binaries()[0], "--no-logo"],
            lambda _: ask(f"http://{HOST}:{admin}/health"),
            variables={
                "RESTATE_BASE_DIR": folder,
                "RESTATE_LISTEN_MODE": "tcp",
                "RESTATE_BIND_IP": HOST,
                "RESTATE_BIND_PORT": node,
                "RESTATE_INGRESS__BIND_PORT": ingress,
                "RESTATE_ADMIN__BIND_PORT": admin,
                "RESTATE_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "1",
            },
        ) as server,
        Server("hypercorn", hypercorn, listens(service)),
    ):
        known = {"uri": f"http://{bind}"}
        server.wait_until(lambda: ask(f"http://{HOST}:{admin}/deployments", known), "knowing the service", 30)
        server.wait_until(lambda: ask(f"http://{HOST}:{ingress}/bench/chain", 0), "serving it", 30)
        yield [*app("restate_client"), f"{HOST}:{ingress}"]


def versions() -> dict[str, str]:
    """Give the server's version."""
    return {"restate-server": json.loads((MODULES / "restate-server" / "package.json").read_text())["version"]}


SYSTEM = System(
    "Restate",
    "its server with default settings (a log on RocksDB, whose write-ahead log is synced), the service in "
    f"{WORKERS} processes of Hypercorn; steps by `ctx.run_typed`, gathered in waves of 200, which is faster than all "
    "at once; a client with an HTTP request for each run (aiohttp, which is faster than the SDK's own client)",
    ["restate-sdk", "hypercorn", "aiohttp"],
    stage,
    versions,
    lambda: "" if binaries() else "npm has not brought its server (is npm there, and the platform one that it serves?)",
)
