"""The seam to gRPC: addresses and options of channels to the executor, and gRPC's errors as ours."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from stepwire import forks, lazy_grpc
from stepwire.errors import ExecutorError, StepwireError
from stepwire.probe import hint
from stepwire.proxies import proxy_note
from stepwire.security import Security, is_loopback

if TYPE_CHECKING:
    import grpc
else:
    from stepwire.lazy_grpc import grpc

DEFAULT_ADDRESS = "127.0.0.1:8377"
ADDRESS_VARIABLE = "STEPWIRE_EXECUTOR"
MAX_RECEIVE_BYTES = 16 * 1024 * 1024

CUT_OFF = ("CANCELLED", "INTERNAL")
"""What gRPC says by itself of a call that was cut off: CANCELLED as a server stops, INTERNAL when its stream is reset.
The executor ends a call with INTERNAL too, when a bug of its own keeps it from answering, and then gives details."""

LONGEST_WISH_SECONDS = 300.0
"""The longest delay before another try that an executor can ask for: what it wants later it says again then."""

Options = Sequence[tuple[str, int | str]]
CHANNEL_OPTIONS: Options = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    # A cut connection, or an executor that is stopped, is noticed after 12 s; the executor permits these pings. gRPC
    # waits for their answers for a minute, whatever keepalive_timeout says, unless ping_timeout is set too.
    ("grpc.keepalive_time_ms", 7_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
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

    May be several, with commas between them, where executors stand by for each other. Raises StepwireError for what is
    no address.
    """
    is_given = address is not None
    given = address if address is not None else environment.get(ADDRESS_VARIABLE, "") or DEFAULT_ADDRESS
    if not isinstance(given, str):
        raise StepwireError(f"{given!r} is no address of an executor: give HOST:PORT, like {DEFAULT_ADDRESS}")
    return ",".join(_checked(each.strip(), is_given) for each in given.split(","))


def _checked(found: str, is_given: bool) -> str:
    if re.fullmatch(r"unix:.+", found):
        return found
    origin = "" if is_given else f" (from {ADDRESS_VARIABLE})"
    host, colon, port = found.rpartition(":")
    if host.count(":") > 1 and not (host.startswith("[") and host.endswith("]")):
        raise StepwireError(
            f"{found!r}{origin} is no address of an executor: write an IPv6 address in brackets, like [::1]:8377"
        )
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65_536
    if not host or not colon or not is_port or re.search(r"[/\s]", host):
        raise StepwireError(
            f"{found!r}{origin} is no address of an executor: give HOST:PORT, like {DEFAULT_ADDRESS}, with a port from "
            "1 to 65535, or unix:PATH"
        )
    return found


class Addresses:
    """Where an executor may be: one of several addresses, the next one when that is of no use. Threads may share it."""

    def __init__(self, address: str) -> None:
        self.all = address.split(",")
        self._at = 0

    @property
    def current(self) -> str:
        """The one to try."""
        return self.all[self._at]

    def leave(self, address: str) -> None:
        """Go on to the next one, if this is still the one to try."""
        if self.current == address:
            self._at = (self._at + 1) % len(self.all)


def open_channel(address: str, security: Security, options: Options = CHANNEL_OPTIONS) -> grpc.Channel:
    """Make a channel to HOST:PORT. Raises StepwireError."""
    credentials = _credentials(address, security)
    forks.opened(for_streams=False)
    if forks.generation:  # the parent's connections are in the pool
        options = [*options, ("grpc.use_local_subchannel_pool", 1)]
    options = _direct(address, options)
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)


def open_aio_channel(address: str, security: Security, options: Options = CHANNEL_OPTIONS) -> grpc.aio.Channel:
    """Make a channel to HOST:PORT for the running event loop. Raises StepwireError."""
    lazy_grpc.load(streams=True)
    credentials = _credentials(address, security)
    forks.opened(for_streams=True)
    options = _direct(address, options)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)


def _direct(address: str, options: Options) -> Options:
    """Have no HTTP proxy asked for what is on this machine, whatever the environment says.

    A socket in the file system has no name that a certificate could be for: it has to be for `localhost`.
    """
    if address.startswith("unix:"):
        options = [*options, ("grpc.ssl_target_name_override", "localhost")]
    return [*options, ("grpc.enable_http_proxy", 0)] if is_loopback(address) else options


def _credentials(address: str, security: Security) -> grpc.ChannelCredentials | None:
    security.check(address)
    return grpc.ssl_channel_credentials(*security.read_tls()) if security.uses_tls else None


def unreachable(error: ExecutorError, address: str, security: Security) -> ExecutorError:
    """Give an error of a connection that could not be made with its reason, if that can be found out. Takes up to 4 s.

    Other errors are given as they are.
    """
    if error.code != "UNAVAILABLE":
        return error
    found = hint(str(error), address, security)
    return ExecutorError(error.code, found) if found else error


def executor_error(error: grpc.RpcError, address: str) -> tuple[ExecutorError, float | None]:
    """Turn an error of gRPC into ours; and give the delay in seconds that the executor asks for, None if it does not.

    Reads google.rpc's details: BadRequest becomes `fields`, RetryInfo the delay, 5 min at the most. What was cut off
    is UNAVAILABLE.
    """
    code = error.code().name
    message = (error.details() or "").strip()
    fields, delay, is_detailed = _details(error)
    if code in CUT_OFF and not is_detailed:
        reason = code if message in ("", code) else f"{code} {message}"
        code, message = "UNAVAILABLE", f"the call was cut off: {reason}"
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED") or not message:
        note = proxy_note(address) if code == "UNAVAILABLE" else ""
        message = f"{message or code} (executor {address}{note})"
    return ExecutorError(code, message, fields), delay


def _details(error: grpc.RpcError) -> tuple[list[tuple[str, str]], float | None, bool]:
    """Read google.rpc's details: wrong fields, the delay before another try, and whether there are any at all."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    fields: list[tuple[str, str]] = []
    delay: float | None = None
    is_detailed = False
    try:
        status = rpc_status.from_call(error)
        is_detailed = bool(status and status.details)
        for detail in status.details if status else ():
            if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                request = error_details_pb2.BadRequest.FromString(detail.value)
                fields += [(each.field, each.description) for each in request.field_violations]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                wanted = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                delay = min(max(wanted.seconds + wanted.nanos / 1e9, 0.0), LONGEST_WISH_SECONDS)
    except (ValueError, DecodeError):  # details that contradict the status, or are none: the status itself will do
        return fields, delay, is_detailed
    return fields, delay, is_detailed
