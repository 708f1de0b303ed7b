"""The module of examples/go_worker, and real pictures for its worker."""

from __future__ import annotations

import base64
import random
import struct
import subprocess
import zlib

from tools import toolchains

MODULE = toolchains.ROOT / "examples" / "go_worker"


def run_go(*words: str, program: str = "go") -> str:
    """Run a tool of Go in the worker's module; it must succeed. Gives what it says."""
    done = subprocess.run(
        [program, *words], cwd=MODULE, env=toolchains.environment(*toolchains.go()), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{program} {' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


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
