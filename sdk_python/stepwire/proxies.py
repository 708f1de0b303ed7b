"""Which HTTP proxy gRPC goes through to an address, by the environment's variables; none on the way to this machine.

The rules are those of gRPC's core (https://github.com/grpc/grpc/blob/master/doc/environment_variables.md).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from stepwire.security import is_loopback

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def proxy_note(address: str, environment: Mapping[str, str] = os.environ) -> str:
    """Say which proxy is between us and HOST:PORT, for the end of an error; "" if none is."""
    name = next((each for each in VARIABLES if environment.get(each)), "")
    if not name or is_loopback(address):
        return ""
    host = address.rpartition(":")[0].strip("[]")
    exceptions = next((environment[each] for each in EXCEPTIONS if environment.get(each)), "")
    if any(_covers(each.strip(), host) for each in exceptions.split(",")):
        return ""
    return f", through the proxy {_shown(environment[name])} of {name}: set no_proxy={host} to go there directly"


def _covers(entry: str, host: str) -> bool:
    if not entry:
        return False
    if entry == "*" or host.lower().endswith(entry.lower()):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _shown(url: str) -> str:
    """Write a proxy's URL without its password."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "(not a URL)"
