"""The worker of examples/go_worker as a process, and real pictures for it."""

from __future__ import annotations

import base64
import os
import random
import struct
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

from stepwire.security import Security
from stepwire.sync_client import SyncClient
from stepwire.testing.process import ManagedProcess
from tools import toolchains

MODULE = toolchains.ROOT / "examples" / "go_worker"


def run_go(*words: str, program: str = "go") -> str:
    """Run a tool of Go in the worker's module; it must succeed. Gives what it says."""
    done = subprocess.run(
        [program, *words], cwd=MODULE, env=toolchains.environment(*toolchains.go()), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{program} {' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


class GoWorker(ManagedProcess):
    """The program that `go build` made, connected to an executor."""

    def __init__(
        self,
        program: Path,
        executor: str,
        *,
        client: str = "",
        slots: int = 4,
        security: Security | None = None,
        client_security: Security | None = None,
    ) -> None:
        variables = (
            {}
            if security is None
            else {"STEPWIRE_TLS_CA": os.fspath(security.tls_ca), "STEPWIRE_TOKEN": security.token}
        )
        super().__init__("go-worker", None, variables)
        self._security = client_security
        self._program = program
        self._executor = executor
        self._client = client or executor
        self._slots = slots

    @property
    def command(self) -> Sequence[str]:
        """The command line that `start` runs."""
        return [str(self._program), "-executor", self._executor, "-slots", str(self._slots)]

    @property
    def mark(self) -> str:
        """What its instance id holds."""
        return f"-{self.pid}-"

    def wait_ready(self, timeout: float) -> None:
        """Return once the executor knows it."""
        with SyncClient(self._client, security=self._security) as client:
            self.wait_until(
                lambda: any(self.mark in each.instance_id for each in client.workers()), "connected", timeout
            )


def picture(width: int, height: int, seed: int = 0, *, striped: bool = False) -> str:
    """Give a PNG in base64: noise, which does not compress, or stripes, which are small and as much work to scale."""
    noise = random.Random(seed)
    stripes = b"\0" + (noise.randbytes(30) * width)[: 3 * width]
    rows = stripes * height if striped else b"".join(b"\0" + noise.randbytes(3 * width) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def size_of(png: str) -> tuple[int, int]:
    """Give width and height of a PNG in base64."""
    data = base64.b64decode(png)
    assert data.startswith(b"\x89PNG"), data[:16]
    width, height = struct.unpack(">II", data[16:24])
    return width, height
