"""Why a connection that gRPC could not make can't be made: gRPC itself says little more than "socket closed".

One connection of our own, of which nothing is used; it decides nothing but the words of an error.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from stepwire.security import TLS, TLS_CA, TLS_CERTIFICATE, TLS_KEY, Security

T = TypeVar("T")

PROBE_SECONDS = 2.0
_SIGNS = (
    "handshake failed",
    "verification check failed",
    "socket closed",
    "connection reset",
    "broken pipe",
    "end of tcp stream",
)
"""What gRPC says when somebody was there who did not understand us."""
_EXPIRED, _NOT_YET = 10, 9
_OTHER_NAME = (62, 64)
"""Codes of X509_verify_cert: of the host's name, and of its IP address."""


def hint(details: str, address: str, security: Security) -> str:
    """Give a sentence on why `address` can't be spoken with, if it has to do with TLS; else "". Takes up to 4 s.

    `details` is what gRPC said.
    """
    if not any(sign in details.lower() for sign in _SIGNS):
        return ""
    try:
        found = _ask(address, security)
    except OSError:
        found = ""
    return found or (_untrusted(address, security) if "CERTIFICATE_VERIFY_FAILED" in details else "")


def _ask(address: str, security: Security) -> str:
    host = "localhost" if address.startswith("unix:") else address.rpartition(":")[0].strip("[]")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if not security.uses_tls:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return _speaks_tls(address, context)
    if security.tls_ca:
        context.load_verify_locations(security.tls_ca)
    else:
        context.load_default_certs()
    if security.tls_certificate:
        context.load_cert_chain(security.tls_certificate, security.tls_key)
    try:
        with _connect(address) as plain:
            return "" if _Stream(context, plain, host).greets() else _wants_certificate(address, security)
    except ssl.SSLCertVerificationError as error:
        return _bad_certificate(error, address, security)
    except (ssl.SSLError, ConnectionError):
        return (
            f"{address} does not speak TLS: give the executor --tls-certificate and --tls-key, or, if it is to be "
            f"without, unset {TLS} and the variables that begin so"
        )


def _speaks_tls(address: str, context: ssl.SSLContext) -> str:
    try:
        with _connect(address) as plain:
            _Stream(context, plain)
            return f"{address} speaks TLS only: set {TLS}=1, and {TLS_CA} if its certificate is signed by a CA of yours"
    except (ssl.SSLError, ConnectionError):
        return ""


def _connect(address: str) -> socket.socket:
    if not address.startswith("unix:"):
        host, _, port = address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(PROBE_SECONDS)
        connection.connect(address.removeprefix("unix:"))
    except OSError:
        connection.close()
        raise
    return connection


class _Stream:
    """TLS over a connection, which may have been reset already: a socket that `ssl` wraps then is lost, unclosed."""

    def __init__(self, context: ssl.SSLContext, plain: socket.socket, host: str | None = None) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._do(self._tls.do_handshake)

    def _do(self, act: Callable[[], T]) -> T:
        """Act, sending and receiving what that takes."""
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                self._flush()
                if received := self._plain.recv(16_384):
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._plain.sendall(self._outgoing.read())

    def greets(self) -> bool:
        """Say whether the server goes on after the handshake: it refuses our certificate only then."""
        try:
            return bool(self._do(lambda: self._tls.read(1)))
        except TimeoutError:
            return True
        except OSError:
            return False


def _bad_certificate(error: ssl.SSLCertVerificationError, address: str, security: Security) -> str:
    if error.verify_code in (_EXPIRED, _NOT_YET):
        what = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
        return f"the certificate of {address} {what}: the executor needs another, or the clock of this machine is wrong"
    if error.verify_code in _OTHER_NAME:
        said = error.verify_message.rstrip(".")
        remedy = "it must be for localhost" if address.startswith("unix:") else "connect by a name that stands in it"
        return f"the certificate of {address} is for another name ({said}): {remedy}"
    return _untrusted(address, security)


def _untrusted(address: str, security: Security) -> str:
    whom = f"the CA in {os.fspath(security.tls_ca)}" if security.tls_ca else "a CA that everybody trusts"
    return f"the certificate of {address} is not signed by {whom}: give the CA that signed it with {TLS_CA}"


def _wants_certificate(address: str, security: Security) -> str:
    if not security.tls_certificate:
        return f"{address} asks for a certificate: give one with {TLS_CERTIFICATE} and {TLS_KEY}"
    ours = os.fspath(security.tls_certificate)
    return (
        f"{address} refuses the certificate in {ours}: it must be signed by the executor's --tls-client-ca, and valid"
    )
