"""A firewall in front of one port: packets that vanish, and packets that are answered with a reset."""

from __future__ import annotations

import os
from typing import Self

from tests.faults.tools import run


class Firewall:
    """Rules of nftables about one TCP port of the loopback interface, in a table of its own; gone at the end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._table = f"stepwire_{os.getpid()}_{port}"

    def __enter__(self) -> Self:
        self._nft(f"add table inet {self._table}")
        self._nft(f"add chain inet {self._table} input {{ type filter hook input priority 0; }}")
        return self

    def __exit__(self, *_: object) -> None:
        self._nft(f"delete table inet {self._table}")

    def drop(self, *, to_port: bool = True, from_port: bool = True) -> None:
        """Lose every packet in the given directions, without a word to anybody."""
        self._rules(*["dport"] * to_port, *["sport"] * from_port, verdict="drop")

    def reset(self) -> None:
        """Answer every packet to the port with a reset."""
        self._rules("dport", verdict="reject with tcp reset")

    def _rules(self, *sides: str, verdict: str) -> None:
        for side in sides:
            self._nft(f"add rule inet {self._table} input iif lo tcp {side} {self._port} {verdict}")

    def _nft(self, command: str) -> None:
        run("nft", *command.split(" "))
