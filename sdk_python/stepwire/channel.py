"""How the SDK opens channels to the executor: the address, the options of gRPC, and the import of gRPC itself."""

from __future__ import annotations

import os
from collections.abc import Mapping

from stepwire.errors import StepwireError

# A process that forks with gRPC's fork support on can hang; must be set before the first import of grpc.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

DEFAULT_ADDRESS = "127.0.0.1:8377"
ADDRESS_VARIABLE = "STEPWIRE_EXECUTOR"
MAX_RECEIVE_BYTES = 16 * 1024 * 1024

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    # A cut connection is noticed after 20 s, also while the executor has nothing to say; it permits these pings.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own backoff goes up to 2 min, in which an executor that is back is not seen.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),
    ("grpc.http2.bdp_probe", 0),
)
"""Options of every channel to the executor."""


def executor_address(address: str | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """Give HOST:PORT of the executor: what was given, else STEPWIRE_EXECUTOR, else 127.0.0.1:8377.

    Raises StepwireError for what is no address.
    """
    found = address or environment.get(ADDRESS_VARIABLE, "") or DEFAULT_ADDRESS
    host, colon, port = found.rpartition(":")
    if found.startswith("unix:"):
        return found
    if not host or not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536 or "/" in host:
        origin = "" if address else f" (from {ADDRESS_VARIABLE})"
        raise StepwireError(f"{found!r}{origin} is no address of an executor: give HOST:PORT, like {DEFAULT_ADDRESS}")
    return found
