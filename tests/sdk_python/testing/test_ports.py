"""Ports that stay a test's own while what listens on them is down; on Linux, where CI runs."""

from __future__ import annotations

import socket

from stepwire.testing import ExecutorProcess
from stepwire.testing.ports import HOST, HeldPort


def bound(port: int) -> socket.socket:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind((HOST, port))
    return taken


def test_a_held_port_is_given_to_nobody_who_takes_any() -> None:
    held = HeldPort()
    others = [bound(0) for _ in range(500)]
    assert held.number not in {each.getsockname()[1] for each in others}
    for each in others:
        each.close()


def test_an_executor_comes_back_on_its_port() -> None:
    with ExecutorProcess() as executor:
        address = executor.address
        executor.kill()
        with socket.create_server((HOST, 0)) as other:
            assert other.getsockname()[1] != executor.port
        executor.start()
        assert executor.address == address


def test_a_held_port_may_be_listened_on_and_is_free_in_the_end() -> None:
    held = HeldPort()
    number = held.number
    with bound(number) as server:
        server.listen()
    del held
    with socket.socket() as plain:
        plain.bind((HOST, number))
