"""Why an address can't be listened on: gRPC does not tell its callers."""

from __future__ import annotations

import contextlib
import os
import socket


def why_not(address: str) -> str:
    """Say why the system refuses an address, written HOST:PORT, [HOST]:PORT or unix:PATH."""
    try:
        if address.startswith("unix:"):
            return _of_path(address.removeprefix("unix:"))
        host, _, port = address.rpartition(":")
        for family, kind, _, _, place in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                probe.listen(1)
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return "gRPC does not say why"


def _of_path(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return "gRPC does not say why"
