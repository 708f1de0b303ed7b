"""gRPC, imported when it is first used, and with settings that suit the use and stay in this process.

gRPC reads its variables when it is imported. Its fork support lets forked children of a program with plain calls make
clients of their own; but beside streams it crashes one child in ten, whatever that does. So a process whose first use
is a stream has it off, and others have gRPC's own default. What the program has set, or imported before, stays.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"
has_fork_support = True
"""Whether gRPC was imported with it; what others did to it is not known."""


def load(*, streams: bool) -> Any:
    """Import gRPC unless somebody has; give the module."""
    global has_fork_support
    # What gRPC writes to stderr of failed handshakes is for its authors; our errors say it.
    wanted = {"GRPC_VERBOSITY": "ERROR"} | ({FORK_SUPPORT: "0"} if streams else {})
    added = {} if "grpc" in sys.modules else {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        import grpc

        if added or os.environ.get(FORK_SUPPORT):
            has_fork_support = os.environ.get(FORK_SUPPORT, "1").lower() in ("1", "true", "yes")
    finally:
        for name in added:
            os.environ.pop(name, None)
    return grpc


class _Lazy:
    def __getattr__(self, name: str) -> Any:
        return getattr(load(streams=False), name)


if not TYPE_CHECKING:
    grpc = _Lazy()
