"""gRPC for a worker: importing this decides that the process streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwire import lazy_grpc

if TYPE_CHECKING:
    import grpc
else:
    grpc = lazy_grpc.load(streams=True)

__all__ = ["grpc"]
