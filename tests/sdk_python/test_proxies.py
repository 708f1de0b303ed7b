"""Which proxy stands in the way to an executor."""

from __future__ import annotations

import pytest

from stepwire.proxies import proxy_note

PROXY = {"https_proxy": "http://me:secret@proxy.corp:3128"}


def test_the_proxy_is_named_without_its_password() -> None:
    assert proxy_note("far.example:8377", PROXY) == (
        ", through the proxy proxy.corp:3128 of https_proxy: set no_proxy=far.example to go there directly"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/s.sock"])
def test_no_proxy_is_between_us_and_this_machine(address: str) -> None:
    assert proxy_note(address, PROXY) == ""


@pytest.mark.parametrize("exceptions", ["far.example", "corp, .example", "*", "x,,far.example"])
def test_exceptions_go_directly(exceptions: str) -> None:
    assert proxy_note("far.example:1", {**PROXY, "no_proxy": exceptions}) == ""


def test_a_network_may_be_an_exception() -> None:
    assert proxy_note("10.1.2.3:1", {**PROXY, "no_grpc_proxy": "10.0.0.0/8"}) == ""
    assert proxy_note("11.1.2.3:1", {**PROXY, "no_grpc_proxy": "10.0.0.0/8"})


def test_without_a_variable_there_is_none() -> None:
    assert proxy_note("far.example:1", {"http_proxy": ""}) == ""
